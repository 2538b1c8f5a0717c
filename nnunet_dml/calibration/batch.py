"""Calibration of a batch in a training step: keys from the batch, only chosen voxels computed."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_dml._checks import check_same_shape
from nnunet_dml.calibration.kde import check_bandwidth, kernel_calibrate, working_dtype
from nnunet_dml.calibration.keys import choose_weighted_keys


def calibrate_batch(
    probs: Tensor,
    labels: Tensor,
    *,
    bandwidth: float,
    where: Tensor | None = None,
    mask: Tensor | None = None,
    keys: int = 1000,
    independent: bool = False,
    weighted: bool = True,
    generator: torch.Generator | None = None,
    memory_mib: float | None = None,
) -> Tensor:
    """Calibrate a teacher's probabilities by kernel regression on key voxels of the same batch.

    Keys are drawn equally from the classes present (`choose_keys`); a voxel that is a key itself is left out
    of its own estimate. Only the voxels of `where` are computed, the others stay as they are.

    Args:
        probs: (B, C, *spatial), floating, in [0, 1], summing to one over C (regions: each for itself).
        labels: (B, C, *spatial), floating: one-hot or fractions. Read where the keys are.
        bandwidth: h > 0, see `kernel_calibrate`.
        where: (B, 1, *spatial), bool: the voxels to calibrate (the paper's: wrong ones, `wrong_voxels`, and
            those near a boundary, `labels.boundary_voxels`); with `independent` also (B, C, *spatial). All by
            default.
        mask: (B, 1, *spatial), bool or 0/1: voxels that are 0 are no keys and stay as they are.
        keys: How many keys (per region with `independent`).
        independent: The channels are regions that may overlap: Beta kernel, keys and estimate for each.
        weighted: Whether a key counts for as many voxels as it stands for, so that a rare class has its true
            frequency although it has as many keys as the others. Without, as in the paper, each counts as one, and the
            estimate leans towards rare classes.
        generator: Random numbers for the choice of the keys.
        memory_mib: Bound on the working memory of the kernel in MiB.

    Returns:
        (B, C, *spatial), a new tensor, float32 (float64 if `probs` is), contiguous, without a gradient; a copy where no
        voxel is to be calibrated or none may be a key.

    Raises:
        ValueError: A wrong shape, `bandwidth` or `memory_mib` not above 0, `keys` below 1.
        TypeError: `probs` or `labels` is not floating, or `where` not bool.

    Source: Wang et al., Dice Semimetric Losses, MICCAI 2023, appendix D.
    """
    _check(probs, labels, where, mask, independent)
    check_bandwidth(bandwidth)
    with torch.no_grad():
        result = probs.to(working_dtype(probs), copy=True, memory_format=torch.contiguous_format)
        for group in channel_groups(probs.shape[1], independent):
            voxels = calibrated_voxels(probs, group, where=where, mask=mask)
            part, part_labels = probs[:, group], labels[:, group]
            key_voxels, stands_for = choose_weighted_keys(
                part_labels, keys=keys, mask=mask, independent=independent, generator=generator
            )
            if not len(voxels) or not len(key_voxels):
                continue
            place = torch.searchsorted(key_voxels, voxels).clamp_(max=len(key_voxels) - 1)
            estimate = kernel_calibrate(
                rows_of(part, voxels),
                rows_of(part, key_voxels),
                rows_of(part_labels, key_voxels),
                bandwidth=bandwidth,
                kernel="beta" if independent else "dirichlet",
                own_key=torch.where(key_voxels[place] == voxels, place, -1),
                key_weights=stands_for if weighted else None,
                memory_mib=memory_mib,
            )
            flat = result.view(*result.shape[:2], -1)
            size = flat.shape[2]
            flat[:, group][voxels // size, :, voxels % size] = estimate
        return result


def calibrated_voxels(probs: Tensor, group: slice, *, where: Tensor | None, mask: Tensor | None) -> Tensor:
    """The places of the flattened (B, *spatial) that are calibrated in some channels, ascending; as of `calibrate_batch`."""
    chosen = None if where is None else where[:, group if where.shape[1] > 1 else slice(None)]
    if mask is not None:
        chosen = mask.bool() if chosen is None else chosen & mask.bool()
    if chosen is None:
        return torch.arange(probs[:, 0].numel(), device=probs.device)
    return chosen.reshape(-1).nonzero()[:, 0]


def rows_of(tensor: Tensor, voxels: Tensor) -> Tensor:
    """The voxels at places of the flattened (B, *spatial), as rows: (B, C, *spatial) → (N, C)."""
    flat = tensor.flatten(2)
    return flat[voxels // flat.shape[2], :, voxels % flat.shape[2]]


def channel_groups(channels: int, independent: bool) -> list[slice]:
    """The channels that are calibrated together."""
    return [slice(i, i + 1) for i in range(channels)] if independent else [slice(0, channels)]


def _check(
    probs: Tensor, labels: Tensor, where: Tensor | None, mask: Tensor | None, independent: bool
) -> None:
    if probs.ndim < 3:
        raise ValueError(f"Expected `probs` of shape (B, C, *spatial), got {tuple(probs.shape)}.")
    check_same_shape(
        "labels", labels.shape, "probs", probs.shape, hint="For hard labels call `one_hot` first."
    )
    for name, tensor in (("probs", probs), ("labels", labels)):
        if not tensor.is_floating_point():
            raise TypeError(f"Expected `{name}` of a floating dtype, got {tensor.dtype}.")
    one = (probs.shape[0], 1, *probs.shape[2:])
    if mask is not None and tuple(mask.shape) != one:
        raise ValueError(f"Expected `mask` of shape {one}, got {tuple(mask.shape)}.")
    if where is not None:
        if tuple(where.shape) not in ((one, tuple(probs.shape)) if independent else (one,)):
            raise ValueError(f"Expected `where` of shape {one}, got {tuple(where.shape)}.")
        if where.dtype != torch.bool:
            raise TypeError(f"Expected `where` of dtype bool, got {where.dtype}.")
