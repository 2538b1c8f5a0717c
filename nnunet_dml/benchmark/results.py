"""The evaluations of a grid's models, made or brought up to date by `nnunet-dml evaluate`."""

from __future__ import annotations

import shlex
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml.benchmark.cells import Place, call, is_done, model_folder, telling_line
from nnunet_dml.benchmark.training import Cell
from nnunet_dml.evaluation.folder import Evaluation, read_evaluation
from nnunet_dml.evaluation.records import read_records

Found = dict[tuple[str, str], list[Evaluation]]


def evaluations(name: str, cells: Sequence[Cell], *, processes: int) -> tuple[Found, list[str]]:
    """Evaluate the folds that are trained.

    Args:
        name: Of the grid.
        cells: All of it.
        processes: Cases measured at once.

    Returns:
        (data set, row): an evaluation per seed, of those that have any fold; and notes on what is missing.

    Raises:
        InputError: An evaluation failed, or nothing is trained yet.
    """
    place = Place.of(name)
    models: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        models[cell.model].append(cell)
    trained = {model: done for model, own in models.items() if (done := [it for it in own if is_done(it)])}
    if not trained:
        todo = "Run `nnunet-dml benchmark run` first."
        raise InputError(problem(place.folder, expected="trained cells", found="none", todo=todo))
    place.made()
    found: Found = defaultdict(list)
    notes: list[str] = []
    for model, done in tqdm(trained.items(), desc="Evaluating", unit="model", delay=1):
        folder = place.folder / "evaluations" / model.replace("/", "__")
        command = [
            "nnunet-dml",
            "evaluate",
            "-d",
            str(done[0].dataset.id),
            "--model",
            str(_view(place, done)),
            "-f",
            *(str(it.fold) for it in models[model]),
        ]
        _forget_other_folds(folder, {str(it.fold) for it in models[model]})
        log = place.log(f"evaluate {model}")
        log.unlink(missing_ok=True)
        if status := call([[*command, "-o", str(folder), "-np", str(processes)]], log):
            text = f"status {status}: {telling_line(log)}"
            raise InputError(
                problem(shlex.join(command), expected="it to work", found=text, todo=f"See {log}.")
            )
        evaluation = read_evaluation(folder, done[0].row)
        found[done[0].dataset_name, done[0].row].append(evaluation)
        notes += [
            f"{done[0].dataset_name}, {done[0].row}: {it}." for it in evaluation.summary.get("notes", [])
        ]
    if missing := [it.name for it in cells if not is_done(it)]:
        notes.insert(0, f"Not trained: {some(missing)}.")
    return found, notes


def _forget_other_folds(folder: Path, folds: set[str]) -> None:
    """Remove the evaluation of a grid that had more folds, which `evaluate -f` would not."""
    try:
        found = {it.fold for it in read_records(folder)}
    except InputError:  # none yet, or damaged: `evaluate` has its own words for it
        return
    if found - folds:
        shutil.rmtree(folder)


def _view(place: Place, done: Sequence[Cell]) -> Path:
    """A model's folder with the folds that are done, and those of the grid only."""
    view, model = place.folder / "models" / done[0].model, model_folder(done[0])
    shutil.rmtree(view, ignore_errors=True)
    view.mkdir(parents=True)
    for name in ("plans.json", "dataset.json", *(f"fold_{it.fold}" for it in done)):
        if (model / name).exists():
            (view / name).symlink_to((model / name).resolve())
    return view
