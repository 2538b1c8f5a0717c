"""A prediction against several raters: each one's Dice and ECE, and the generalised energy distance to all.

How much the raters agree among themselves is measured in `agreement`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml._checks import check_same_shape
from nnunet_dml.metrics._arrays import (
    Array,
    as_tensor,
    check_distribution,
    check_mask,
    check_shapes,
    is_label_dtype,
)
from nnunet_dml.metrics._voxels import PIECE, one_case
from nnunet_dml.metrics.calibration import BINS, ece_from_counts, reliability_counts
from nnunet_dml.metrics.empty_cases import overlap_ratio
from nnunet_dml.metrics.overlap import check_thresholds
from nnunet_dml.metrics.sets import dice_from_counts, overlap_counts

LEVELS = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
"""The middles of ten steps from 0 to 1."""

PATTERN_MASKS = 16
"""Up to so many masks of a class their patterns are counted."""


def rater_dice(
    prediction: Array, raters: Array, *, num_classes: int, voted: Array | None = None
) -> npt.NDArray[np.float64]:
    """Dice of a label map against each rater, for each foreground class.

    Args:
        prediction: `(*spatial)`, integers below `num_classes`.
        raters: `(R, *spatial)`, the same.
        num_classes: How many classes there are, background included.
        voted: `(R, *spatial)`, boolean: where a rater did not abstain. Everywhere by default.

    Returns:
        `(R, num_classes − 1)`, each in [0, 1]; a class in neither map has `empty_cases.BOTH_EMPTY`. NaN for a rater
        who abstained everywhere.

    Raises:
        TypeError: If maps are not of integers or booleans.
        ValueError: If shapes differ or a counted label is outside 0 … `num_classes` − 1.

    >>> rater_dice(np.array([0, 1, 1]), np.array([[0, 1, 1], [0, 0, 1]]), num_classes=2).round(3).tolist()
    [[1.0], [0.667]]
    """
    rows = []
    for labels, keep in _each(raters, voted):
        values = dice_from_counts(overlap_counts(prediction, labels, num_classes=num_classes, mask=keep))[1:]
        rows.append(values if keep is None or bool(keep.any()) else torch.full_like(values, torch.nan))
    values_of_all: npt.NDArray[np.float64] = torch.stack(rows).cpu().numpy()
    return values_of_all


def rater_ece(
    probs: Array, raters: Array, *, bins: int = BINS, voted: Array | None = None
) -> npt.NDArray[np.float64]:
    """Expected calibration error against each rater's labels. See `expected_calibration_error`.

    Their mean is at least the error against the mean of the raters, if all voted everywhere: no probability map is
    right about each of several raters who disagree.

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        raters: `(R, *spatial)`, integers below C.
        bins: How many bins of equal width.
        voted: `(R, *spatial)`, boolean: where a rater did not abstain. Everywhere by default.

    Returns:
        `(R,)`, each in [0, 1], lower is better; NaN for a rater who abstained everywhere.

    Raises:
        TypeError: If `probs` is not floating or the raters' labels are not integers.
        ValueError: If shapes or values are wrong.

    >>> p = np.array([0.9, 0.8])
    >>> rater_ece(np.stack([1 - p, p]), np.array([[1, 1], [1, 0]])).round(3)
    array([0.15, 0.45])
    """
    values = []
    for labels, keep in _each(raters, voted):
        p, y, counted = one_case(probs, labels, keep)
        values.append(float(ece_from_counts(reliability_counts(p, y, bins=bins, mask=counted))))
    return np.array(values)


def generalised_energy_distance(
    samples: Array, raters: Array, *, mask: Array | None = None
) -> npt.NDArray[np.float64]:
    r"""Squared generalised energy distance between predicted samples and raters, for each class or region.

    .. math:: D^2 = 2\, \mathrm{E}\, d(S, Y) - \mathrm{E}\, d(S, S') - \mathrm{E}\, d(Y, Y'),\quad
        d(A, B) = 1 - \mathrm{IoU}(A, B)

    with S, S' drawn from the samples and Y, Y' from the raters, the pairs of a mask with itself included. As IoU is a
    positive definite kernel, :math:`D^2 \ge 0`.

    A deterministic model predicts one sample, its hard mask (`prediction[None]`): then the raters' diversity cannot be
    matched. Its probability map has more to say: `level_sets` makes samples of it.

    Args:
        samples: `(S, K, *spatial)`, boolean: S predictions of K classes or regions. See `class_masks`.
        raters: `(R, K, *spatial)`, boolean.
        mask: `(*spatial)`, boolean: the voxels that count, such as those where all raters voted. All by default.

    Returns:
        `(K,)`, each in [0, 2], lower is better. 0: the same masks equally often. Two empty masks have distance 0
        (`empty_cases.BOTH_EMPTY`), one empty mask and another have 1.

    Raises:
        TypeError: If a mask is not boolean.
        ValueError: If shapes differ, or there is no sample or no rater.

    References:
        Kohl et al., A Probabilistic U-Net for Segmentation of Ambiguous Images (NeurIPS 2018), Eq. 4.

    >>> raters = np.array([[[True, True]], [[True, False]]])  # IoU 1/2: E d(Y, Y') = 1/4
    >>> generalised_energy_distance(raters[:1], raters), generalised_energy_distance(raters, raters)
    (array([0.25]), array([0.]))
    """
    counts = pair_counts(samples, raters, mask=mask)
    values: npt.NDArray[np.float64] = ged_from_counts(counts, samples=len(samples)).cpu().numpy()
    return values


def pair_counts(samples: Array, raters: Array, *, mask: Array | None = None) -> torch.Tensor:
    """The sizes from which the generalised energy distance is finished; they add up over blocks of one case.

    Args:
        samples: `(S, K, *spatial)`, boolean.
        raters: `(R, K, *spatial)`, boolean.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        float64 `(K, S + R, S + R)`: the size of the intersection of each two masks, samples first; on the diagonal
        their own.

    Raises:
        TypeError: If a mask is not boolean.
        ValueError: If shapes differ, or there is no sample or no rater.
    """
    drawn, votes = as_tensor(samples, "samples"), as_tensor(raters, "raters")
    for name, tensor in (("samples", drawn), ("raters", votes)):
        if tensor.dtype != torch.bool:
            raise TypeError(
                f"Expected `{name}` to hold booleans, a mask per class, got dtype {tensor.dtype}."
            )
        if tensor.ndim < 3 or not len(tensor):
            raise ValueError(
                f"Expected `{name}` of shape (at least 1, classes, *spatial), got {tuple(tensor.shape)}."
            )
    check_same_shape("raters", votes.shape[1:], "samples", drawn.shape[1:], hint="After the first axis.")
    spatial = tuple(drawn.shape[2:])
    keep = None if mask is None else check_mask(as_tensor(mask, "mask").to(drawn.device), spatial).reshape(-1)
    drawn, votes = drawn.flatten(2), votes.to(drawn.device).flatten(2)
    number = len(drawn) + len(votes)
    if drawn.device.type == "cpu" and number <= PATTERN_MASKS and drawn.shape[2] >= 2**number:
        return _pairs_by_pattern(drawn, votes, keep)
    total = torch.zeros(
        drawn.shape[1], *[len(drawn) + len(votes)] * 2, dtype=torch.float64, device=drawn.device
    )
    for start in range(0, drawn.shape[2], PIECE):  # below 2^24 single precision counts exactly
        cut = slice(start, start + PIECE)
        masks = torch.cat([drawn[..., cut], votes[..., cut]])
        if keep is not None:
            masks = masks & keep[cut]
        masks = masks.movedim(0, 1).float()
        total += masks @ masks.mT
    return total


def _pairs_by_pattern(drawn: torch.Tensor, votes: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    """The same from the number of voxels with each pattern of masks: for few masks many times faster than products."""
    masks = [*drawn.numpy(), *votes.numpy()]
    number = len(masks)
    counted = None if keep is None else keep.numpy()
    bits = (np.arange(2**number)[:, None] >> np.arange(number) & 1).astype(np.float64)
    tables = []
    for k in range(drawn.shape[1]):
        found = np.zeros(2**number, dtype=np.int64)
        for start in range(0, drawn.shape[2], PIECE):
            cut = slice(start, start + PIECE)
            codes = np.zeros(masks[0][k, cut].shape, dtype=np.uint16)
            for i, mask in enumerate(masks):
                codes |= mask[k, cut].astype(np.uint16) << i
            found += np.bincount(codes if counted is None else codes[counted[cut]], minlength=2**number)
        tables.append(torch.from_numpy(bits.T @ (found[:, None] * bits)))
    return torch.stack(tables)


def ged_from_counts(counts: torch.Tensor, *, samples: int) -> torch.Tensor:
    """The generalised energy distance, squared, from `pair_counts` of one case.

    Args:
        counts: `(…, S + R, S + R)`.
        samples: S.

    Returns:
        float64 `(…)` in [0, 2].
    """
    sizes = counts.diagonal(dim1=-2, dim2=-1)
    distance = 1 - overlap_ratio(counts, sizes[..., :, None] + sizes[..., None, :] - counts)
    between = distance[..., :samples, samples:].mean((-2, -1))
    within = [distance[..., part, part].mean((-2, -1)) for part in (slice(samples), slice(samples, None))]
    return (2 * between - within[0] - within[1]).clamp(min=0)  # rounding


def level_sets(probs: Array, *, thresholds: Sequence[float] = LEVELS) -> torch.Tensor:
    """Samples of a probability map: for each foreground class the voxels that reach each threshold.

    A voxel is in the share p of the masks `{p ≥ U}` with U uniform on [0, 1], so each voxel alone is drawn as the
    map says; all voxels follow one U, so the masks are nested, as larger and smaller outlines of one object are. The
    middles of equal steps stand for the uniform distribution.

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        thresholds: T levels in (0, 1].

    Returns:
        Boolean `(T, C − 1, *spatial)`.

    Raises:
        TypeError: If `probs` is not floating.
        ValueError: If values are outside [0, 1], NaN or do not sum to one, or a threshold is outside (0, 1].
    """
    p = as_tensor(probs, "probs")
    check_shapes(p, leading="C")
    check_distribution(p, "probs")
    check_thresholds(thresholds)
    return torch.stack([p[1:] >= level for level in thresholds])


def class_masks(labels: Array, *, num_classes: int) -> torch.Tensor:
    """A mask per foreground class of each of several label maps.

    Args:
        labels: `(M, *spatial)`, integers.
        num_classes: How many classes there are, background included.

    Returns:
        Boolean `(M, num_classes − 1, *spatial)`.

    Raises:
        TypeError: If the labels are not integers or booleans.
    """
    maps = as_tensor(labels, "labels")
    if not is_label_dtype(maps):
        raise TypeError(f"Expected `labels` to hold integers, got dtype {maps.dtype}.")
    return torch.stack([maps == c for c in range(1, num_classes)], dim=1)


def _each(raters: Array, voted: Array | None) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Each rater's labels, and where he voted."""
    maps = as_tensor(raters, "raters")
    if maps.ndim < 2 or not len(maps):
        raise ValueError(f"Expected `raters` of shape (raters, *spatial), got {tuple(maps.shape)}.")
    keep = None if voted is None else check_mask(as_tensor(voted, "voted"), tuple(maps.shape))
    for r, labels in enumerate(maps):
        yield labels, None if keep is None else keep[r]
