"""The voxels that count, in pieces that fit a processor's cache: what all streaming metrics loop over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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

PIECE = 2**18
"""Voxels per piece on the CPU: a few times faster than whole volumes, and the working memory stays small."""


@dataclass(frozen=True)
class Piece:
    """Some voxels of a batch, in no particular shape."""

    probs: torch.Tensor
    """`(C, M)`, single or double precision."""
    reference: torch.Tensor
    """`(M,)` integer labels, or `(C, M)` fractions."""
    keep: torch.Tensor | None
    """`(M,)`, boolean, or None: all count. On the CPU voxels that don't count are left out beforehand instead."""

    def truth(self, c: int) -> torch.Tensor:
        """`(M,)`: the share of each voxel that is of class c; boolean where the reference is of labels."""
        return self.reference[c] if self.reference.ndim == 2 else self.reference == c

    def top(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`(M,)` each: the greatest probability, and the share of its class (the lowest one on ties)."""
        confidence, accuracy = self.probs[0], self.truth(0)
        for c in range(1, len(self.probs)):
            better = self.probs[c] > confidence
            # `torch.where` is ten times slower on the CPU
            if accuracy.dtype == torch.bool:
                accuracy = (better & self.truth(c)) | (accuracy & ~better)
            else:
                accuracy = accuracy * ~better + self.truth(c) * better
            confidence = torch.maximum(confidence, self.probs[c])
        return confidence, accuracy


def pieces(probs: Array, reference: Array, mask: Array | None) -> Iterator[Piece]:
    """Check the shapes of a batch and go through its voxels.

    Args:
        probs: `(B, C, *spatial)`. Values are not checked.
        reference: Integer labels `(B, *spatial)`, or soft labels `(B, C, *spatial)`, floating.
        mask: `(B, *spatial)`, boolean: the voxels that count. All by default.

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ.
    """
    p, y = as_tensor(probs, "probs"), as_tensor(reference, "reference")
    check_shapes(p, leading="BC")
    check_reference(p, y, class_axis=1)
    y = y.to(p.device)
    spatial = (p.shape[0], *p.shape[2:])
    keep = None if mask is None else check_mask(as_tensor(mask, "mask").to(p.device), spatial).flatten(1)
    p, y = p.flatten(2), y.flatten(2 if y.ndim == p.ndim else 1)
    return _cut(p, y, keep)


def no_sums(probs: Array, *shape: int) -> torch.Tensor:
    """Zeros to which the sums of the pieces of `probs` are added, where these will be: nothing is moved."""
    on_device = isinstance(probs, torch.Tensor) and probs.device.type != "mps"
    return torch.zeros(*shape, dtype=torch.float64, device=probs.device if on_device else "cpu")


def _cut(p: torch.Tensor, y: torch.Tensor, keep: torch.Tensor | None) -> Iterator[Piece]:
    on_cpu = p.device.type == "cpu"
    step = max(1, PIECE // len(p)) if on_cpu and len(p) else max(1, p.shape[-1])
    for start in range(0, p.shape[-1], step):
        cut = slice(start, start + step)
        probs, truth = p[..., cut].movedim(0, 1), y[..., cut]
        soft = truth.ndim == 3
        if soft:
            truth = truth.movedim(0, 1)
        counted = None if keep is None else keep[:, cut]
        if counted is not None and on_cpu:
            if not counted.any():
                continue
            if not counted.all():
                probs, truth = probs[:, counted], truth[:, counted] if soft else truth[counted]
            counted = None
        probs, truth = (
            probs.reshape(len(probs), -1),
            truth.reshape(len(probs), -1) if soft else truth.reshape(-1),
        )
        if probs.dtype.itemsize < 4:
            probs = probs.float()
        if soft and truth.dtype.itemsize < 4:
            truth = truth.float()
        yield Piece(probs, truth, None if counted is None else counted.reshape(-1))


def check_reference(probs: torch.Tensor, reference: torch.Tensor, *, class_axis: int) -> None:
    """The number of axes says what the reference is; its type must agree, nothing is guessed."""
    labels_shape = (*probs.shape[:class_axis], *probs.shape[class_axis + 1 :])
    if reference.ndim == probs.ndim:
        check_same_shape("reference", reference.shape, "probs", probs.shape)
        if not reference.dtype.is_floating_point:
            raise TypeError(
                f"Expected a soft `reference` of shape {tuple(probs.shape)} to hold fractions, got dtype "
                f"{reference.dtype}. Convert one-hot maps to float, or give labels of shape {labels_shape}."
            )
    else:
        check_same_shape("reference", reference.shape, "probs without its classes", labels_shape)
        if not is_label_dtype(reference):
            raise TypeError(
                f"Expected a label `reference` of shape {labels_shape} to hold integers, "
                f"got dtype {reference.dtype}. "
                f"Soft labels have the shape of `probs`, {tuple(probs.shape)}."
            )


def one_case(
    probs: Array, reference: Array, mask: Array | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """A case as a batch of one, its values checked.

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        reference: Integer labels `(*spatial)`, or soft labels `(C, *spatial)`, floating.
        mask: `(*spatial)`, boolean. Labels of voxels that don't count may be anything.

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ, values are outside [0, 1], NaN or do not sum to one, or labels are not
            classes.
    """
    p, y = as_tensor(probs, "probs"), as_tensor(reference, "reference")
    check_shapes(p, leading="C")
    check_reference(p, y, class_axis=0)
    check_distribution(p, "probs")
    keep = None if mask is None else check_mask(as_tensor(mask, "mask").to(y.device), tuple(p.shape[1:]))
    if y.ndim == p.ndim:
        check_distribution(y, "reference")
    else:
        counted = y if keep is None else y[keep]
        if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < p.shape[0]:
            raise ValueError(
                f"Expected `reference` to hold labels 0 to {p.shape[0] - 1}, got {int(counted.min())} to "
                f"{int(counted.max())}. Leave ignored voxels out with `mask`."
            )
    return p[None], y[None], None if keep is None else keep[None]
