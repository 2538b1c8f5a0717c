"""Dice of masks, and Dice over thresholds (BDice) of probabilities against soft labels.

Functions of one case take `(C, *spatial)` or `(*spatial)` and check the values. Functions named `…_counts`
take batches `(B, C, *spatial)`, check only shapes, stay on the device, and return whole numbers that may be
added up over patches, batches and ranks before `…_from_counts` finishes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml._checks import check_same_shape
from nnunet_dml.metrics._arrays import (
    Array,
    as_tensor,
    check_distribution,
    check_shapes,
)
from nnunet_dml.metrics._voxels import pieces
from nnunet_dml.metrics.empty_cases import overlap_ratio
from nnunet_dml.metrics.sets import dice_from_counts, label_maps, overlap_counts

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""QUBIQ's levels."""

THRESHOLD_TOLERANCE = 1e-6
"""How far below a threshold a value may lie and still reach it: the rounding of a float32 mean of masks, and
far less than the step of any fraction of raters. So 3 of 10 raters reach 0.3, however 3/10 was summed."""


def dice(prediction: Array, reference: Array, *, mask: Array | None = None) -> float:
    r"""Dice of two masks of one class.

    .. math:: D = 2 |P \cap R| / (|P| + |R|)

    Args:
        prediction: `(*spatial)`, boolean, or integers 0 and 1.
        reference: The same.
        mask: `(*spatial)`, boolean: the voxels that count (without nnU-Net's ignore label). All by default.

    Returns:
        A value in [0, 1], higher is better. If both masks are empty: `empty_cases.BOTH_EMPTY`.

    Raises:
        TypeError: If an argument is not of integers or booleans.
        ValueError: If shapes differ or there are values besides 0 and 1; for label maps see `dice_per_class`.

    >>> dice(np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0]))  # 2 · 1 / (2 + 1)
    0.6666666666666666
    """
    tensors = label_maps(prediction, reference)
    for name, tensor in zip(("prediction", "reference"), tensors, strict=True):
        if tensor.dtype != torch.bool and bool(((tensor != 0) & (tensor != 1)).any()):
            raise ValueError(f"Expected `{name}` to hold 0 and 1 only. For label maps call `dice_per_class`.")
    return float(dice_per_class(*tensors, num_classes=2, mask=mask)[0])


def dice_per_class(
    prediction: Array, reference: Array, *, num_classes: int, mask: Array | None = None
) -> npt.NDArray[np.float64]:
    """Dice of two label maps, for each foreground class.

    Args:
        prediction: `(*spatial)`, integers below `num_classes`.
        reference: The same.
        num_classes: How many classes there are, background included.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        `(num_classes − 1,)`, each in [0, 1]; a class in neither map has `empty_cases.BOTH_EMPTY`.

    Raises:
        TypeError: If an argument is not of integers or booleans.
        ValueError: If shapes differ or a counted label is outside 0 … `num_classes` − 1.

    >>> dice_per_class(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), num_classes=4).round(3).tolist()
    [0.667, 0.667, 1.0]
    """
    counts = overlap_counts(prediction, reference, num_classes=num_classes, mask=mask)
    values: npt.NDArray[np.float64] = dice_from_counts(counts)[1:].cpu().numpy()
    return values


def bdice(
    probs: Array,
    soft_reference: Array,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    mask: Array | None = None,
) -> npt.NDArray[np.float64]:
    r"""Binarised Dice of one case: both sides cut at each threshold, then the mean of the Dice values.

    .. math:: \frac 1 {|T|} \sum_{t \in T} D(p \ge t, y \ge t)

    A value reaches a threshold from `THRESHOLD_TOLERANCE` below it on, on both sides alike, so that a
    fraction of raters that *is* a threshold is decided the same way however it was rounded. (At 0.5 an even
    split counts as foreground here, while a strict majority vote leaves it to the background.)

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        soft_reference: The same shape: usually the mean of the raters' masks.
        thresholds: Levels in (0, 1].
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        `(C − 1,)`, a value in [0, 1] for each foreground class. At a threshold that nothing reaches on either
        side the Dice is `empty_cases.BOTH_EMPTY`.

    Raises:
        TypeError: If an argument is not floating.
        ValueError: If shapes differ, or values are outside [0, 1], NaN, or do not sum to one.

    References:
        QUBIQ challenge, https://qubiq21.grand-challenge.org; Wang et al., Dice Semimetric Losses (MICCAI
        2023), §3.3.

    >>> p, y = np.array([0.95, 0.45, 0.0]), np.array([1.0, 0.6, 0.2])
    >>> bdice(np.stack([1 - p, p]), np.stack([1 - y, y]), thresholds=(0.2, 0.5)).round(4)  # (4/5 + 2/3) / 2
    array([0.7333])
    """
    p, y = as_tensor(probs, "probs"), as_tensor(soft_reference, "soft_reference")
    check_shapes(p, leading="C")
    check_same_shape(
        "soft_reference", y.shape, "probs", p.shape, hint="For hard labels make a one-hot map first."
    )
    check_distribution(p, "probs")
    check_distribution(y, "soft_reference")
    keep = None if mask is None else as_tensor(mask, "mask")[None]
    counts = bdice_counts(p[None], y[None], thresholds=thresholds, mask=keep)
    values: npt.NDArray[np.float64] = bdice_from_counts(counts).cpu().numpy()
    return values


