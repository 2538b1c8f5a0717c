"""Label smoothing on tensors of any dimension: everywhere (LS) or near boundaries only (BLS)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from nnunet_dml._checks import check_range

_POOLS: tuple[Callable[..., Tensor], ...] = (
    functional.max_pool1d,
    functional.max_pool2d,
    functional.max_pool3d,
)


def smooth_labels(target: Tensor, *, epsilon: float, independent: bool = False) -> Tensor:
    """Label smoothing (LS): mix every label with the uniform distribution.

        y' = (1 − ε) y + ε / C

    Args:
        target: y, (B, C, *spatial), floating, in [0, 1]; hard or soft.
        epsilon: ε in [0, 1); 0 changes nothing.
        independent: The channels are regions that may overlap, each a class of its own against the rest: C is 2.

    Returns:
        (B, C, *spatial), a new tensor unless ε is 0; channels that sum to one go on doing so.

    Raises:
        ValueError: A wrong shape, or ε out of range.
        TypeError: `target` is not floating.

    Source: Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, section 7.

    >>> smooth_labels(torch.tensor([[[1.0], [0.0]]]), epsilon=0.2).flatten().tolist()
    [0.9000000357627869, 0.10000000149011612]
    """
    _check(target, epsilon)
    if epsilon == 0:
        return target
    return target * (1 - epsilon) + epsilon / (2 if independent else target.shape[1])


def smooth_boundary(
    target: Tensor,
    *,
    epsilon: float,
    neighbourhood: int = 3,
    mask: Tensor | None = None,
    independent: bool = False,
) -> Tensor:
    """Boundary label smoothing (BLS): label smoothing where labels meet, nothing elsewhere.

    Args:
        target: y, (B, C, *spatial) with one to three spatial axes, floating, in [0, 1]; hard or soft.
        epsilon: ε in [0, 1).
        neighbourhood: k, odd; see `boundary_voxels`.
        mask: (B, 1, *spatial), bool or 0/1; voxels that are 0 make no boundary and stay as they are.
        independent: The channels are regions that may overlap: each is smoothed at its own boundary.

    Returns:
        (B, C, *spatial), a new tensor unless ε is 0.

    Raises:
        ValueError: A wrong shape, ε out of range, or k even.
        TypeError: `target` is not floating.

    Source: Wang et al., Jaccard Metric Losses, NeurIPS 2023, section 2.4.1 (best there: k = 3, ε = 0.5).

    >>> y = torch.tensor([[[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]])
    >>> smooth_boundary(y, epsilon=0.5)[0, 0].tolist()
    [1.0, 1.0, 0.75, 0.25, 0.0, 0.0]
    """
    _check(target, epsilon)
    edge = boundary_voxels(target, neighbourhood=neighbourhood, mask=mask, independent=independent)
    if epsilon == 0:
        return target
    return torch.where(edge, smooth_labels(target, epsilon=epsilon, independent=independent), target)


def boundary_voxels(
    target: Tensor, *, neighbourhood: int = 3, mask: Tensor | None = None, independent: bool = False
) -> Tensor:
    """Voxels with another label among the voxels of their k × … × k neighbourhood.

    The label of a voxel is the class of the greatest fraction (the lowest of several), that of a region whether
    its fraction is above 0.5. Where another label is near, the greatest and the least label of the neighbourhood
    differ, so two max-poolings of one channel are enough for any number of classes.

    Args:
        target: (B, C, *spatial) with one to three spatial axes, floating.
        neighbourhood: k, odd, at least 1 (at 1 there is no boundary); in voxels along every axis. What lies
            outside the image is no neighbour.
        mask: (B, 1, *spatial), bool or 0/1; voxels that are 0 are no neighbours and no boundary.
        independent: The channels are regions, each with a boundary of its own.

    Returns:
        Bool, (B, 1, *spatial); (B, C, *spatial) with `independent`.

    Raises:
        ValueError: A wrong shape, or k even or below 1.

    >>> boundary_voxels(torch.tensor([[[1.0, 1, 1, 0, 0]]]), independent=True)[0, 0].tolist()
    [False, False, True, True, False]
    """
    if target.ndim < 3 or target.ndim > 5:
        raise ValueError(
            f"Expected `target` of shape (B, C, *spatial) with 1 to 3 spatial axes, got {tuple(target.shape)}."
        )
    if neighbourhood < 1 or neighbourhood % 2 == 0:
        raise ValueError(f"Expected argument `neighbourhood` to be odd and at least 1, got {neighbourhood}.")
    expected = (target.shape[0], 1, *target.shape[2:])
    if mask is not None and tuple(mask.shape) != expected:
        raise ValueError(f"Expected `mask` of shape {expected}, got {tuple(mask.shape)}.")
    # the same as argmax, ten times faster on a CPU
    labels = target > 0.5 if independent else target.max(1, keepdim=True).indices
    labels = labels.float()
    if mask is None:
        return _greatest(labels, neighbourhood) > -_greatest(-labels, neighbourhood)
    ignored = ~mask.bool()
    # far outside the labels, so that they never win
    outside = -float(target.shape[1] + 1)
    greatest = _greatest(labels.masked_fill(ignored, outside), neighbourhood)
    least = -_greatest((-labels).masked_fill(ignored, outside), neighbourhood)
    return (greatest > least) & ~ignored


def _greatest(values: Tensor, k: int) -> Tensor:
    """The maximum over each voxel's neighbourhood, one axis after the other."""
    axes = values.ndim - 2
    for axis in range(axes):
        size = [k if it == axis else 1 for it in range(axes)]
        values = _POOLS[axes - 1](values, size, stride=1, padding=[n // 2 for n in size])
    return values


def _check(target: Tensor, epsilon: float) -> None:
    if not target.is_floating_point():
        raise TypeError(f"Expected `target` of a floating dtype, got {target.dtype}.")
    if target.ndim < 3:
        raise ValueError(f"Expected `target` of shape (B, C, *spatial), got {tuple(target.shape)}.")
    check_range("epsilon", epsilon, 0.0, 1.0, open_high=True)
