"""Bringing a data set of a grid from its raw form to preprocessed arrays and soft maps, by the ordinary commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from nnunet_dml._checks import InputError, problem
from nnunet_dml._folders import environment_folder
from nnunet_dml.benchmark.cells import Place, call, is_done
from nnunet_dml.benchmark.grid import Cell, Dataset

FUSIONS = ("weighted", "uniform", "majority", "staple", "random", "file")  # sources that `preprocess` makes
_OF_RATERS = "weighted"  # what labels.source=auto means where there are raters


def steps(dataset: Dataset, cells: Sequence[Cell], source: Path | None) -> list[tuple[list[str], bool]]:
    """The commands that prepare a data set, and whether each is done already.

    Args:
        dataset: Which.
        cells: Those of the grid.
        source: The folder that holds `dataset.folder`; None leaves the conversion out.
    """
    raw = environment_folder("nnUNet_raw", must_exist=False) / dataset.folder_name
    preprocessed = environment_folder("nnUNet_preprocessed", must_exist=False) / dataset.folder_name
    number, plans = str(dataset.id), ["-d", str(dataset.id), "-c", dataset.configuration]
    made = []
    if dataset.convert is not None and source is not None:
        convert = ["nnunet-dml", "convert", dataset.kind, str(source / (dataset.folder or ""))]
        convert += ["--dataset", f"{dataset.id}_{dataset.name}", *shlex.split(dataset.convert)]
        made.append((convert, (raw / "dataset.json").is_file()))
    if dataset.groups is not None:
        split = ["nnunet-dml", "split", "-d", number, "--groups", dataset.groups]
        made.append((split, (preprocessed / "splits_final.json").is_file()))
    plan = ["nnUNetv2_plan_and_preprocess", *plans, "--verify_dataset_integrity", *shlex.split(dataset.plan)]
    is_planned = (preprocessed / f"{dataset.plans}_{dataset.configuration}").is_dir()
    made.append((plan, is_planned and (preprocessed / f"{dataset.plans}.json").is_file()))
    sources = {str(it.options.get("labels.source", "hard")) for it in cells if it.dataset == dataset}
    sources |= {_OF_RATERS} if "auto" in sources else set()
    if fusions := [it for it in FUSIONS if it in sources]:
        # always: it skips what is up to date by itself
        made.append(
            (
                ["nnunet-dml", "preprocess", "-d", number, "-c", dataset.configuration, "--fusion", *fusions],
                False,
            )
        )
    return made


def prepare(cells: Sequence[Cell], place: Place, data: Path | None) -> None:
    """Convert, plan and preprocess what the cells of a grid need.

    Raises:
        InputError: A folder is missing, or a command failed; with its last line and its log.
    """
    for dataset in {it.dataset.id: it.dataset for it in cells}.values():
        if data is not None and dataset.convert is not None and not (data / (dataset.folder or "")).is_dir():
            expected = f"the raw data of {dataset.folder_name}"
            raise InputError(problem(data / (dataset.folder or ""), expected=expected, found="no folder"))
        with place.lock(dataset.folder_name):
            for command, done in steps(dataset, cells, data):
                if done:
                    continue
                log = place.log(f"{dataset.folder_name} {command[0]} {command[1]}")
                log.unlink(missing_ok=True)
                if status := call([command], log, None):
                    lines = [
                        it for it in log.read_text(encoding="utf-8", errors="replace").splitlines() if it
                    ]
                    found = f"status {status}: {lines[-1][:200] if lines else ''}"
                    raise InputError(
                        problem(shlex.join(command), expected="it to work", found=found, todo=f"See {log}.")
                    )


def commands(cells: Sequence[Cell], data: Path | None, device: str | None) -> list[str]:
    """All commands of a grid in order, as one would type them; those that are done, as comments."""
    lines = []
    for dataset in {it.dataset.id: it.dataset for it in cells}.values():
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
