"""Surface Dice and the 95th percentile of the surface distances, from MONAI.

MONAI needs PyTorch and NumPy only, and is kept. (DeepMind's `surface-distance`, which has the same surface Dice, is not:
its one release does not run on NumPy 1.24 to 1.26.) Importing MONAI takes many seconds, so that is done on the first
call.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from nnunet_dml._checks import check_range
from nnunet_dml.metrics._arrays import Array
from nnunet_dml.metrics.empty_cases import BOTH_EMPTY, BOTH_EMPTY_DISTANCE, ONE_EMPTY_DISTANCE
from nnunet_dml.metrics.sets import label_maps


def surface_dice(prediction: Array, reference: Array, *, spacing: Sequence[float], tolerance: float) -> float:
    r"""Surface Dice (normalised surface distance) of two masks: the share of both surfaces that is near the other.

    .. math:: \frac{|\{a \in S_P : d(a, S_R) \le \tau\}| + |\{b \in S_R : d(b, S_P) \le \tau\}|}{|S_P| + |S_R|}

    |·| is the area in mm² (in 2D the length in mm) of the surface elements between neighbouring voxels.

    Args:
        prediction: `(*spatial)`, boolean or integers 0 and 1; two or three axes. Leading axes of one voxel are left out
            down to two, so that a slice is a slice also where it is stored as a volume.
        reference: The same.
        spacing: Size of a voxel in mm, one number per axis, in the order of the axes.
        tolerance: τ in mm, at least 0: what raters differ by.

    Returns:
        A value in [0, 1], higher is better. If both masks are empty: `empty_cases.BOTH_EMPTY`; if one is: 0.

    Raises:
        TypeError: If a mask is not of integers or booleans.
        ValueError: If shapes differ, there are values besides 0 and 1, or an option is out of range.

    References:
        Nikolov et al., Clinically applicable segmentation of head and neck anatomy (JMIR 23, 2021).

    >>> surface_dice(torch.eye(4, dtype=torch.int), torch.eye(4, dtype=torch.int), spacing=(1, 1), tolerance=0)
    1.0
    """
    check_range("tolerance", tolerance, 0, torch.inf, open_high=True)
    pair, sizes = _prepared(prediction, reference, spacing)
    filled = [bool(mask.any()) for mask in pair]
    if not all(filled):
        return 0.0 if any(filled) else BOTH_EMPTY
    from monai.metrics import compute_surface_dice

    first, second = (mask[None, None].float() for mask in pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # as above
        value = compute_surface_dice(
            first, second, [tolerance], include_background=True, spacing=sizes, use_subvoxels=True
        )
    return float(value)


def hausdorff_distance_95(prediction: Array, reference: Array, *, spacing: Sequence[float]) -> float:
    r"""The 95th percentile of the surface distances of two masks, in mm (HD95).

    .. math:: \max\{ P_{95}\, d(a, S_R),\ P_{95}\, d(b, S_P) \},\quad a \in S_P,\ b \in S_R

    The surface are the voxels of a mask with a neighbour across a face that is not in it, or at the border of the
    image; distances are between their centres, percentiles of each direction by itself.

    Args:
        prediction: As in `surface_dice`.
        reference: The same.
        spacing: Size of a voxel in mm, one number per axis, in the order of the axes.

    Returns:
        Millimetres, lower is better. If both masks are empty: `empty_cases.BOTH_EMPTY_DISTANCE`, 0; if one is:
        `empty_cases.ONE_EMPTY_DISTANCE`, NaN, as there is no distance to measure. Count such cases beside the mean.

    Raises:
        TypeError: If a mask is not of integers or booleans.
        ValueError: If shapes differ, there are values besides 0 and 1, or the spacing is wrong.

    References:
        Huttenlocher et al., Comparing images using the Hausdorff distance (PAMI 15, 1993), there of any rank.

    >>> mask = torch.zeros(5, 5, dtype=torch.bool)
    >>> mask[1:3, 1:3] = True
    >>> hausdorff_distance_95(mask, mask.roll(1, 0), spacing=(2.5, 1))
    2.5
    """
    pair, sizes = _prepared(prediction, reference, spacing)
    filled = [bool(mask.any()) for mask in pair]
    if not all(filled):
        return ONE_EMPTY_DISTANCE if any(filled) else BOTH_EMPTY_DISTANCE
    from monai.metrics import compute_hausdorff_distance

    first, second = (mask[None, None].float() for mask in pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # as above
        value = compute_hausdorff_distance(
            first, second, include_background=True, percentile=95, spacing=sizes
        )
    return float(value)


def _prepared(
    prediction: Array, reference: Array, spacing: Sequence[float]
) -> tuple[tuple[torch.Tensor, torch.Tensor], list[float]]:
    """The two masks, cut down to the box that they fill (before MONAI makes floats of them); and the spacing of their axes."""
    first, second = label_maps(prediction, reference)
    sizes = [float(size) for size in spacing]
    if len(sizes) != first.ndim or not all(0 < size < torch.inf for size in sizes):
        raise ValueError(
            f"Expected argument `spacing` to be {first.ndim} positive numbers in mm, one per axis, got {sizes}."
        )
    if not 2 <= first.ndim <= 3:
        raise ValueError(f"Expected `prediction` with two or three axes, got shape {tuple(first.shape)}.")
    for name, tensor in (("prediction", first), ("reference", second)):
        if tensor.dtype != torch.bool and bool(((tensor != 0) & (tensor != 1)).any()):
            raise ValueError(f"Expected `{name}` to hold 0 and 1 only. Of a label map give `labels == c`.")
    first, second = first != 0, second != 0
    while first.ndim > 2 and first.shape[0] == 1:
        first, second, sizes = first[0], second[0], sizes[1:]
    union = first | second
    for axis in range(union.ndim):
        others = [other for other in range(union.ndim) if other != axis]
        found = union.amax(others).nonzero()
        if not len(found):
            break
        low, high = int(found[0]), int(found[-1]) + 1
        union, first, second = (mask.narrow(axis, low, high - low) for mask in (union, first, second))
    return (first, second), sizes
