"""The evaluations of a grid's models, made or brought up to date by `nnunet-dml evaluate`."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence

from nnunet_dml._checks import InputError, problem
from nnunet_dml.benchmark.cells import Place, call, is_done, model_folder
from nnunet_dml.benchmark.grid import Cell, Grid
from nnunet_dml.evaluation.folder import Evaluation, read_evaluation

Found = dict[tuple[str, str], list[Evaluation]]


def evaluations(name: str, grid: Grid, cells: Sequence[Cell], *, processes: int) -> tuple[Found, list[str]]:
    """Evaluate the folds that are trained.

    Args:
        name: Of the grid.
        grid: For the names of its data sets.
        cells: All of it.
        processes: Cases measured at once.

    Returns:
        (data set, row): an evaluation per seed, of those that have any fold; and notes on what is missing.

    Raises:
        InputError: An evaluation failed, or nothing is trained yet.
    """
    place = Place.of(name)
    names = {dataset.id: short for short, dataset in grid.datasets.items()}
    models: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        models[cell.model].append(cell)
    found: Found = defaultdict(list)
    missing = []
    for model, folds in models.items():
        trained = [it for it in folds if is_done(it)]
        missing += [it.name for it in folds if not is_done(it)]
        if not trained:
            continue
        folder = place.folder / "evaluations" / model.replace("/", "__")
        command = [
            "nnunet-dml",
            "evaluate",
            "-d",
            str(folds[0].dataset.id),
            "--model",
            str(model_folder(folds[0])),
        ]
        log = place.log(f"evaluate {model}")
        log.unlink(missing_ok=True)
        if status := call([[*command, "-o", str(folder), "-np", str(processes)]], log, None):
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            found_text = f"status {status}: {''.join(last)[:200]}"
            raise InputError(
                problem(shlex.join(command), expected="it to work", found=found_text, todo=f"See {log}.")
            )
        found[names[folds[0].dataset.id], folds[0].row].append(read_evaluation(folder, folds[0].row))
    if not found:
        todo = "Run `nnunet-dml benchmark run` first."
        raise InputError(problem(place.folder, expected="trained cells", found="none", todo=todo))
    notes = []
    if missing:
        shown = "; ".join(missing[:5]) + (f" … ({len(missing)} in all)" if len(missing) > 5 else "")
        notes.append(f"Not trained: {shown}.")
    return found, notes
