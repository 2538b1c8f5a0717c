"""Calibration errors of bins with equally many voxels (adaptive bins), without sorting or keeping the voxels.

Segmentations are sure almost everywhere: of ten bins of equal width the last one holds nearly all voxels. Here every
bin holds a tenth of them. Where its borders are is known only when all voxels were seen, so these are counted into
some thousand fine bins, whose sums may be added up as all others; the borders cut fine bins in proportion.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml.metrics._arrays import Array
from nnunet_dml.metrics._bins import FINE_BINS, binned_sums, check_bins, fine, fine_widths
from nnunet_dml.metrics._voxels import no_sums, one_case, pieces
from nnunet_dml.metrics.calibration import BINS


def adaptive_calibration_error(
    probs: Array, reference: Array, *, bins: int = BINS, mask: Array | None = None
) -> float:
    r"""Calibration error of one case, top label, in bins of equally many voxels.

    With the voxels sorted by confidence and cut into B parts of N / B voxels,

    .. math:: \frac 1 B \sum_b \left| \mathrm{acc}_b - \mathrm{conf}_b \right|

    Voxels of one confidence are indistinguishable: where a border falls among them, each side takes its part of
    their sums. So is done with voxels of one fine bin, too; `adaptive_error_bound_from_counts` says how far the
    value may be from that of sorted voxels.

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        reference: Integer labels `(*spatial)`, or soft labels `(C, *spatial)`, floating.
        bins: B.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        A value in [0, 1], lower is better; NaN if no voxel counts. What 0 means: see
        `expected_calibration_error`.

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ, values are outside [0, 1], NaN or do not sum to one, or labels are not
            classes.

    References:
        Nguyen and O'Connor, Posterior calibration and exploratory analysis for natural language processing models
        (EMNLP 2015); Nixon et al., Measuring Calibration in Deep Learning (CVPR workshops 2019), Eq. 4, for each
        class: `adaptive_classwise_counts`.

    >>> foreground = torch.tensor([0.6, 0.7, 0.9, 1.0])
    >>> probs = torch.stack([1 - foreground, foreground])
    >>> labels = torch.tensor([0, 1, 1, 1])  # |1 − 1.3| / 4 + |2 − 1.9| / 4
    >>> round(adaptive_calibration_error(probs, labels, bins=2), 4)
    0.1
    """
    p, y, keep = one_case(probs, reference, mask)
    return float(adaptive_error_from_counts(adaptive_counts(p, y, mask=keep), bins=bins))


def adaptive_counts(probs: Array, reference: Array, *, mask: Array | None = None) -> torch.Tensor:
    """The sums from which the adaptive error of the top label is finished, for any number of bins.

    Args:
        probs: `(B, C, *spatial)`, in [0, 1], background first. Values are not checked.
        reference: Integer labels `(B, *spatial)`, or soft labels `(B, C, *spatial)`, floating.
        mask: `(B, *spatial)`, boolean: the voxels that count. All by default.

    Returns:
        float64 `(3, fine bins)` on the device of `probs`: number of voxels, sum of their confidences, sum of
        their accuracies. A fine bin is at most 1/64 as wide as it is far from 0 or 1.

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ.
    """
    total = no_sums(probs, 3, FINE_BINS)
    for piece in pieces(probs, reference, mask):
        confidence, accuracy = piece.top()
        total += binned_sums(fine(confidence), confidence, accuracy, bins=FINE_BINS, keep=piece.keep)
    return total


def adaptive_classwise_counts(probs: Array, reference: Array, *, mask: Array | None = None) -> torch.Tensor:
    """The same sums of each class's probability; the mean of the classes' errors is ACE.

    Returns:
        float64 `(C, 3, fine bins)`, background first; see `adaptive_counts`.
    """
    voxels = pieces(probs, reference, mask)
    total = no_sums(probs, probs.shape[1], 3, FINE_BINS)
    for piece in voxels:
        for c, values in enumerate(piece.probs):
            total[c] += binned_sums(fine(values), values, piece.truth(c), bins=FINE_BINS, keep=piece.keep)
    return total


def adaptive_error_from_counts(counts: torch.Tensor, *, bins: int = BINS) -> torch.Tensor:
    """The adaptive calibration error from the counts of one case, or from the sum over many.

    Args:
        counts: `(…, 3, fine bins)`.
        bins: How many bins of equally many voxels.

    Returns:
        float64 `(…)` in [0, 1]; NaN if no voxel was counted.
    """
    check_bins(bins)
    rows = counts.detach().cpu().numpy().reshape(-1, 3, counts.shape[-1])
    values = [_error(row, bins) for row in rows]
    return torch.tensor(values, dtype=torch.float64, device=counts.device).reshape(counts.shape[:-2])


def adaptive_error_bound_from_counts(counts: torch.Tensor, *, bins: int = BINS) -> torch.Tensor:
    r"""How far `adaptive_error_from_counts` may be from the value of sorted voxels, whatever their order.

    Only fine bins that a border cuts matter. Of one with n voxels of width w, of which a are right, the parts can
    differ from their proportional shares by no more than

    .. math:: 2 a (n - a) / n + n w / 2

    in all, so the sum over the cut ones, divided by N, bounds the error. That is for the worst order there could be:
    of a trained network's 131 072 pixels the values agreed to 0.1 % where the bound was 9 %. Voxels of exactly equal
    confidence enlarge the bound, but not the error.

    Args:
        counts: `(…, 3, fine bins)`.
        bins: As for the value.

    Returns:
        float64 `(…)`, at least 0; NaN if no voxel was counted.
    """
    check_bins(bins)
    rows = counts.detach().cpu().numpy().reshape(-1, 3, counts.shape[-1])
    values = [_bound(row, bins) for row in rows]
    return torch.tensor(values, dtype=torch.float64, device=counts.device).reshape(counts.shape[:-2])


def _error(counts: npt.NDArray[np.float64], bins: int) -> float:
    number, confidence, accuracy = counts[:, counts[0] > 0]
    if not len(number):
        return float("nan")
    seen = np.concatenate([[0.0], np.cumsum(number)])
    gap = np.concatenate([[0.0], np.cumsum(accuracy - confidence)])
    borders = seen[-1] * np.arange(bins + 1) / bins
    return float(np.abs(np.diff(np.interp(borders, seen, gap))).sum() / seen[-1])


def _bound(counts: npt.NDArray[np.float64], bins: int) -> float:
    width = fine_widths().numpy()[counts[0] > 0]
    number, _, accuracy = counts[:, counts[0] > 0]
    if not len(number):
        return float("nan")
    seen = np.concatenate([[0.0], np.cumsum(number)])
    borders = seen[-1] * np.arange(1, bins) / bins
    place = np.searchsorted(seen, borders, side="left") - 1
    cut = np.unique(place[seen[place + 1] != borders])  # a border between two bins cuts neither
    n, a = number[cut], accuracy[cut]
    return float((2 * a * (n - a) / n + n * width[cut] / 2).sum() / seen[-1])
