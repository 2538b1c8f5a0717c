"""The cells of a grid: each a training, with the two commands that a user could type for it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nnunet_dml._checks import InputError, problem
from nnunet_dml.benchmark.grid import Grid
from nnunet_dml.benchmark.grid_parts import Dataset


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
        return [*assignments_of(self.options), f"training.seed={self.seed}"]

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


def assignments_of(options: Mapping[str, Any]) -> list[str]:
    """Options as `--set` takes them."""
    return [f"{name}={_text(name, value)}" for name, value in options.items()]


def _text(name: str, value: Any) -> str:
    """A value as `--set` reads it."""
    if value is False and name == "labels.smoothing":
        return "off"  # which YAML takes for false
    return value if isinstance(value, str) else json.dumps(value)


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
