"""Bringing a data set of a grid from its raw form to preprocessed arrays and soft maps, by the ordinary commands."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import not_trainable, read_json, read_splits
from nnunet_dml._folders import environment_folder
from nnunet_dml.benchmark.cells import Place, call, is_done, telling_line
from nnunet_dml.benchmark.grid_parts import Dataset
from nnunet_dml.benchmark.training import Cell
from nnunet_dml.nnunet import soft_maps, unlabelled
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
    made.append(
        (plan, identifier is not None and _is_whole(dataset, _preprocessed(dataset) / identifier, "*.pkl"))
    )
    for source in _sources(dataset, cells):
        fuse = ["nnunet-dml", "preprocess", *plans, "-p", dataset.plans, "--fusion", source]
        maps = None if identifier is None else soft_maps.folder(_preprocessed(dataset), identifier, source)
        made.append((fuse, maps is not None and _is_whole(dataset, maps, "*.b2nd")))
    if _with_unlabelled(dataset, cells):
        own = None if identifier is None else unlabelled.folder(_preprocessed(dataset), identifier)
        command = ["nnunet-dml", "preprocess", *plans, "-p", dataset.plans]
        made.append((command, own is not None and bool(unlabelled.made_cases(own))))
    return made


def check_raw(cells: Sequence[Cell], data: Path | None) -> None:
    """Refuse a grid that wants raw data which are neither there nor to be converted.

    Args:
        cells: Those of the grid.
        data: As of `steps`.

    Raises:
        InputError: One line per data set.
    """
    problems = []
    for dataset in _datasets(cells):
        raw = _raw(dataset)
        if all(done for _, done in steps(dataset, cells, data)):
            continue  # nothing is made of them
        if (raw / "dataset.json").is_file():
            images = raw / unlabelled.FOLDER
            if (names := _with_unlabelled(dataset, cells)) and not images.is_dir():
                expected = f"unlabelled images for {', '.join(names)}"
                problems.append(problem(images, expected=expected, found="none", todo="Put them there."))
        elif dataset.convert is None:
            expected = "the raw data set, which the grid does not convert"
            problems.append(problem(raw, expected=expected, found="none", todo="Put it there."))
        elif data is None:
            todo = f"Add --data FOLDER, which holds {dataset.folder or 'its files'}."
            problems.append(problem(raw, expected="the raw data set", found="none", todo=todo))
        elif not (folder := data / (dataset.folder or "")).is_dir():
            expected = f"the raw data of {dataset.folder_name}"
            problems.append(problem(folder, expected=expected, found="no folder"))
    if problems:
        raise InputError(*problems)


def prepare(cells: Sequence[Cell], place: Place, data: Path) -> None:
    """Convert, plan and preprocess what the cells of a grid need.

    Raises:
        InputError: A command failed; with what its log says.
    """
    for dataset in _datasets(cells):
        if all(done for _, done in steps(dataset, cells, data)):
            continue
        place.made()
        ran: list[list[str]] = []
        with Place.of("data").made().lock(dataset.folder_name):  # between grids, too
            while todo := [it for it, done in steps(dataset, cells, data) if not done and it not in ran]:
                ran.append(todo[0])  # what one step makes, the next ones depend on
                _do(todo[0], place, dataset)


def check_data(cells: Sequence[Cell]) -> None:
    """Refuse a grid whose data are not preprocessed, have fewer folds, or none to train in one.

    Raises:
        InputError: One line per data set, with the commands or folds that are missing.
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
            continue
        path = _preprocessed(dataset) / "splits_final.json"
        splits = read_splits(path) if path.is_file() else None
        there = range(5 if splits is None else len(splits))  # as many as nnU-Net makes
        wanted = sorted({it.fold for it in cells if it.dataset == dataset})
        if splits and (empty := [fold for fold in wanted if fold in there and not splits[fold]["train"]]):
            problems.append(not_trainable(path, *empty))
        if beyond := [fold for fold in wanted if fold not in there]:
            expected = f"fold {', '.join(map(str, beyond))} of {dataset.folder_name}"
            found, todo = ", ".join(map(str, there)) or "none", "Change `folds` of the grid, or split anew."
            problems.append(problem(path, expected=expected, found=found, todo=todo))
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
        found = f"status {status}: {telling_line(log)}"
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


def _is_whole(dataset: Dataset, folder: Path, pattern: str) -> bool:
    """Whether a folder has a file of each case; a killed run leaves some, and hidden ones."""
    path = _preprocessed(dataset) / "dataset.json"
    if not path.is_file() or not folder.is_dir():
        return False
    count = read_json(path).get("numTraining", 1)
    if not isinstance(count, int):
        raise InputError(problem(path, expected="a whole number `numTraining`", found=repr(count)))
    return sum(not it.name.startswith(".") for it in folder.glob(pattern)) >= count


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
            found.append(soft_maps.resolve_source(asked, content, described))
    return [it for it in dict.fromkeys(found) if it != "hard"]


def _with_unlabelled(dataset: Dataset, cells: Sequence[Cell]) -> list[str]:
    """The trainers of a data set that want unlabelled images."""
    names = dict.fromkeys(it.trainer for it in cells if it.dataset == dataset)
    return [it for it in names if "unlabelled" in getattr(find_trainer(it), "option_groups", ())]
