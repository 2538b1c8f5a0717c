"""Which voxels are keys, and which are calibrated."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nnunet_dml._checks import check_same_shape


def choose_keys(
    labels: Tensor,
    *,
    keys: int,
    mask: Tensor | None = None,
    independent: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Key voxels, drawn without replacement, equally many from each class that is present.

    Of each of the u classes present ⌈keys / u⌉ voxels are drawn (all of them where it has fewer), one from each of as
    many stretches of equal length of the class's voxels in reading order, so they lie spread over the batch.

    Args:
        labels: (B, C, *spatial), floating: one-hot or fractions. The class of a voxel is that of the greatest.
        keys: How many in all, about (rounded up per class).
        mask: (B, 1, *spatial), bool or 0/1: the voxels that may be drawn. All by default.
        independent: The one channel (C = 1) is a region; the two classes are inside (above 0.5) and outside.
        generator: Where the random numbers come from, on any device. Torch's own by default.

    Returns:
        (M,), int64, ascending: places in the voxels of (B, *spatial), flattened. Empty if no voxel may be drawn.

    Raises:
        ValueError: A wrong shape, or `keys` below 1.

    Source: Wang et al., Dice Semimetric Losses, MICCAI 2023, appendix D.

    >>> labels = torch.tensor([[[1.0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]]])
    >>> len(choose_keys(labels, keys=4))  # two of the first class, the only one of the second
    3
    """
    return choose_weighted_keys(labels, keys=keys, mask=mask, independent=independent, generator=generator)[0]


def choose_weighted_keys(
    labels: Tensor,
    *,
    keys: int,
    mask: Tensor | None = None,
    independent: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Key voxels as of `choose_keys`, and how many voxels of its class each of them stands for, float64 (M,)."""
    _check_shape(labels, mask)
    if keys < 1:
        raise ValueError(f"Expected argument `keys` to be at least 1, got {keys}.")
    if independent and labels.shape[1] != 1:
        raise ValueError(f"Expected `labels` of one region (C = 1), got {tuple(labels.shape)}.")
    count = 2 if independent else labels.shape[1]
    classes = (labels[:, 0] > 0.5).long() if independent else greatest(labels)[:, 0]
    if mask is not None:
        classes = torch.where(mask[:, 0].bool(), classes, count)
    classes = classes.reshape(-1)
    sizes = torch.bincount(classes, minlength=count + 1)[:count].tolist()
    present = [label for label, size in enumerate(sizes) if size]
    share = math.ceil(keys / max(1, len(present)))
    chosen, stands_for = [classes.new_empty(0)], [torch.empty(0, dtype=torch.float64)]
    for label in present:
        drawn = min(share, sizes[label])
        chosen.append(_members(classes == label, _spread_out(sizes[label], drawn, generator)))
        stands_for.append(torch.full((drawn,), sizes[label] / drawn, dtype=torch.float64))
    voxels, order = torch.cat(chosen).sort()
    return voxels, torch.cat(stands_for).to(voxels.device, non_blocking=True)[order]


def wrong_voxels(probs: Tensor, labels: Tensor, *, independent: bool = False) -> Tensor:
    """Voxels whose most probable class is not the label's (regions: that lie on the wrong side of 0.5).

    Args:
        probs: (B, C, *spatial).
        labels: (B, C, *spatial), one-hot or fractions.
        independent: The channels are regions, each right or wrong for itself.

    Returns:
        Bool, (B, 1, *spatial); (B, C, *spatial) with `independent`.

    Raises:
        ValueError: Shapes differ.
    """
    check_same_shape("labels", labels.shape, "probs", probs.shape)
    if independent:
        return (probs > 0.5) != (labels > 0.5)
    return greatest(probs) != greatest(labels)


def greatest(values: Tensor) -> Tensor:
    """The class of the greatest value (the lowest of several), (B, C, *spatial) → (B, 1, *spatial)."""
    return values.max(1, keepdim=True).indices  # the same as argmax, ten times faster on a CPU


def _spread_out(size: int, count: int, generator: torch.Generator | None) -> Tensor:
    """`count` different numbers below `size`, ascending, one from each of `count` stretches of equal length."""
    device = None if generator is None else generator.device
    edges = torch.arange(count + 1, dtype=torch.int64) * size // count
    random = torch.rand(count, generator=generator, device=device, dtype=torch.float64).cpu()
    return edges[:-1] + (random * (edges[1:] - edges[:-1])).long()


def _members(belongs: Tensor, ranks: Tensor) -> Tensor:
    """Places of the members with these ranks; nothing waits for the device."""
    place = torch.cumsum(belongs, 0, dtype=torch.int32)
    ranks = ranks.to(device=place.device, dtype=torch.int32, non_blocking=True)
    return torch.searchsorted(place, ranks + 1)


def _check_shape(labels: Tensor, mask: Tensor | None) -> None:
    if labels.ndim < 3:
        raise ValueError(f"Expected `labels` of shape (B, C, *spatial), got {tuple(labels.shape)}.")
    expected = (labels.shape[0], 1, *labels.shape[2:])
    if mask is not None and tuple(mask.shape) != expected:
        raise ValueError(f"Expected `mask` of shape {expected}, got {tuple(mask.shape)}.")
