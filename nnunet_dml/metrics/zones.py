"""Which voxels a calibration error is measured on: near the foreground, at a boundary; regions as cases of two classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from nnunet_dml.metrics._arrays import Array, as_tensor, check_mask
from nnunet_dml.metrics.sets import label_maps

RADIUS = 5
NEIGHBOURHOOD = 3


def near_foreground(
    prediction: Array, reference: Array, *, radius: int | Sequence[int] = RADIUS
) -> torch.Tensor:
    """The voxels of the foreground and around it: the mask of a foreground calibration error.

    The union of what either map has labelled, dilated by a box that reaches r voxels to each side (max-pooling
    with a window of 2r + 1). In 3D at the default most of a volume's easy background is left out, and the voxels
    where a network hesitates are in.

    Args:
        prediction: `(*spatial)`, integers, 0 is the background; or booleans. Of regions give their union.
        reference: The same. Of raters give their union: `(raters != 0).any(0)`.
        radius: r in voxels, or one for each axis, as for anisotropic images.

    Returns:
        Boolean `(*spatial)`; False everywhere if both maps are empty.

    Raises:
        TypeError: If a map is not of integers or booleans.
        ValueError: If shapes differ, or a radius is negative or one too many.

    >>> near_foreground(torch.tensor([0, 0, 0, 1, 0, 0]), torch.zeros(6, dtype=torch.int), radius=1).int().tolist()
    [0, 0, 1, 1, 1, 0]
    """
    first, second = label_maps(prediction, reference)
    radii = [radius] * first.ndim if isinstance(radius, int) else list(radius)
    if len(radii) != first.ndim or min(radii, default=0) < 0:
        raise ValueError(
            f"Expected argument `radius` to be at least 0, one or {first.ndim} (one per axis), got {radius}."
        )
    found = (first != 0) | (second != 0)
    for axis, reach in enumerate(radii):
        found = _moved(found, axis, reach, torch.logical_or)
    return found


def at_boundary(
    labels: Array, *, neighbourhood: int = NEIGHBOURHOOD, mask: Array | None = None
) -> torch.Tensor:
    """The voxels with another label in their k × … × k neighbourhood: the mask of BECE and BSCE.

    The same as `labels.boundary_voxels` of the one-hot map, from the labels themselves, some twenty times faster.

    Args:
        labels: `(*spatial)`, integers or booleans.
        neighbourhood: k, odd, at least 1 (at 1 there is no boundary); in voxels along every axis.
        mask: `(*spatial)`, boolean; voxels that are False are no neighbours and no boundary. All count by default.

    Returns:
        Boolean `(*spatial)`.

    Raises:
        TypeError: If the labels are not integers or booleans, or the mask is not boolean.
        ValueError: If shapes differ, or k is even or below 1.

    >>> at_boundary(torch.tensor([0, 0, 0, 2, 2])).tolist()
    [False, False, True, True, False]
    """
    maps, _ = label_maps(labels, labels)
    if neighbourhood < 1 or neighbourhood % 2 == 0:
        raise ValueError(f"Expected argument `neighbourhood` to be odd and at least 1, got {neighbourhood}.")
    values = maps.byte() if maps.dtype == torch.bool else maps
    greatest, least = values, values
    keep = None
    if mask is not None:  # what does not count is below and above all labels
        keep = check_mask(as_tensor(mask, "mask").to(maps.device), tuple(maps.shape))
        values = values.int()
        bounds = torch.iinfo(torch.int32)
        greatest, least = (values.masked_fill(~keep, limit) for limit in (bounds.min, bounds.max))
    for axis in range(maps.ndim):
        greatest = _moved(greatest, axis, neighbourhood // 2, torch.maximum)
        least = _moved(least, axis, neighbourhood // 2, torch.minimum)
    found = greatest != least
    return found if keep is None else found & keep


def complements(values: Array) -> torch.Tensor:
    """Regions, each against its complement: cases of two classes, for metrics that want a distribution.

    Args:
        values: `(R, *spatial)`: probabilities or fractions of regions that may overlap, or masks of them.

    Returns:
        `(R, 2, *spatial)`, floating: 1 − v under 0 and v under 1. Each row is a case of its own, as in
        `expected_calibration_error(complements(probs)[r], masks[r].long())`; all rows together are a batch, for
        `…_counts` pooled over the regions.

    >>> complements(torch.tensor([[0.25, 1.0]])).tolist()
    [[[0.75, 0.0], [0.25, 1.0]]]
    """
    v = as_tensor(values, "values")
    if not v.dtype.is_floating_point:
        v = v.float()
    return torch.stack([1 - v, v], dim=1)


def _moved(values: torch.Tensor, axis: int, reach: int, combine: Callable[..., torch.Tensor]) -> torch.Tensor:
    """The values combined with those that lie up to `reach` voxels to both sides along an axis."""
    size = values.shape[axis]
    result = values.clone()
    for step in range(1, min(reach, size - 1) + 1):
        # a byte per voxel; `max_pool3d` wants four and three axes at most
        for to, by in ((step, 0), (0, step)):
            part = result.narrow(axis, to, size - step)
            combine(part, values.narrow(axis, by, size - step), out=part)
    return result
