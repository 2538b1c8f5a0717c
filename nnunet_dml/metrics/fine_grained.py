"""One figure from the counts of many cases: per dataset (D), per image (I), per class (C)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml._checks import check_one_of
from nnunet_dml.metrics._arrays import Array, as_tensor
from nnunet_dml.metrics.empty_cases import mean_of_defined
from nnunet_dml.metrics.sets import dice_from_counts, iou_from_counts

METRICS = ("dice", "iou")
EMPTY = ("policy", "both_left_out", "reference_left_out")


@dataclass(frozen=True)
class FineGrained:
    """Dice or IoU of N cases and C classes. Values are in [0, 1]; NaN where nothing was defined."""

    per_dataset: float
    """D: of each class over all voxels of all cases; the mean over the classes."""
    per_image: float
    """I: of each case the mean over its classes; the mean over the cases."""
    per_class: float
    """C: of each class the mean over its cases; the mean over the classes."""
    dataset_of_class: npt.NDArray[np.float64]
    """`(C,)`: what D is the mean of."""
    image_of_case: npt.NDArray[np.float64]
    """`(N,)`: what I is the mean of."""
    mean_of_class: npt.NDArray[np.float64]
    """`(C,)`: what C is the mean of."""
    both_empty: npt.NDArray[np.int64]
    """`(C,)`: in how many cases neither side has the class, so that a policy decided."""
    reference_empty: npt.NDArray[np.int64]
    """`(C,)`: in how many the reference has not."""
    prediction_empty: npt.NDArray[np.int64]
    """`(C,)`: in how many the prediction has not."""
    left_out: npt.NDArray[np.int64]
    """`(C,)`: how many cases were left out of I and C."""


def fine_grained(
    counts: Array,
    *,
    metric: Literal["dice", "iou"] = "iou",
    empty: Literal["policy", "both_left_out", "reference_left_out"] = "policy",
) -> FineGrained:
    r"""Dice or IoU per dataset, per image and per class, from each case's counts.

    With the metric :math:`m_{ic}` of case i and class c, and :math:`m_c` of the sums over all cases,

    .. math:: D = \mathrm{mean}_c\, m_c,\quad I = \mathrm{mean}_i\, \mathrm{mean}_c\, m_{ic},\quad
        C = \mathrm{mean}_c\, \mathrm{mean}_i\, m_{ic}

    D weighs cases and objects by their size. I and C weigh cases alike; they differ where values are left out: then
    I favours the classes of cases with few classes, C weighs classes alike.

    Args:
        counts: `(N, 3, C)`: of each case `overlap_counts`, `mask_overlap_counts` or `soft_overlap_counts`, with or
            without the background's column.
        metric: `"dice"` or `"iou"`.
        empty: What a class means that is not in a case. `"policy"`: 0/0 is `empty_cases.BOTH_EMPTY`; nothing is left
            out. `"both_left_out"`: 0/0 is left out, as in nnU-Net's own summary; false positives where the
            reference is empty count as 0. `"reference_left_out"`: only classes count that the reference has,
            so that false positives elsewhere cost nothing.

    Returns:
        The three means, what they are means of, and how many cases were empty.

    Raises:
        ValueError: If `counts` has another shape, or an option is unknown.

    References:
        Wang et al., Revisiting Evaluation Metrics for Semantic Segmentation (NeurIPS 2023), section 3, for IoU. Its
        scores leave undefined values out.

    >>> one, two = [[8, 1], [8, 2], [8, 3]], [[9, 0], [9, 0], [10, 0]]  # IoU 1 and 1/4; 0.9 and undefined
    >>> found = fine_grained(np.array([one, two]), empty="both_left_out")
    >>> round(found.per_dataset, 4), round(found.per_image, 4), round(found.per_class, 4)
    (0.5972, 0.7625, 0.6)
    >>> found.both_empty.tolist()
    [0, 1]
    """
    check_one_of("metric", metric, METRICS)
    check_one_of("empty", empty, EMPTY)
    sums = as_tensor(counts, "counts")
    if sums.ndim != 3 or sums.shape[1] != 3:
        raise ValueError(f"Expected `counts` of shape (cases, 3, classes), got {tuple(sums.shape)}.")
    finish = dice_from_counts if metric == "dice" else iou_from_counts
    each = _defined(finish(sums), sums, empty)
    total = sums.sum(0)
    dataset = _defined(finish(total), total, empty)
    by_case, by_class = each.nanmean(1), each.nanmean(0)
    nobody, unwanted = sums[:, 1] == 0, sums[:, 2] == 0
    return FineGrained(
        per_dataset=float(mean_of_defined(dataset)),
        per_image=float(mean_of_defined(by_case)),
        per_class=float(mean_of_defined(by_class)),
        dataset_of_class=dataset.cpu().numpy(),
        image_of_case=by_case.cpu().numpy(),
        mean_of_class=by_class.cpu().numpy(),
        both_empty=(nobody & unwanted).sum(0).cpu().numpy(),
        reference_empty=unwanted.sum(0).cpu().numpy(),
        prediction_empty=nobody.sum(0).cpu().numpy(),
        left_out=each.isnan().sum(0).cpu().numpy(),
    )


def _defined(values: torch.Tensor, counts: torch.Tensor, empty: str) -> torch.Tensor:
    """The values, NaN where the option leaves them out."""
    if empty == "policy":
        return values
    predicted, wanted = counts.unbind(-2)[1:]
    out = wanted == 0
    if empty == "both_left_out":
        out = out & (predicted == 0)
    return values.masked_fill(out, torch.nan)
