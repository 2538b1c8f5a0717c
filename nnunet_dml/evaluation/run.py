"""Evaluate many cases in several processes, each of them once."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import clear_leftovers
from nnunet_dml._parallel import each
from nnunet_dml.evaluation.cases import evaluate_case, stamp
from nnunet_dml.evaluation.dataset import RawDataset
from nnunet_dml.evaluation.options import Options
from nnunet_dml.evaluation.predictions import Prediction
from nnunet_dml.evaluation.records import CASES, SUMMARY, CaseRecord, read_record, write_record
from nnunet_dml.evaluation.references import check_references

UNFINISHED = "unfinished"
"""The folder, in that of an evaluation, for the records of a run until all cases are measured: what a killed run has
done is not done again, and the results of the run before stay as they are until the new ones are whole."""


def evaluate(
    cases: Sequence[Prediction],
    dataset: RawDataset,
    options: Options,
    folder: Path,
    *,
    folds: Collection[str] = (),
    processes: int = 1,
    overwrite: bool = False,
) -> list[CaseRecord]:
    """Measure the cases that have no record of the same stamp, and put all records into `folder/cases`.

    Only one process may do so at a time; see `lock.only_writer`.

    Args:
        cases: What `predictions.of_model` or `of_folder` found.
        dataset: The raw dataset with the references.
        options: What is measured.
        folder: Of the evaluation; made if there is none. Records of other cases are removed from it.
        folds: Those that were chosen, none where all are evaluated. Records of others are not removed: they are refused,
            or left in `folder/unfinished`.
        processes: How many cases are measured at once, each in memory by itself. 1 uses no other process.
        overwrite: Whether cases are measured again although nothing has changed.

    Returns:
        The records, by fold and case.

    Raises:
        InputError: With every problem of every case. Whole records of the others are kept in `folder/unfinished`.
            Before anything is measured: cases without a reference, files in `folder/cases` that are no records or are
            those of folds that were not chosen.
    """
    check_references(cases, dataset)
    started = folder / UNFINISHED
    for place in (folder, started):
        clear_leftovers(place / CASES)
    known = () if overwrite else cases
    resumed = _right(known, dataset, options, started)
    kept = _right([it for it in known if it.case not in resumed], dataset, options, folder)
    gone = _records_of_others(folder, set(kept), {it.case for it in cases}, folds)
    if overwrite:
        for it in cases:
            _record_file(started, it.case).unlink(missing_ok=True)
    made = [path for path in (folder, started, started / CASES) if not path.exists()]
    work = partial(_measure, dataset=dataset, options=options, folder=started)
    one_thread = partial(torch.set_num_threads, 1)
    missing = [it for it in cases if it.case not in resumed and it.case not in kept]
    try:
        each(work, missing, processes=processes, title="Evaluating", initializer=one_thread)
    except BaseException:
        _remove_empty(made)
        raise
    (folder / CASES).mkdir(parents=True, exist_ok=True)
    for it in cases:
        if it.case in kept:
            _record_file(started, it.case).unlink(missing_ok=True)
        else:
            _record_file(started, it.case).replace(_record_file(folder, it.case))
    if folds:
        _remove_empty([started, started / CASES])
    else:
        shutil.rmtree(started, ignore_errors=True)
    for path in gone:
        path.unlink(missing_ok=True)
    held = resumed | kept
    records = [held.get(it.case) or read_record(_record_file(folder, it.case)) for it in cases]
    return sorted(records, key=lambda it: (it.fold, it.case))


def _right(
    cases: Sequence[Prediction], dataset: RawDataset, options: Options, folder: Path
) -> dict[str, CaseRecord]:
    """The records in a folder that are still right, by case."""
    found = {}
    for it in cases:
        path = _record_file(folder, it.case)
        if not path.is_file():
            continue
        with suppress(InputError):  # a damaged record is made anew; a wrong case is named when it is measured
            record = read_record(path)
            if record.fold == it.fold and record.stamp == stamp(it, dataset, options):
                found[it.case] = record
    return found


def _records_of_others(folder: Path, whole: set[str], names: set[str], folds: Collection[str]) -> list[Path]:
    """The records of cases that are not measured now.

    Args:
        folder: Of the evaluation.
        whole: Cases whose records were read.
        names: All cases.
        folds: Those that were chosen; none where all are evaluated.

    Raises:
        InputError: There are other files among them, or records of other folds than those that were chosen. A damaged
            record of an evaluation's own case is not meant.
    """
    problems: list[str] = []
    gone: dict[Path, str] = {}
    for path in sorted((folder / CASES).glob("*.json")):
        if path.stem in whole:
            continue
        try:
            record = read_record(path)
        except InputError:
            if path.stem not in names or not (folder / SUMMARY).is_file():
                todo = "Remove it or give another -o."
                expected, found = "the record of a case", "something else"
                problems.append(problem(path, expected=expected, found=found, todo=todo))
        else:
            if path.stem not in names:
                gone[path] = record.fold
    if folds and (others := [fold for fold in gone.values() if fold not in folds]):
        expected = f"records of fold {', '.join(sorted(folds, key=int))} only"
        their = sorted({f"fold {it}" if it else "no fold" for it in others})
        found = f"{len(others)} of {', '.join(their)}, which would be lost"
        todo = "Give another -o, or remove the folder."
        problems.append(problem(folder / CASES, expected=expected, found=found, todo=todo))
    if problems:
        raise InputError(*problems)
    return list(gone)


def _record_file(folder: Path, case: str) -> Path:
    return folder / CASES / f"{case}.json"


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove those that are there and empty, the last one first."""
    for path in reversed(folders):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _measure(prediction: Prediction, dataset: RawDataset, options: Options, folder: Path) -> None:
    write_record(folder, evaluate_case(prediction, dataset, options))