def bdice_counts(
    probs: Array,
    soft_reference: Array,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    mask: Array | None = None,
) -> torch.Tensor:
    """The sizes from which BDice is finished, summed over a batch.

    Args:
        probs: `(B, C, *spatial)`, in [0, 1], background first. Values are not checked.
        soft_reference: The same shape.
        thresholds: Levels in (0, 1].
        mask: `(B, *spatial)`, boolean: the voxels that count. All by default.

    Returns:
        int64 `(3, T, C − 1)` on the device of `probs`: intersection, size of the prediction, of the
        reference.

    Raises:
        TypeError: If an argument is not floating.
        ValueError: If shapes differ or a threshold is outside (0, 1].
    """
    p, y = as_tensor(probs, "probs"), as_tensor(soft_reference, "soft_reference")
    check_shapes(p, leading="BC")
    check_same_shape(
        "soft_reference", y.shape, "probs", p.shape, hint="For hard labels make a one-hot map first."
    )
    if not y.dtype.is_floating_point:
        raise TypeError(
            f"Expected `soft_reference` to hold fractions, got dtype {y.dtype}. Convert one-hot to float."
        )
    check_thresholds(thresholds)
    counts = torch.zeros(3, len(thresholds), p.shape[1] - 1, dtype=torch.int64, device=p.device)
    # each side's levels in its own precision, so that a fraction rounded to half precision reaches its level, too
    steps = torch.tensor(thresholds, dtype=torch.float64) - THRESHOLD_TOLERANCE
    levels = list(zip(steps.to(p.dtype).tolist(), steps.to(y.dtype).tolist(), strict=True))
    for piece in pieces(p, y, mask):
        whole = (
            torch.int32 if piece.probs.shape[1] < 2**31 else torch.int64
        )  # the former is four times faster
        for i, (level, wanted_level) in enumerate(levels):
            above, wanted = piece.probs[1:] >= level, piece.reference[1:] >= wanted_level
            if piece.keep is not None:
                above, wanted = above & piece.keep, wanted & piece.keep
            for row, sets in enumerate((above & wanted, above, wanted)):
                counts[row, i] += sets.sum(1, dtype=whole)
    return counts


def bdice_from_counts(counts: torch.Tensor) -> torch.Tensor:
    """BDice from `bdice_counts` of one case, or from the sum over many patches or batches.

    Args:
        counts: `(3, T, C − 1)`.

    Returns:
        float64 `(C − 1,)` in [0, 1].
    """
    return overlap_ratio(2 * counts[0], counts[1] + counts[2]).mean(0)


def check_thresholds(thresholds: Sequence[float]) -> None:
    """Raise `ValueError` unless there are thresholds and all are in (0, 1]."""
    if not len(thresholds) or not all(0 < t <= 1 for t in thresholds):
        raise ValueError(f"Expected argument `thresholds` to be levels in (0, 1], got {list(thresholds)}.")


def thresholds_both_empty(counts: torch.Tensor) -> torch.Tensor:
    """At how many thresholds nothing was reached on either side, so that the policy on empty masks decided.

    Args:
        counts: `(3, T, C − 1)` of `bdice_counts`.

    Returns:
        int64 `(C − 1,)`, from 0 to T.
    """
    return (counts[1] + counts[2] == 0).sum(0)
