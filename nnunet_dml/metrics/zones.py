"""Which voxels a calibration error is measured on: near the foreground; and regions as cases of two classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nnunet_dml.metrics._arrays import Array, as_tensor
from nnunet_dml.metrics.sets import label_maps

RADIUS = 5


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
        found = _dilated(found, axis, reach)
    return found


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


def _dilated(mask: torch.Tensor, axis: int, reach: int) -> torch.Tensor:
    """The mask moved by up to `reach` voxels to both sides of an axis."""
    size = mask.shape[axis]
    result = mask.clone()
    for step in range(1, min(reach, size - 1) + 1):
        # a byte per voxel; `max_pool3d` wants four and three axes at most
        result.narrow(axis, step, size - step).logical_or_(mask.narrow(axis, 0, size - step))
        result.narrow(axis, 0, size - step).logical_or_(mask.narrow(axis, step, size - step))
    return result
