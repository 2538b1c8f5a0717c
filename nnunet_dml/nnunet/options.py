"""Options of the trainers: where nnU-Net keeps its configuration, in the plans file, under the key `nnunet_dml`.

A plans file holds only what differs from the trainer class's defaults, as nested groups:
`{"nnunet_dml": {"labels": {"source": "uniform"}, "training": {"epochs": 30}}}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nnunet_dml._checks import InputError

KEY = "nnunet_dml"
Source = Literal["auto", "hard", "majority", "uniform", "weighted"]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LabelOptions(_Group):
    """What the network is trained on."""

    source: Source = Field(
        "auto",
        description="Labels to train on: a fusion of the raters, or nnU-Net's own hard labels. "
        "'auto' is 'weighted' where the dataset has raters, else 'hard'.",
    )


class LossOptions(_Group):
    """weight_ce × cross-entropy + weight_overlap × overlap loss, per output of the network."""

    overlap: Literal["dml", "jml", "ctl", "sdl", "sjl"] = Field(
        "dml",
        description="Overlap loss: Dice semimetric, Jaccard metric, compatible Tversky; "
        "the classical soft Dice and soft Jaccard are baselines that are wrong on soft labels.",
    )
    weight_ce: float = Field(0.5, ge=0, description="Weight of the cross-entropy.")
    weight_overlap: float = Field(
        1.5,
        ge=0,
        description="Weight of the overlap loss. The default keeps the papers' 1:3 at nnU-Net's total of 2.",
    )
    variant: Literal[1, 2] = Field(1, description="Variant of the Dice semimetric and Jaccard metric losses.")
    alpha: float = Field(0.5, ge=0, description="Tversky: weight of false positives (overlap=ctl).")
    beta: float = Field(0.5, ge=0, description="Tversky: weight of false negatives (overlap=ctl).")
    gamma: float = Field(1.0, ge=1, description="Focal Tversky: the loss is raised to 1/gamma (overlap=ctl).")
    background: bool = Field(
        False, description="Whether the background counts as a class of the overlap loss."
    )
    reduction: Literal["plans", "batch", "image"] = Field(
        "plans",
        description="Sum the overlap over the batch or per image; 'plans' follows nnU-Net's batch_dice.",
    )
    smooth: float = Field(
        1e-5, ge=0, description="Added to numerator and denominator of the overlap, as in nnU-Net."
    )
    deep_supervision: bool = Field(
        True, description="Whether the lower resolutions of the decoder get a loss, too."
    )

    @model_validator(mode="after")
    def _something_is_learnt(self) -> LossOptions:
        if self.weight_ce == 0 and self.weight_overlap == 0:
            raise ValueError("loss.weight_ce and loss.weight_overlap are both 0; set one of them above 0.")
        if self.alpha + self.beta == 0:
            raise ValueError("loss.alpha and loss.beta are both 0; set one of them above 0.")
        return self


class TrainingOptions(_Group):
    """nnU-Net's schedule and optimizer settings."""

    epochs: int = Field(1000, ge=1, description="Number of epochs.")
    iterations: int = Field(250, ge=1, description="Training iterations per epoch.")
    val_iterations: int = Field(50, ge=1, description="Validation iterations per epoch.")
    learning_rate: float = Field(1e-2, gt=0, description="Initial learning rate.")
    weight_decay: float = Field(3e-5, ge=0, description="Weight decay.")
    save_every: int = Field(50, ge=1, description="Epochs between two checkpoints.")
    seed: int | None = Field(
        None,
        ge=0,
        description="Seed of the weights, and with nnUNet_n_proc_DA=0 of the augmentation; "
        "on the CPU such a run repeats itself exactly.",
    )


class Options(_Group):
    """All options of a trainer."""

    labels: LabelOptions = LabelOptions()
    loss: LossOptions = LossOptions()
    training: TrainingOptions = TrainingOptions()


def listing() -> list[tuple[str, str, Any, str]]:
    """Every option as (dotted name, type, default, description), in order."""
    rows = []
    for group_name, group in Options.model_fields.items():
        for name, field in group.annotation.model_fields.items():  # type: ignore[union-attr]
            kind = (
                str(field.annotation) if not isinstance(field.annotation, type) else field.annotation.__name__
            )
            kind = kind.replace("typing.Literal", "one of ")
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


def validate(overrides: Mapping[str, Any], *, where: str) -> Options:
    """Check nested groups of options, each and together.

    Args:
        overrides: Groups as in the plans file.
        where: The file or command that holds them, for the message.

    Raises:
        InputError: An unknown option or a bad value; one line each, with the valid ones.
    """
    options = _parse(overrides, where)
    loss, defaults = options.loss, LossOptions()
    problems = []
    for names, overlaps in ((("alpha", "beta", "gamma"), ("ctl",)), (("variant",), ("dml", "jml"))):
        unread = [f"loss.{name}" for name in names if getattr(loss, name) != getattr(defaults, name)]
        if unread and loss.overlap not in overlaps:
            needed = " or ".join(f"loss.overlap={overlap}" for overlap in overlaps)
            problems.append(f"{where}: {', '.join(unread)} is read with {needed} only, found {loss.overlap}.")
    if problems:
        raise InputError(*problems)
    return options


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn `group.name=value` strings into checked, typed, nested groups.

    >>> parse_assignments(["training.epochs=30", "labels.source=uniform"])
    {'training': {'epochs': 30}, 'labels': {'source': 'uniform'}}
    """
    valid = {name for name, *_ in listing()}
    nested: dict[str, Any] = {}
    problems = []
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or name not in valid:
            problems.append(
                f"--set {assignment}: expected name=value with a name of {', '.join(sorted(valid))}, "
                f"found {name!r}. `nnunet-dml configure --list` explains them."
            )
            continue
        group, key = name.split(".")
        if key in nested.setdefault(group, {}):
            problems.append(f"--set {assignment}: expected each option once, found {name} twice.")
        nested[group][key] = _typed(value)
    if problems:
        raise InputError(*problems)
    options = _parse(nested, "--set")
    return {
        group: {key: getattr(getattr(options, group), key) for key in keys} for group, keys in nested.items()
    }


def _typed(value: str) -> Any:
    """A number, true, false or none as such; anything else as the text that it is."""
    try:
        return json.loads({"none": "null"}.get(value.lower(), value))
    except ValueError:
        return value


def _parse(overrides: Mapping[str, Any], where: str) -> Options:
    try:
        return Options.model_validate(overrides)
    except ValidationError as error:
        raise InputError(*(_line(detail, where) for detail in error.errors())) from None


def _line(detail: Any, where: str) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        valid = ", ".join(row[0] for row in listing())
        return f"{where}: unknown option {name!r}. Valid ones: {valid}."
    if detail["type"] == "value_error":
        return f"{where}: {detail['ctx']['error']}"
    return f"{where}: bad value {detail['input']!r} of {name}. {detail['msg']}."
