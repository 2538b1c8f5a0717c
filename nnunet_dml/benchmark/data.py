"""Bringing a data set of a grid from its raw form to preprocessed arrays and soft maps, by the ordinary commands."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import read_json, read_splits
from nnunet_dml._folders import environment_folder
from nnunet_dml.benchmark.cells import Place, call, is_done
from nnunet_dml.benchmark.grid import Dataset
from nnunet_dml.benchmark.training import Cell
from nnunet_dml.nnunet import soft_maps
from nnunet_dml.nnunet.doctor import find_trainer


def steps(dataset: Dataset, cells: Sequence[Cell], data: Path | None) -> list[tuple[list[str], bool]]:
    """The commands that prepare a data set, and whether each is done already.

    Args:
        dataset: Which.
        cells: Those of the grid.
        data: The folder that holds `dataset.folder`; None leaves the conversion out.
    """
    number, plans = str(dataset.id), ["-d", str(dataset.id), "-c", dataset.configuration]
    made = []
    if dataset.convert is not None and data is not None:
        convert = ["nnunet-dml", "convert", dataset.kind, str(data / (dataset.folder or ""))]
        convert += ["--dataset", f"{dataset.id}_{dataset.name}", *shlex.split(dataset.convert)]
        made.append((convert, (_raw(dataset) / "dataset.json").is_file()))
    if dataset.groups is not None:
        split = ["nnunet-dml", "split", "-d", number, "--groups", dataset.groups]
        made.append((split, not _folds_mix_groups(dataset)))
    plan = ["nnUNetv2_plan_and_preprocess", *plans, "--verify_dataset_integrity", *shlex.split(dataset.plan)]
    identifier = _identifier(dataset)
    made.append((plan, identifier is not None and _is_whole(dataset, identifier)))
    for source in _sources(dataset, cells):
        fuse = ["nnunet-dml", "preprocess", *plans, "-p", dataset.plans, "--fusion", source]
        maps = None if identifier is None else soft_maps.folder(_preprocessed(dataset), identifier, source)
        made.append((fuse, maps is not None and maps.is_dir()))
    return made


def prepare(cells: Sequence[Cell], place: Place, data: Path) -> None:
    """Convert, plan and preprocess what the cells of a grid need.

    Raises:
        InputError: A folder is missing, or a command failed; with its last line and its log.
    """
    for dataset in _datasets(cells):
        raw = data / (dataset.folder or "")
        if (
            dataset.convert is not None
            and not (_raw(dataset) / "dataset.json").is_file()
            and not raw.is_dir()
        ):
            expected = f"the raw data of {dataset.folder_name}"
            raise InputError(problem(raw, expected=expected, found="no folder"))
        ran: list[list[str]] = []
        with Place.of("data").lock(dataset.folder_name):  # between grids, too
            while todo := [it for it, done in steps(dataset, cells, data) if not done and it not in ran]:
                ran.append(todo[0])  # what one step makes, the next ones depend on
                _do(todo[0], place, dataset)


def check_data(cells: Sequence[Cell]) -> None:
    """Refuse a grid whose data are not preprocessed.

    Raises:
        InputError: One line per data set, with the commands that are missing.
    """
    problems = []
    for dataset in _datasets(cells):
        missing = [shlex.join(command) for command, done in steps(dataset, cells, None) if not done]
        if missing:
            todo = (
                f"Run `{' && '.join(missing)}`, or let `nnunet-dml benchmark run … --data FOLDER` prepare it."
            )
            expected = f"preprocessed data of {dataset.folder_name} for {dataset.configuration}"
            found = "none, or a part of it"
            problems.append(problem(_preprocessed(dataset), expected=expected, found=found, todo=todo))
    if problems:
        raise InputError(*problems)


def commands(cells: Sequence[Cell], data: Path | None, device: str | None) -> list[str]:
    """All commands of a grid in order, as one would type them; those that are done, as comments."""
    lines = []
    for dataset in _datasets(cells):
        for command, done in steps(dataset, cells, data):
            lines.append(f"{'# done: ' if done else ''}{shlex.join(command)}")
    lines.append('eval "$(nnunet-dml env)"')
    configured = set()
    for cell in cells:
        if (key := (cell.dataset.id, cell.plans)) not in configured:
            configured.add(key)
            lines.append(shlex.join(cell.configure))
        lines.append(f"{'# done: ' if is_done(cell) else ''}{shlex.join(cell.train(device))}")
    return lines


def _do(command: Sequence[str], place: Place, dataset: Dataset) -> None:
    log = place.log(f"{dataset.folder_name} {' '.join(command[:2])}")
    log.unlink(missing_ok=True)
    # nnU-Net trains on a CPU best with 0 workers, but its preprocessing makes that its number of threads, of which 0 is none
    threads = {"nnUNet_n_proc_DA": "1"} if os.environ.get("nnUNet_n_proc_DA") == "0" else None
    if status := call([command], log, threads):
        lines = [it for it in log.read_text(encoding="utf-8", errors="replace").splitlines() if it]
        found = f"status {status}: {lines[-1][:200] if lines else ''}"
        raise InputError(problem(shlex.join(command), expected="it to work", found=found, todo=f"See {log}."))


def _datasets(cells: Sequence[Cell]) -> list[Dataset]:
    return list({it.dataset_name: it.dataset for it in cells}.values())


def _raw(dataset: Dataset) -> Path:
    return environment_folder("nnUNet_raw", must_exist=False) / dataset.folder_name


def _preprocessed(dataset: Dataset) -> Path:
    return environment_folder("nnUNet_preprocessed", must_exist=False) / dataset.folder_name


def _identifier(dataset: Dataset) -> str | None:
    """The name of nnU-Net's folder of arrays; None where nothing is planned.

    Raises:
        InputError: The plans have no such configuration.
    """
    path = _preprocessed(dataset) / f"{dataset.plans}.json"
    if not path.is_file():
        return None
    available: dict[str, Any] = read_json(path).get("configurations") or {}
    if not isinstance(available, dict) or not all(isinstance(it, dict) for it in available.values()):
        raise InputError(problem(path, expected="nnU-Net's plans", found=f"configurations {available!r}"))
    name: str | None = dataset.configuration
    if name not in available:
        raise InputError(
            problem(path, expected=f"a configuration {name}", found=", ".join(available) or "none")
        )
    while name in available:
        if found := available[name].get("data_identifier"):
            return str(found)
        name = available[name].get("inherits_from")
    return None


def _is_whole(dataset: Dataset, identifier: str) -> bool:
    """Whether all cases are preprocessed; a killed run leaves some."""
    path, arrays = _preprocessed(dataset) / "dataset.json", _preprocessed(dataset) / identifier
    if not path.is_file() or not arrays.is_dir():
        return False
    count = read_json(path).get("numTraining", 1)
    if not isinstance(count, int):
        raise InputError(problem(path, expected="a whole number `numTraining`", found=repr(count)))
    return len(list(arrays.glob("*.pkl"))) >= count


def _folds_mix_groups(dataset: Dataset) -> bool:
    """Whether there are no folds yet, or some with a patient's cases on both sides."""
    path = _preprocessed(dataset) / "splits_final.json"
    if not path.is_file() or dataset.groups is None:
        return True
    for fold in read_splits(path):
        sides = [{_group(dataset.groups, case) for case in fold[side]} for side in ("train", "val")]
        if sides[0] & sides[1]:
            return True
    return False


def _group(pattern: str, case: str) -> str:
    match = re.fullmatch(pattern, case)
    return case if match is None else str(match[1])


def _sources(dataset: Dataset, cells: Sequence[Cell]) -> list[str]:
    """The sources of labels that need maps: of the cells' options, or their trainers' defaults."""
    described = _raw(dataset) / "dataset.json"
    content = read_json(described) if described.is_file() else {}
    found = []
    for cell in cells:
        trainer = find_trainer(cell.trainer)
        if cell.dataset == dataset and "labels" in getattr(trainer, "option_groups", ()):
            default = trainer.default_options.get("labels", {}).get("source", "auto")  # type: ignore[attr-defined]
            asked = str(cell.options.get("labels.source", default))
            found.append(soft_maps.resolve_source(asked, content))
    return [it for it in dict.fromkeys(found) if it != "hard"]
