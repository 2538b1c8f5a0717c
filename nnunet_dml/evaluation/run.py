"""Evaluate many cases in several processes, each of them once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
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
    processes: int = 1,
    overwrite: bool = False,
) -> list[CaseRecord]:
    """Measure the cases that have no record of the same stamp, and put all records into `folder/cases`.

    Args:
        cases: What `predictions.of_model` or `of_folder` found.
        dataset: The raw dataset with the references.
        options: What is measured.
        folder: Of the evaluation; made if there is none. Records of other cases are removed from it.
        processes: How many cases are measured at once, each in memory by itself. 1 uses no other process.
        overwrite: Whether cases are measured again although nothing has changed.

    Returns:
        The records, by fold and case.

    Raises:
        InputError: With every problem of every case. Whole records of the others are kept in `folder/unfinished`.
            Before anything is measured: cases without a reference, files in `folder/cases` that are no records.
    """
    check_references(cases, dataset)
    started = folder / UNFINISHED
    if overwrite:
        shutil.rmtree(started, ignore_errors=True)
    for place in (folder, started):
        clear_leftovers(place / CASES)
    held = {it.case: _held(it, dataset, options, () if overwrite else (started, folder)) for it in cases}
    gone = _records_of_others(
        folder, {name for name, record in held.items() if record is not None}, set(held)
    )
    made = [path for path in (folder, started, started / CASES) if not path.exists()]
    work = partial(_measure, dataset=dataset, options=options, folder=started)
    one_thread = partial(torch.set_num_threads, 1)
    missing = [it for it in cases if held[it.case] is None]
    try:
        each(work, missing, processes=processes, title="Evaluating", initializer=one_thread)
    except BaseException:
        for path in reversed(made):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise
    (folder / CASES).mkdir(parents=True, exist_ok=True)
    for path in sorted((started / CASES).glob("*.json")) if started.is_dir() else ():
        path.replace(folder / CASES / path.name)
    shutil.rmtree(started, ignore_errors=True)
    for path in gone:
        path.unlink(missing_ok=True)
    records = [held[it.case] or read_record(folder / CASES / f"{it.case}.json") for it in cases]
    return sorted(records, key=lambda it: (it.fold, it.case))


def _held(
    prediction: Prediction, dataset: RawDataset, options: Options, folders: Sequence[Path]
) -> CaseRecord | None:
    """The case's record where it is still right."""
    for folder in folders:
        path = folder / CASES / f"{prediction.case}.json"
        if not path.is_file():
            continue
        try:
            record = read_record(path)
            if record.fold == prediction.fold and record.stamp == stamp(prediction, dataset, options):
                return record
        except InputError:  # a damaged record is made anew; a wrong case is named when it is measured
            continue
    return None


def _records_of_others(folder: Path, whole: set[str], names: set[str]) -> list[Path]:
    """The records of cases that are not measured now.

    Args:
        folder: Of the evaluation.
        whole: Cases whose records were read.
        names: All cases.

    Raises:
        InputError: There are other files among them. A damaged record of an evaluation's own case is not meant.
    """
    problems: list[str] = []
    gone: list[Path] = []
    for path in sorted((folder / CASES).glob("*.json")):
        if path.stem in whole:
            continue
        try:
            read_record(path)
        except InputError:
            if path.stem not in names or not (folder / SUMMARY).is_file():
                todo = "Remove it or give another -o."
                expected, found = "the record of a case", "something else"
                problems.append(problem(path, expected=expected, found=found, todo=todo))
        else:
            gone += [] if path.stem in names else [path]
    if problems:
        raise InputError(*problems)
    return gone


def _measure(prediction: Prediction, dataset: RawDataset, options: Options, folder: Path) -> None:
    write_record(folder, evaluate_case(prediction, dataset, options))
