"""The parts of a grid: data sets, methods, networks, and the table."""

from __future__ import annotations

import re
import shlex
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"  # part of a folder's name


class Part(BaseModel):
    """A part of a grid: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(Part):
    """A data set, and where its raw form lies."""

    id: int = Field(ge=1, le=999)
    name: str = Field(pattern=NAME)
    configuration: str = "2d"
    plans: str = "nnUNetPlans"
    folder: str | None = None
    """Of the raw data, below `--data`."""
    convert: str | None = None
    """Arguments of `nnunet-dml convert` after the folder and `--dataset`; None: it is an nnU-Net raw data set."""
    kind: Literal["raters", "lits", "kits", "lidc"] = "raters"
    """The kind of `nnunet-dml convert`."""
    groups: str | None = None
    """Cases that stay together in a fold: the pattern of `nnunet-dml split`."""
    plan: str = ""
    """More arguments of `nnUNetv2_plan_and_preprocess`."""

    @field_validator("groups")
    @classmethod
    def _has_a_group(cls, value: str | None) -> str | None:
        try:
            if value is None or re.compile(value).groups:
                return value
        except re.error:
            pass
        raise ValueError(
            f"expected a regular expression with a group, such as '(p[0-9]+)_.*', found {value!r}"
        )

    @field_validator("convert", "plan")
    @classmethod
    def _are_words(cls, value: str | None) -> str | None:
        try:
            shlex.split(value or "")
        except ValueError as error:
            raise ValueError(f"expected words as a shell reads them, found {value!r} ({error})") from None
        return value

    @property
    def folder_name(self) -> str:
        """`Dataset501_BrainGrowth`."""
        return f"Dataset{self.id:03d}_{self.name}"


class Method(Part):
    """A trainer and its options, `{"loss.overlap": "jml"}`."""

    trainer: str = Field(pattern=r"^\w+$")
    options: dict[str, Any] = {}
    teacher: str | None = None
    """The method whose model of the same data set, labels and seed is the teacher."""
    teacher_network: str | None = None
    """The network of the teacher; the student's own where it is not given."""
    networks: list[str] | None = None
    """The networks that it is trained with; all of them where they are not given."""


class Network(Part):
    """Arguments of `nnunet-dml configure` that change the network or the recipe."""

    batch_size: int | None = Field(None, ge=1)
    features: list[int] | None = None
    scale_features: float | None = Field(None, gt=0)
    network: str | None = None
    recipe: str | None = None

    @property
    def arguments(self) -> list[str]:
        """As on the command line."""
        words = []
        for name, value in self.model_dump(exclude_none=True).items():
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
        return words


class Table(Part):
    """How the results are shown, and what the paper has."""

    metrics: list[str] = Field(["dice", "bdice", "ece_pooled"], min_length=1)
    paper: dict[str, dict[str, dict[str, float]]] = {}
    """Data set, or `all` for the mean over them: row, or its label source or method: metric: per cent."""
    source: str = ""
    """Where the paper's figures stand."""

    @field_validator("metrics")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError(f"expected each figure once, found {', '.join(value)}")
        return value
