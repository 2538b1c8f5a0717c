"""Evaluate many cases in several processes."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import torch
from tqdm import tqdm

from nnunet_dml._checks import InputError
from nnunet_dml.evaluation.cases import CaseRecord, evaluate_case
from nnunet_dml.evaluation.dataset import RawDataset
from nnunet_dml.evaluation.predictions import Prediction
from nnunet_dml.metrics.calibration import BINS


def evaluate(
    cases: Sequence[Prediction], dataset: RawDataset, *, bins: int = BINS, processes: int = 1
) -> list[CaseRecord]:
    """Measure all cases.

    Args:
        cases: What `predictions.of_model` or `of_folder` found.
        dataset: The raw dataset with the references.
        bins: Bins of the calibration error.
        processes: How many cases are measured at once. 1 uses no other process.

    Returns:
        The records in the order of `cases`.

    Raises:
        InputError: With every problem of every case.
    """
    work = partial(_try_case, dataset=dataset, bins=bins)
    results = (
        _in_processes(work, cases, processes)
        if processes > 1 and len(cases) > 1
        else enumerate(map(work, cases))
    )
    found: dict[int, CaseRecord] = {}
    problems: dict[int, tuple[str, ...]] = {}
    bar = tqdm(results, total=len(cases), desc="Evaluating", unit="case", disable=None, file=sys.stderr)
    for i, result in bar:
        if isinstance(result, CaseRecord):
            found[i] = result
        else:
            problems[i] = result
    if problems:
        raise InputError(*(line for i in sorted(problems) for line in problems[i]))
    return [found[i] for i in range(len(cases))]


def _try_case(case: Prediction, *, dataset: RawDataset, bins: int) -> CaseRecord | tuple[str, ...]:
    try:
        return evaluate_case(case, dataset, bins=bins)
    except InputError as error:
        return error.problems


def _in_processes(
    work: partial[CaseRecord | tuple[str, ...]], cases: Sequence[Prediction], processes: int
) -> Iterator[tuple[int, CaseRecord | tuple[str, ...]]]:
    # Not forked: PyTorch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    workers = min(processes, len(cases))
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = {pool.submit(work, case): i for i, case in enumerate(cases)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise InputError(
                f"-np {processes}: a worker process was killed, most likely for lack of memory. Try -np 1."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
