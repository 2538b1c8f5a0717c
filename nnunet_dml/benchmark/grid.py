"""What a benchmark trains: a YAML file of data sets × label sources × methods × networks × seeds × folds."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nnunet_dml._checks import InputError, problem

READY_MADE = Path(__file__).parent / "grids"
_REPLACED = ("datasets", "networks", "methods")
ALL = "all"
"""Stands for the mean over the data sets."""
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


@dataclass(frozen=True)
class Cell:
    """One training: a fold of a model."""

    grid: str
    dataset_name: str
    """What the grid calls the data set."""
    dataset: Dataset
    labels: str
    method: str
    network: str
    seed: int
    fold: int
    trainer: str
    options: Mapping[str, Any]
    network_arguments: tuple[str, ...]
    teacher: Cell | None = None

    @property
    def plans(self) -> str:
        """The name of its plans, of which the options are a part."""
        names = [self.grid, self.labels, self.method, self.network, f"seed{self.seed}"]
        return "_".join(it for it in names if it)

    @property
    def model(self) -> str:
        """Its folder below nnUNet_results."""
        name = f"{self.trainer}__{self.plans}__{self.dataset.configuration}"
        return f"{self.dataset.folder_name}/{name}"

    @property
    def name(self) -> str:
        """What is printed: data set, what distinguishes the row, seed and fold."""
        return f"{self.dataset_name} {self.row} seed {self.seed} fold {self.fold}"

    @property
    def row(self) -> str:
        """What distinguishes a row of the table."""
        return ", ".join(it for it in (self.labels, self.method, self.network) if it)

    @property
    def assignments(self) -> list[str]:
        """Its options as `--set` takes them."""
        return [
            *(f"{name}={_text(name, value)}" for name, value in self.options.items()),
            f"training.seed={self.seed}",
        ]

    @property
    def configure(self) -> list[str]:
        """The command that writes its plans."""
        words = ["nnunet-dml", "configure", "-d", str(self.dataset.id), "-p", self.dataset.plans]
        words += ["-o", self.plans, *self.network_arguments, "--overwrite"]
        if self.network_arguments:
            words += ["-c", self.dataset.configuration]
        if self.teacher is not None:
            words += ["--teacher", self.teacher.model.split("/")[1]]
        return [*words, "--set", *self.assignments]

    def train(self, device: str | None) -> list[str]:
        """The command that trains it, or goes on with it."""
        words = ["nnUNetv2_train", str(self.dataset.id), self.dataset.configuration, str(self.fold)]
        words += ["-tr", self.trainer, "-p", self.plans, "--npz", "--c"]
        return words if device is None else [*words, "-device", device]


def _text(name: str, value: Any) -> str:
    """A value as `--set` reads it."""
    if value is False and name == "labels.smoothing":
        return "off"  # which YAML takes for false
    return value if isinstance(value, str) else json.dumps(value)


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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        todo = f"Those of the package: {', '.join(ready_made())}."
        raise InputError(problem(path, expected="a YAML file of a grid", found="none", todo=todo)) from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        found = " ".join(str(error).split())[:160]
        raise InputError(problem(path, expected="a YAML file of a grid", found=found)) from None
    if not isinstance(content, dict):
        raise InputError(
            problem(
                path, expected="a mapping with title, datasets, methods", found=f"{type(content).__name__}"
            )
        )
    if quick:
        if not content.get("quick"):
            raise InputError(problem(path, expected="a part `quick` for --quick", found="none"))
        content = _replaced(content, content["quick"])
    if datasets:
        content = _replaced(content, {"datasets": list(datasets)})
    try:
        grid = Grid.model_validate(content)
    except ValidationError as error:
        raise InputError(*(_line(it, path) for it in error.errors())) from None
    short = path.stem + ("quick" if quick else "")
    return "".join(it if it.isalnum() else "-" for it in short), grid


def cells(name: str, grid: Grid) -> list[Cell]:
    """All trainings of a grid, a model's folds together, teachers before students."""
    made: dict[tuple[str, str, str, str, int, int], Cell] = {}

    def cell(dataset: str, labels: str, method: str, network: str, seed: int, fold: int) -> Cell:
        key = (dataset, labels, method, network, seed, fold)
        if key not in made:
            it = grid.methods[method]
            teacher = None
            if it.teacher is not None:
                other = network if it.teacher_network is None else it.teacher_network
                teacher = cell(dataset, labels, it.teacher, other, seed, fold)
            options = {**grid.options, **grid.labels[labels], **it.options}
            arguments = tuple(grid.networks[network].arguments)
            made[key] = Cell(
                name, dataset, grid.datasets[dataset], labels, method, network, seed, fold,
                it.trainer, options, arguments, teacher,
            )  # fmt: skip
        return made[key]

    axes = (grid.datasets, grid.labels, grid.methods, grid.networks, grid.seeds, grid.folds)
    for key in itertools.product(*axes):
        method, network = key[2], key[3]
        if network in (grid.methods[method].networks or grid.networks):
            cell(*key)
    _check_names(made.values())
    return sorted(made.values(), key=lambda it: it.teacher is not None)


def _check_names(made: Iterable[Cell]) -> None:
    """Refuse cells that would be written to one place: names that join to the same, data sets of one id."""
    trainings: dict[tuple[str, int], Cell] = {}
    plans: dict[tuple[int, str], list[str]] = {}
    problems = []
    for cell in made:
        other = trainings.setdefault((file_name(cell.model), cell.fold), cell)
        if other is not cell:
            expected, todo = "a folder of its own for every training", "Rename one of them."
            found = f"{cell.model} for {other.name} and for {cell.name}"
            problems.append(problem(cell.grid, expected=expected, found=found, todo=todo))
        if plans.setdefault((cell.dataset.id, cell.plans), cell.configure) != cell.configure:
            expected = f"one configuration and one plans file of {cell.dataset.folder_name} in a grid"
            todo = "Make a grid of each."
            problems.append(problem(cell.grid, expected=expected, found=f"two for {cell.plans}", todo=todo))
    if problems:
        raise InputError(*dict.fromkeys(problems))


def paper_keys(cell: Cell) -> list[str]:
    """What a row may be called among the paper's figures, the most exact name first."""
    without_network = ", ".join(it for it in (cell.labels, cell.method) if it)
    return [it for it in dict.fromkeys([cell.row, without_network, cell.labels, cell.method]) if it]


def file_name(name: str) -> str:
    """A name without what a file's name may not have."""
    return "".join(it if it.isalnum() or it in "-_." else "_" for it in name)


def _replaced(content: dict[str, Any], quick: dict[str, Any]) -> dict[str, Any]:
    """A grid's content with what `quick` has: mappings are merged, but for those in `_REPLACED`.

    A list of names under `datasets` or `methods` keeps those.
    """
    merged = dict(content)
    for key, value in quick.items():
        if isinstance(value, list) and isinstance(content.get(key), dict):
            if unknown := [it for it in value if it not in content[key]]:
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
    return f"{where}: {detail['msg']}, found {detail['input']!r}."


def _keys(place: Sequence[int | str]) -> list[str]:
    """The keys that are valid at a place of a grid."""
    parts: dict[str, type[BaseModel]] = {
        "datasets": Dataset,
        "methods": Method,
        "networks": Network,
        "table": Table,
    }
    return list(parts[str(place[0])].model_fields if place else Grid.model_fields)
