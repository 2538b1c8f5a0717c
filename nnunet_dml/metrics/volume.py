"""Volumes: bias, difference in millilitres, and the score against the distribution of the raters' volumes.

In pieces: the rows 1 and 2 of `soft_overlap_counts` are the predicted and the reference's volume in voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtr

from nnunet_dml._checks import check_same_shape
from nnunet_dml.metrics._arrays import Array, as_tensor, check_distribution, check_shapes
from nnunet_dml.metrics._voxels import one_case
from nnunet_dml.metrics.empty_cases import relative_difference
from nnunet_dml.metrics.sets import overlap_counts, soft_overlap_counts


def volume_bias(probs: Array, soft_reference: Array, *, mask: Array | None = None) -> npt.NDArray[np.float64]:
    r"""Relative error of the expected volume of each foreground class, signed.

    .. math:: \frac{\sum p_c - \sum y_c}{\sum y_c}

    `Σp` is the volume that the model expects, `Σy` the mean of the raters' volumes when `soft_reference` is
    the mean of their masks. Both sides may be one-hot maps: then it is the usual volume error of two
    segmentations.

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        soft_reference: The same shape.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        `(C − 1,)`, each −1 or more; 0 is unbiased, 0.05 is 5 % too much. NaN where the reference is empty.

    Raises:
        TypeError: If `probs` is not floating.
        ValueError: If shapes differ, or values are outside [0, 1], NaN, or do not sum to one.

    References:
        Popordanoska et al., On the relationship between calibrated predictors and unbiased volume estimation
        (MICCAI 2021); here relative to the reference's volume.

    >>> p, y = np.array([0.9, 0.6, 0.0]), np.array([1.0, 0.5, 0.0])  # 1.5 against 1.5
    >>> abs(volume_bias(np.stack([1 - p, p]), np.stack([1 - y, y])).round(6))
    array([0.])
    """
    counts = _volumes(probs, soft_reference, mask)
    values: npt.NDArray[np.float64] = volume_bias_from_counts(counts)[1:].cpu().numpy()
    return values


def absolute_volume_difference(
    probs: Array, soft_reference: Array, *, spacing: Sequence[float], mask: Array | None = None
) -> npt.NDArray[np.float64]:
    r"""Absolute difference of the expected volumes of each foreground class, in millilitres.

    .. math:: v \left| \sum p_c - \sum y_c \right|

    with the volume v of a voxel. Both sides may be one-hot maps: then it is that of two segmentations.

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        soft_reference: The same shape.
        spacing: Size of a voxel in mm, one number per spatial axis. Of a single slice give its thickness, too.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        `(C − 1,)` in ml, each at least 0; defined for empty classes, too.

    Raises:
        TypeError: If `probs` is not floating.
        ValueError: If shapes differ, or values are outside [0, 1], NaN, or do not sum to one, or the spacing is
            not of three positive numbers.

    >>> p, y = np.array([[[0.9, 0.6]]]), np.array([[[1.0, 1.0]]])  # 0.5 voxels of 8 mm³
    >>> absolute_volume_difference(np.stack([1 - p, p]), np.stack([1 - y, y]), spacing=(2, 2, 2)).round(6)
    array([0.004])
    """
    size = voxel_millilitres(spacing)
    counts = _volumes(probs, soft_reference, mask)
    values: npt.NDArray[np.float64] = (size * (counts[1] - counts[2]).abs())[1:].cpu().numpy()
    return values


def volume_crps(
    probs: Array, raters: Array, *, spacing: Sequence[float], mask: Array | None = None
) -> npt.NDArray[np.float64]:
    """Continuous ranked probability score of the expected volume of each foreground class, in millilitres.

    See `crps_from_volumes`; the predicted volume is `Σ p_c`, a rater's the size of his mask.

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        raters: `(R, *spatial)`, integers below C.
        spacing: Size of a voxel in mm, three numbers.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        `(C − 1,)` in ml, each at least 0, lower is better.

    Raises:
        TypeError: If `probs` is not floating or the raters' labels are not integers.
        ValueError: If shapes or values are wrong, there is no rater, or the spacing is not of three positive numbers.

    >>> p = np.array([[[1.0, 0.5]]])
    >>> volume_crps(np.stack([1 - p, p]), np.array([[[[1, 1]]], [[[1, 1]]]]), spacing=(10, 10, 10))  # 1.5 against 2 ml
    array([0.5])
    """
    size = voxel_millilitres(spacing)
    maps = as_tensor(raters, "raters")
    if maps.ndim < 2 or not len(maps):
        raise ValueError(f"Expected `raters` of shape (raters, *spatial), got {tuple(maps.shape)}.")
    p, y, keep = one_case(probs, maps[0], mask)
    expected = soft_overlap_counts(p, y, mask=keep)[1, 1:].cpu().numpy()
    sizes = [overlap_counts(labels, labels, num_classes=p.shape[1], mask=mask)[2, 1:] for labels in maps]
    return crps_from_volumes(size * expected, size * torch.stack(sizes).cpu().numpy())


def crps_from_volumes(predicted: npt.ArrayLike, raters: npt.ArrayLike) -> npt.NDArray[np.float64]:
    r"""Continuous ranked probability score of volumes against the normal distribution of the raters' volumes.

    With the raters' mean μ and standard deviation σ (of the R volumes themselves, divided by R), the predicted
    volume v and :math:`z = (v - \mu) / \sigma`,

    .. math:: \int \left( \Phi\Big(\frac{t - \mu}{\sigma}\Big) - [t \ge v] \right)^2 dt
        = \sigma \left( z (2 \Phi(z) - 1) + 2 \varphi(z) - \frac 1 {\sqrt\pi} \right)

    This is the CURVAS challenge's score in closed form. The challenge's program integrates from μ − 3σ to μ + 3σ
    only, so that there no prediction scores worse than 2.44 σ, and has no value where the raters agree. Here all of
    the integral is taken, and σ = 0 gives the limit, |v − μ|.

    Args:
        predicted: `(…)`: predicted volumes, in any unit.
        raters: `(R, …)`: each rater's, in the same unit.

    Returns:
        `(…)` in that unit, each at least 0, lower is better. The least value, at v = μ, is 0.234 σ: it is not 0 where
        raters differ.

    Raises:
        ValueError: If shapes differ or there is no rater.

    References:
        Gneiting and Raftery, Strictly proper scoring rules (JASA 102, 2007), Eq. 21; Riera-Marín et al., CURVAS
        challenge results (Computers in Biology and Medicine, 2025).

    >>> crps_from_volumes([12.0, 10.0], [[10.0, 9.0], [10.0, 11.0]]).round(4)  # σ is 0, then 1
    array([2.    , 0.2337])
    """
    value, votes = np.asarray(predicted, dtype=np.float64), np.asarray(raters, dtype=np.float64)
    if votes.ndim < 1 or not len(votes):
        raise ValueError("Expected `raters` to hold the volumes of at least one rater, got none.")
    check_same_shape("raters", votes.shape[1:], "predicted", value.shape, hint="After the raters' axis.")
    mean, deviation = votes.mean(0), votes.std(0)
    distance = value - mean
    z = np.divide(distance, deviation, out=np.zeros_like(distance), where=deviation > 0)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    score = distance * (2 * ndtr(z) - 1) + deviation * (2 * density - 1 / np.sqrt(np.pi))
    values: npt.NDArray[np.float64] = np.where(deviation > 0, score, np.abs(distance))
    return values


def volume_bias_from_counts(counts: torch.Tensor) -> torch.Tensor:
    """Volume bias from `soft_overlap_counts`, or of hard masks from `overlap_counts`.

    Args:
        counts: `(…, 3, C)`.

    Returns:
        float64 `(…, C)`, each −1 or more; NaN where the reference is empty.
    """
    _, predicted, wanted = counts.unbind(-2)
    return relative_difference(predicted, wanted)


def voxel_millilitres(spacing: Sequence[float]) -> float:
    """The volume of a voxel in ml.

    Args:
        spacing: Its size in mm, three numbers.

    Raises:
        ValueError: If these are not three positive, finite numbers.

    >>> voxel_millilitres((0.5, 0.5, 4))
    0.001
    """
    sizes = np.asarray(spacing, dtype=np.float64)
    if sizes.shape != (3,) or not np.isfinite(sizes).all() or not (sizes > 0).all():
        raise ValueError(
            f"Expected argument `spacing` to be three positive numbers in mm, got {list(spacing)}."
        )
    return float(sizes.prod()) / 1000


def _volumes(probs: Array, soft_reference: Array, mask: Array | None) -> torch.Tensor:
    p, y = as_tensor(probs, "probs"), as_tensor(soft_reference, "soft_reference")
    check_shapes(p, leading="C")
    check_same_shape(
        "soft_reference", y.shape, "probs", p.shape, hint="For hard labels make a one-hot map first."
    )
    check_distribution(y, "soft_reference")
    p, y, keep = one_case(p, y if y.dtype.is_floating_point else y.float(), mask)
    return soft_overlap_counts(p, y, mask=keep)
