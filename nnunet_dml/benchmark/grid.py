"""What a benchmark trains: a YAML file of data sets × label sources × methods × networks × seeds × folds."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nnunet_dml._checks import InputError, problem

READY_MADE = Path(__file__).parent / "grids"
_REPLACED = ("datasets", "networks", "methods")
ALL = "all"
"""Stands for the mean over the data sets."""
_SHORT = reprlib.Repr()  # aliases can stand for more than any memory holds
_SHORT.maxstring = _SHORT.maxother = 160
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"  # part of a folder's name


class _Part(BaseModel):
    """A part of a grid: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Dataset(_Part):
    """A data set, and where its raw form lies."""

    id: int = Field(ge=1, le=999)
    name: str = Field(pattern=_NAME)
    configuration: str = "2d"
    plans: str = "nnUNetPlans"
    folder: str | None = None
    """Of the raw data, below `--data`."""
    convert: str | None = None
    """Arguments of `nnunet-dml convert` after the folder and `--dataset`; None: it is an nnU-Net raw data set."""
    kind: str = "raters"
    """The kind of `nnunet-dml convert`."""
    groups: str | None = None
    """Cases that stay together in a fold: the pattern of `nnunet-dml split`."""
    plan: str = ""
    """More arguments of `nnUNetv2_plan_and_preprocess`."""

    @property
    def folder_name(self) -> str:
        """`Dataset501_BrainGrowth`."""
        return f"Dataset{self.id:03d}_{self.name}"


class Method(_Part):
    """A trainer and its options, `{"loss.overlap": "jml"}`."""

    trainer: str = Field(pattern=r"^\w+$")
    options: dict[str, Any] = {}
    teacher: str | None = None
    """The method whose model of the same data set, labels and seed is the teacher."""
    teacher_network: str | None = None
    """The network of the teacher; the student's own where it is not given."""
    networks: list[str] | None = None
    """The networks that it is trained with; all of them where they are not given."""


class Network(_Part):
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


class Table(_Part):
    """How the results are shown, and what the paper has."""

    metrics: list[str] = ["dice", "bdice", "ece_pooled"]
    paper: dict[str, dict[str, dict[str, float]]] = {}
    """Data set, or `all` for the mean over them: row, or its label source or method: metric: per cent."""
    source: str = ""
    """Where the paper's figures stand."""


class Grid(_Part):
    """All of it."""

    title: str
    datasets: dict[str, Dataset] = Field(min_length=1)
    labels: dict[str, dict[str, Any]] = Field({"": {}}, min_length=1)
    methods: dict[str, Method] = Field(min_length=1)
    networks: dict[str, Network] = Field({"": Network()}, min_length=1)
    folds: list[int] = Field([0, 1, 2, 3, 4], min_length=1)
    seeds: list[int] = Field([1234], min_length=1)
    options: dict[str, Any] = {}
    """Of every cell; those of labels and of methods come after them."""
    table: Table = Table()
    quick: dict[str, Any] = {}
    """What `--quick` replaces: the same keys, merged."""

    @field_validator("labels", "methods", "networks", "datasets")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        bad = [name for name in value if name and not re.match(_NAME, name)]
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
    except Exception as error:  # its parts raise whatever they do: of a bad date ValueError
        found = " ".join(str(error).split())[:160]
        raise InputError(problem(path, expected="a YAML file of a grid", found=found)) from None
    if not isinstance(content, dict):
        raise InputError(
            problem(
                path, expected="a mapping with title, datasets, methods", found=f"{type(content).__name__}"
            )
        )
    if quick:
        part = content.get("quick")
        if not isinstance(part, dict) or not part:
            found = type(part).__name__ if part else "none"
            raise InputError(problem(path, expected="a part `quick` for --quick", found=found))
        content = _replaced(content, part)
    if datasets:
        content = _replaced(content, {"datasets": list(datasets)})
    try:
        grid = Grid.model_validate(content)
    except ValidationError as error:
        raise InputError(*(_line(it, path) for it in error.errors())) from None
    short = path.stem + ("quick" if quick else "")
    return "".join(it if it.isalnum() else "-" for it in short), grid


def _replaced(content: dict[str, Any], quick: dict[str, Any]) -> dict[str, Any]:
    """A grid's content with what `quick` has: mappings are merged, but for those in `_REPLACED`.

    A list of names under `datasets` or `methods` keeps those.
    """
    merged = dict(content)
    for key, value in quick.items():
        if isinstance(value, list) and isinstance(content.get(key), dict):
            if unknown := [it for it in value if it not in [*content[key]]]:  # which may be lists themselves
                expected = f"some of {', '.join(content[key])}"
                raise InputError(problem(key, expected=expected, found=", ".join(map(str, unknown))))
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


def _line(detail: Any, path: Path) -> str:
    where = f"{path}: {'.'.join(str(it) for it in detail['loc'])}".rstrip(": ")
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
