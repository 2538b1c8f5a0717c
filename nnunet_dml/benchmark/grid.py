"""What a benchmark trains: a YAML file of data sets × label sources × methods × networks × seeds × folds."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from nnunet_dml._checks import InputError, problem
from nnunet_dml.benchmark.grid_parts import NAME, Dataset, Method, Network, Part, Table

READY_MADE = Path(__file__).parent / "grids"
_REPLACED = ("datasets", "networks", "methods")
ALL = "all"
"""Stands for the mean over the data sets."""
_SHORT = reprlib.Repr()  # aliases can stand for more than any memory holds
_SHORT.maxstring = _SHORT.maxother = 160


class Grid(Part):
    """All of it."""

    title: str
    datasets: dict[str, Dataset] = Field(min_length=1)
    labels: dict[str, dict[str, Any]] = Field({"": {}}, min_length=1)
    methods: dict[str, Method] = Field(min_length=1)
    networks: dict[str, Network] = Field({"": Network()}, min_length=1)
    folds: list[int] = Field([0, 1, 2, 3, 4], min_length=1)
    seeds: list[int] = Field([1234], min_length=1)
    options: dict[str, Any] = Field({})
    """Of every cell; those of labels and of methods come after them."""
    table: Table = Table()
    quick: dict[str, Any] = Field({})
    """What `--quick` replaces: the same keys, merged."""

    @field_validator("labels", "methods", "networks", "datasets")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        bad = [name for name in value if name and not re.match(NAME, name)]
        if bad:
            raise ValueError(f"expected names of letters, digits and _ . + -, found {bad[0]!r}")
        return value

    @model_validator(mode="after")
    def _teachers(self) -> Grid:
        for name, method in self.methods.items():
            for network in method.networks or ():
                if network not in self.networks:
                    raise ValueError(
                        f"methods.{name}.networks: expected some of {', '.join(self.networks)}, found {network}"
                    )
            if method.teacher is None:
                if method.teacher_network is not None:
                    raise ValueError(f"methods.{name}: teacher_network is read with a teacher only")
                continue
            if method.teacher not in self.methods or self.methods[method.teacher].teacher is not None:
                able = [it for it, other in self.methods.items() if other.teacher is None]
                raise ValueError(
                    f"methods.{name}.teacher: expected a method without a teacher ({', '.join(able)}), "
                    f"found {method.teacher}"
                )
            if method.teacher_network is not None and method.teacher_network not in self.networks:
                raise ValueError(
                    f"methods.{name}.teacher_network: expected one of {', '.join(self.networks)}, "
                    f"found {method.teacher_network}"
                )
        if unknown := sorted(set(self.table.paper) - set(self.datasets) - {ALL}):
            raise ValueError(f"table.paper: expected data sets of the grid, found {', '.join(unknown)}")
        for numbers in (self.folds, self.seeds):
            if len(set(numbers)) != len(numbers) or min(numbers) < 0:
                raise ValueError(f"expected folds and seeds from 0 on, each once, found {numbers}")
        return self


def ready_made() -> list[str]:
    """The names of the grids that come with the package."""
    return sorted(it.stem for it in READY_MADE.glob("*.yaml"))


def read_grid(name: str, *, quick: bool = False, datasets: Sequence[str] = ()) -> tuple[str, Grid]:
    """A grid from a file, or one that comes with the package.

    Args:
        name: Path of a YAML file, or `table1`, ….
        quick: Replace what stands under `quick`.
        datasets: Keep these data sets only, by their names in the grid.

    Returns:
        The grid's short name, which is a part of the names of its plans; the grid.

    Raises:
        InputError: The file is missing or no such grid; one line per problem.
    """
    path = READY_MADE / f"{name}.yaml" if name in ready_made() else Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        todo = f"Those of the package: {', '.join(ready_made())}."
        raise InputError(problem(path, expected="a YAML file of a grid", found="none", todo=todo)) from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise InputError(problem(path, expected="a YAML file of a grid", found=str(error))) from None
    try:
        content = yaml.safe_load(text)
        _check_keys(yaml.compose(text, Loader=yaml.SafeLoader), set())
    except InputError as error:
        raise InputError(*(f"{path}: {it}" for it in error.problems)) from None
    except Exception as error:  # its parts raise whatever they do: of a bad date ValueError
        found = " ".join(str(error).split())[:160]
        raise InputError(problem(path, expected="a YAML file of a grid", found=found)) from None
    if not isinstance(content, dict):
        raise InputError(
            problem(
                path, expected="a mapping with title, datasets, methods", found=f"{type(content).__name__}"
            )
        )
    part, whole = content.get("quick"), content
    if quick:
        if not isinstance(part, dict) or not part:
            found = type(part).__name__ if part else "none"
            raise InputError(problem(path, expected="a part `quick` for --quick", found=found))
        content = _replaced(content, part, f"{path}: quick.")
    if datasets:
        content = _replaced(content, {"datasets": list(datasets)}, f"{path}: ")
    grid = _checked(content, f"{path}: ")
    if isinstance(part, dict) and not quick:  # what --quick would say
        _checked(_replaced(whole, part, f"{path}: quick."), f"{path}: quick.")
    short = path.stem + ("quick" if quick else "")
    return "".join(it if it.isalnum() else "-" for it in short), grid


def _check_keys(node: yaml.Node | None, seen: set[int]) -> None:
    """Refuse a key that stands twice in a mapping, of which YAML takes the last one without a word."""
    if node is None or id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        values = [key.value for key in keys]
        for n, key in enumerate(keys):
            if key.value in values[:n]:
                found = f"{key.value!r} twice (line {key.start_mark.line + 1})"
                raise InputError(f"expected each key once, found {found}.")
        for _, value in node.value:
            _check_keys(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_keys(value, seen)


def _checked(content: dict[str, Any], where: str) -> Grid:
    try:
        return Grid.model_validate(content)
    except ValidationError as error:
        raise InputError(*(_line(it, where) for it in error.errors())) from None


def _replaced(content: dict[str, Any], quick: dict[str, Any], where: str) -> dict[str, Any]:
    """A grid's content with what `quick` has: mappings are merged, but for those in `_REPLACED`.

    A list of names under `datasets` or `methods` keeps those; `where` is what a name stands behind in a message.
    """
    merged = dict(content)
    for key, value in quick.items():
        if isinstance(value, list) and isinstance(content.get(key), dict):
            if unknown := [it for it in value if it not in [*content[key]]]:  # which may be lists themselves
                expected = f"some of {', '.join(content[key])}"
                raise InputError(
                    problem(f"{where}{key}", expected=expected, found=", ".join(map(str, unknown)))
                )
            merged[key] = {name: content[key][name] for name in value}
            continue
        both = isinstance(value, dict) and isinstance(content.get(key), dict) and key not in _REPLACED
        merged[key] = {**content[key], **value} if both else value
    table, datasets = merged.get("table"), merged.get("datasets")
    if isinstance(table, dict) and isinstance(table.get("paper"), dict) and isinstance(datasets, dict):
        kept = {*datasets, *([ALL] if len(datasets) > 1 else [])}
        merged["table"] = {
            **table,
            "paper": {name: it for name, it in table["paper"].items() if name in kept},
        }
    return merged


def _line(detail: Any, before: str) -> str:
    where = f"{before}{'.'.join(str(it) for it in detail['loc'])}".rstrip(":. ")
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key. Valid ones: {', '.join(_keys(detail['loc'][:-1]))}."
    if detail["type"] == "missing":
        return f"{where}: expected a value, found none."
    if detail["type"] == "value_error":
        return f"{where}: {detail['ctx']['error']}."
    return f"{where}: {detail['msg']}, found {_SHORT.repr(detail['input'])}."


def _keys(place: Sequence[int | str]) -> list[str]:
    """The keys that are valid at a place of a grid."""
    parts: dict[str, type[BaseModel]] = {
        "datasets": Dataset,
        "methods": Method,
        "networks": Network,
        "table": Table,
    }
    return list(parts[str(place[0])].model_fields if place else Grid.model_fields)
