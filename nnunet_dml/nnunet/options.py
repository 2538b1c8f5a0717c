"""Options of the trainers: where nnU-Net keeps its configuration, in the plans file, under the key `nnunet_dml`.

A plans file holds only what differs from the trainer class's defaults, as nested groups:
`{"nnunet_dml": {"labels": {"source": "uniform"}, "training": {"epochs": 30}}}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.option_groups import Options

KEY = "nnunet_dml"


def listing() -> list[tuple[str, str, Any, str]]:
    """Every option as (dotted name, type, default, description), in order."""
    rows = []
    for group_name, group in Options.model_fields.items():
        for name, field in group.annotation.model_fields.items():  # type: ignore[union-attr]
            kind = (
                str(field.annotation) if not isinstance(field.annotation, type) else field.annotation.__name__
            )
            kind = re.sub(r"typing\.Annotated\[(\w+), [^\]]*\]", r"\1", kind).replace(
                "typing.Literal", "one of "
            )
            rows.append((f"{group_name}.{name}", kind, field.default, field.description or ""))
    return rows


def merge(*overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested groups of options; later ones win."""
    merged: dict[str, Any] = {}
    for override in overrides:
        for key, value in override.items():
            if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
                merged[key] = {**merged[key], **value}
            else:
                merged[key] = dict(value) if isinstance(value, Mapping) else value
    return merged


def complete(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A trainer class's defaults under a user's options, without the defaults that these leave unread.

    >>> complete({"loss": {"overlap": "ctl", "alpha": 0.3}}, {"loss": {"overlap": "dml"}})
    {'loss': {'overlap': 'dml'}}
    """
    merged = merge(defaults, overrides)
    for name, condition, wanted in _READ_WITH:
        (group, key), (decisive_group, decisive) = name.split("."), condition.split(".")
        chosen = overrides.get(decisive_group)
        unread = isinstance(chosen, Mapping) and decisive in chosen and chosen[decisive] not in wanted
        if unread and key in defaults.get(group, {}) and key not in overrides.get(group, {}):
            del merged[group][key]
    return merged


def validate(overrides: Mapping[str, Any], *, where: str) -> Options:
    """Check nested groups of options, each and together.

    Args:
        overrides: Groups as in the plans file.
        where: The file or command that holds them, for the message.

    Raises:
        InputError: An unknown option or a bad value; one line each, with the valid ones.
    """
    options = parse(overrides, where=where)
    problems = [
        f"{where}: {name} is read with {condition}={' or '.join(wanted)} only, found {found}."
        for name, condition, wanted in _READ_WITH
        if _value(options, name) != _value(Options(), name)
        and (found := _value(options, condition)) not in wanted
    ]
    if problems:
        raise InputError(*problems)
    return options


_READ_WITH = (  # an option, and what it needs in order to be read
    ("loss.variant", "loss.overlap", ("dml", "jml")),
    ("loss.norm", "loss.overlap", ("sjl",)),
    *((f"loss.{name}", "loss.overlap", ("ctl",)) for name in ("alpha", "beta", "gamma", "power")),
    ("loss.smooth", "loss.overlap", ("dml", "jml", "ctl", "sdl", "sjl")),
    ("loss.threshold", "loss.active", ("prob", "label", "both")),
    ("labels.epsilon", "labels.smoothing", ("all", "boundary")),
    ("labels.neighbourhood", "labels.smoothing", ("boundary",)),
    *(
        (f"teacher.{name}", "teacher.calibration", ("kde",))
        for name in ("bandwidth", "keys", "weighted_keys", "voxels")
    ),
    ("teacher.neighbourhood", "teacher.calibration", ("kde",)),
    ("teacher.neighbourhood", "teacher.voxels", ("boundary_error",)),
    ("teacher.temperature", "teacher.calibration", ("temperature",)),
    ("teacher.threshold", "teacher.active", ("prob", "label", "both")),
)


def _value(options: Options, name: str) -> Any:
    """An option by its dotted name."""
    group, key = name.split(".")
    return getattr(getattr(options, group), key)


def parse_assignments(
    assignments: Iterable[str], flags: Mapping[str, str] | None = None, *, where: str = "--set"
) -> dict[str, Any]:
    """Turn `group.name=value` strings into checked, typed, nested groups.

    Args:
        assignments: As given to `--set`.
        flags: More of them, by the flags that are short for them.
        where: What has the assignments, for messages.

    Raises:
        InputError: Unknown or double names, or bad values; one line each.

    >>> parse_assignments(["training.epochs=30", "labels.source=uniform"])
    {'training': {'epochs': 30}, 'labels': {'source': 'uniform'}}
    """
    valid = sorted(name for name, *_ in listing())
    nested: dict[str, Any] = {}
    places: dict[str, str] = {}
    problems = []
    for flag, assignment in [*((where, it) for it in assignments), *(flags or {}).items()]:
        name, equals, value = assignment.partition("=")
        if not equals or name not in valid:
            near = get_close_matches(name, valid, n=3)
            meant = f" such as {', '.join(near)}" if near else ""
            problems.append(
                f"{flag} {assignment}: expected name=value with an option's name{meant}, found {name!r}. "
                "`nnunet-dml configure --list` explains them."
            )
            continue
        group, key = name.split(".")
        if key in nested.setdefault(group, {}):
            both = " and ".join(dict.fromkeys((places[name], flag)))
            problems.append(f"{both}: expected each option once, found {name} twice.")
        nested[group][key], places[name] = _typed(value), flag
    if problems:
        raise InputError(*problems)
    try:
        options = Options.model_validate(nested)
    except ValidationError as error:
        raise InputError(
            *(_line(it, places.get(".".join(map(str, it["loc"][:2])), where)) for it in error.errors())
        ) from None
    return {
        group: {key: getattr(getattr(options, group), key) for key in keys} for group, keys in nested.items()
    }


def _typed(value: str) -> Any:
    """A number, true, false or none as such; anything else as the text that it is."""
    try:
        return json.loads({"none": "null"}.get(value.lower(), value))
    except (ValueError, RecursionError):
        return value


def parse(overrides: Mapping[str, Any], *, where: str) -> Options:
    """As `validate`, but for whether all options are read, which depends on the trainer."""
    try:
        return Options.model_validate(overrides)
    except ValidationError as error:
        raise InputError(*(_line(detail, where) for detail in error.errors())) from None


def _line(detail: Any, where: str) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        near = get_close_matches(name, [row[0] for row in listing()], n=3)
        meant = f" Did you mean {', '.join(near)}?" if near else ""
        return f"{where}: unknown option {name!r}.{meant} `nnunet-dml configure --list` has them all."
    if detail["type"] == "value_error":
        return f"{where}: {detail['ctx']['error']}"
    return f"{where}: bad value {detail['input']!r:.200} of {name}. {detail['msg']}."
