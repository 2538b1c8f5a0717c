"""Calibration errors of bins of equal width: of the top label (ECE, MCE) and of each class (SCE).

`reliability_counts` and `classwise_counts` take batches, check only shapes, stay on the device, and return sums
that may be added up over blocks, patches, batches, cases and ranks; `ece_from_counts` and `mce_from_counts`
finish them. Over all voxels of many cases that is the pooled error.

Every one of them takes a mask. On the boundary (`labels.boundary_voxels`) they are BECE and BSCE of Wang et al.,
Jaccard Metric Losses (NeurIPS 2023), near the foreground (`metrics.near_foreground`) the foreground's ECE: over
all voxels the background hides most of a segmentation's errors.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml.metrics._arrays import Array
from nnunet_dml.metrics._bins import binned_sums, check_bins, equal_width
from nnunet_dml.metrics._voxels import no_sums, one_case, pieces

BINS = 10


def expected_calibration_error(
    probs: Array, reference: Array, *, bins: int = BINS, mask: Array | None = None
) -> float:
    r"""Expected calibration error of one case: top label, background included.

    .. math:: \sum_b \frac{n_b}{N} \left| \mathrm{acc}_b - \mathrm{conf}_b \right|

    The confidence of a voxel is its largest probability, its predicted class the one that has it (on ties the
    lowest). Bins are [k/n, (k+1)/n), with 1 in the last.

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        reference: Either integer labels `(*spatial)`: a voxel is right or wrong. Or soft labels `(C,
            *spatial)`, floating: a voxel is right to the share of its predicted class.
        bins: How many bins of equal width.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        A value in [0, 1], lower is better; NaN if no voxel counts. 0 means that in every bin the mean confidence
        is the share of right voxels, or against soft labels the mean share of raters who agree with the predicted
        class; so `probs` equal to the soft labels have 0, and so has much else.

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ, values are outside [0, 1], NaN or do not sum to one, or labels are not
            classes.

    References:
        Guo et al., On Calibration of Modern Neural Networks (ICML 2017), Eq. 5.

    >>> foreground = torch.tensor([0.25, 0.75, 1.0])  # wrong with 0.75, right with 0.75, right with 1
    >>> probs = torch.stack([1 - foreground, foreground])
    >>> round(expected_calibration_error(probs, torch.tensor([1, 1, 1])), 4)  # 2/3 · |0.5 − 0.75|
    0.1667
    """
    p, y, keep = one_case(probs, reference, mask)
    return float(ece_from_counts(reliability_counts(p, y, bins=bins, mask=keep)))


def maximum_calibration_error(
    probs: Array, reference: Array, *, bins: int = BINS, mask: Array | None = None
) -> float:
    r"""Maximum calibration error of one case: the worst bin of the top label, however few voxels it has.

    .. math:: \max_b \left| \mathrm{acc}_b - \mathrm{conf}_b \right|

    Arguments, errors and the meaning of 0 are those of `expected_calibration_error`.

    Returns:
        A value in [0, 1], at least the ECE; NaN if no voxel counts.

    References:
        Guo et al., On Calibration of Modern Neural Networks (ICML 2017), Eq. 5.

    >>> foreground = torch.tensor([0.25, 0.75, 1.0])
    >>> maximum_calibration_error(torch.stack([1 - foreground, foreground]), torch.tensor([1, 1, 1]))
    0.25
    """
    p, y, keep = one_case(probs, reference, mask)
    return float(mce_from_counts(reliability_counts(p, y, bins=bins, mask=keep)))


def classwise_calibration_error(
    probs: Array, reference: Array, *, bins: int = BINS, mask: Array | None = None
) -> npt.NDArray[np.float64]:
    r"""The calibration error of each class's probability (marginal, or class-wise ECE) in one case.

    .. math:: \mathrm{CE}_c = \sum_b \frac{n_{bc}}{N} \left| \overline{y}_{bc} - \overline{p}_{bc} \right|

    A voxel is in the bin of `p_c`, whatever its predicted class. For regions give `complements` one by one: the
    value under 1 is the region's.

    Args:
        probs: As in `expected_calibration_error`.
        reference: As there.
        bins: How many bins of equal width.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        `(C,)`, background first, each in [0, 1], lower is better; NaN if no voxel counts. 0 means that in every
        bin the mean probability is the share of the class, hard or soft.

    Raises:
        TypeError: As `expected_calibration_error`.
        ValueError: As `expected_calibration_error`.

    References:
        Kull et al., Beyond temperature scaling (NeurIPS 2019), Eq. 4; with more than one class, its mean is SCE.

    >>> p = torch.tensor([0.25, 0.75, 1.0])
    >>> classwise_calibration_error(torch.stack([1 - p, p]), torch.tensor([1, 1, 1])).round(4)  # (0.75 + 0.25) / 3
    array([0.3333, 0.3333])
    """
    p, y, keep = one_case(probs, reference, mask)
    values: npt.NDArray[np.float64] = (
        ece_from_counts(classwise_counts(p, y, bins=bins, mask=keep)).cpu().numpy()
    )
    return values


def static_calibration_error(
    probs: Array, reference: Array, *, bins: int = BINS, mask: Array | None = None
) -> float:
    """Static calibration error (SCE) of one case: the mean of `classwise_calibration_error`, background included.

    Arguments and errors are those of `classwise_calibration_error`.

    Returns:
        A value in [0, 1], lower is better; NaN if no voxel counts.

    References:
        Nixon et al., Measuring Calibration in Deep Learning (CVPR workshops 2019), Eq. 3. On the boundary it is
        the BSCE of Wang et al., Jaccard Metric Losses (NeurIPS 2023), Table 15.
    """
    return float(classwise_calibration_error(probs, reference, bins=bins, mask=mask).mean())


def reliability_counts(
    probs: Array, reference: Array, *, bins: int = BINS, mask: Array | None = None
) -> torch.Tensor:
    """The sums from which the reliability diagram, ECE and MCE are finished.

    Args:
        probs: `(B, C, *spatial)`, in [0, 1], background first. Values are not checked.
        reference: Integer labels `(B, *spatial)`, or soft labels `(B, C, *spatial)`, floating.
        bins: How many bins of equal width.
        mask: `(B, *spatial)`, boolean: the voxels that count. All by default.

    Returns:
        float64 `(3, bins)` on the device of `probs`: number of voxels, sum of their confidences, sum of their
        accuracies.

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ or there is no bin.
    """
    check_bins(bins)
    total = no_sums(probs, 3, bins)
    for piece in pieces(probs, reference, mask):
        confidence, accuracy = piece.top()
        place = equal_width(confidence, bins)
        total += binned_sums(place, confidence, accuracy, bins=bins, keep=piece.keep)
    return total


def classwise_counts(
    probs: Array, reference: Array, *, bins: int = BINS, mask: Array | None = None
) -> torch.Tensor:
    """The sums from which each class's reliability diagram and calibration error are finished.

    Args:
        probs: As in `reliability_counts`.
        reference: As there.
        bins: How many bins of equal width.
        mask: `(B, *spatial)`, boolean: the voxels that count. All by default.

    Returns:
        float64 `(C, 3, bins)` on the device of `probs`: number of voxels, sum of their probabilities of the
        class, sum of their shares of it.

    Raises:
        TypeError: As `reliability_counts`.
        ValueError: As `reliability_counts`.
    """
    check_bins(bins)
    voxels = pieces(probs, reference, mask)
    total = no_sums(probs, probs.shape[1], 3, bins)
    for piece in voxels:
        for c, values in enumerate(piece.probs):
            place = equal_width(values, bins)
            total[c] += binned_sums(place, values, piece.truth(c), bins=bins, keep=piece.keep)
    return total


def ece_from_counts(counts: torch.Tensor) -> torch.Tensor:
    """ECE from `reliability_counts` or `classwise_counts` of one case, or from the sum over many.

    Args:
        counts: `(…, 3, bins)`.

    Returns:
        float64 `(…)` in [0, 1]; NaN if no voxel was counted.
    """
    number, confidence, accuracy = counts.unbind(-2)
    gap: torch.Tensor = (accuracy - confidence).abs().sum(-1)
    error: torch.Tensor = gap / number.sum(-1)
    return error


def mce_from_counts(counts: torch.Tensor) -> torch.Tensor:
    """MCE from `reliability_counts` or `classwise_counts` of one case, or from the sum over many.

    Args:
        counts: `(…, 3, bins)`.

    Returns:
        float64 `(…)` in [0, 1]; NaN if no voxel was counted.
    """
    number, confidence, accuracy = counts.unbind(-2)
    gaps = torch.where(number > 0, ((accuracy - confidence) / number).abs(), -1)
    return torch.where(number.sum(-1) > 0, gaps.amax(-1), torch.nan)
