"""Evaluate many cases in several processes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from nnunet_dml._parallel import each
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
    work = partial(evaluate_case, dataset=dataset, bins=bins)
    one_thread = partial(torch.set_num_threads, 1)
    return each(work, cases, processes=processes, title="Evaluating", initializer=one_thread)
