"""The one kernel of the room: how large are x, y, what they share and what they differ in.

Every overlap loss of this package is a function of four sums per sample and class, and one formula,
`tversky`, turns them into a loss. A loss differs from another in how "shared" is measured on soft values
(`Overlap`) and in how false positives and negatives are weighed (`alpha`, `beta`), and in nothing else.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

from nnunet_dml._checks import check_one_of, check_range, check_same_shape

ONE_HOT_HINT = "For hard labels call `one_hot` first."
TINY = 1e-8  # what a denominator is at least; matters only where `smooth` is 0 and both sides are empty


class Overlap(Enum):
    """How the intersection and the difference of two soft sets are measured.

    The first two agree with x = y having nothing in difference; `SOFT` and `SOFT_SQUARED` take the difference
    from the product, so that x = y = 0.5 differ (`SOFT`).
    """

    DIFFERENCE = "difference"  # |x−y| measured, 2|v| = |x|+|y|−|x−y|        (variant 1)
    BOTH = "both"  # |x−y| measured, 2|v| = 2<x,y>                           (variant 2)
    SOFT = "soft"  # 2|v| = 2<x,y>, the difference |x|+|y|−2<x,y>            (SDL, SJL in L1)
    SOFT_SQUARED = "soft squared"  # the same with squared sizes Σx², Σy²    (SJL in L2)


class Cardinalities(NamedTuple):
    """Sums per sample and class, each (B, C) before the reduction; of the same meaning after it."""

    x: Tensor  # |x|, the size of the prediction
    y: Tensor  # |y|, the size of the target
    shared: Tensor  # 2|v|, twice the intersection
    difference: Tensor  # |m|, the mispredicted part


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """Float64 where any tensor is float64, else float32: half precision is never summed."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def check_inputs(name: str, x: Tensor, target: Tensor, mask: Tensor | None) -> None:
    """Refuse wrong shapes, dtypes and devices; reads no values, so it costs a GPU nothing.

    Args:
        name: What the caller calls `x` (`probs` or `logits`).
        x: Floating, (B, C, *spatial).
        target: Floating, of the same shape.
        mask: None, or (B, 1, *spatial) of any real dtype.

    Raises:
        TypeError: `x` or `target` is not floating, `mask` is complex.
        ValueError: A shape or device does not match.
    """
    if not x.is_floating_point():
        raise TypeError(f"Expected `{name}` of a floating dtype, got {x.dtype}.")
    if x.ndim < 3:
        raise ValueError(f"Expected `{name}` of shape (B, C, *spatial), got {tuple(x.shape)}.")
    check_same_shape("target", target.shape, name, x.shape, hint=ONE_HOT_HINT)
    if not target.is_floating_point():
        raise TypeError(f"Expected `target` of a floating dtype, got {target.dtype}. {ONE_HOT_HINT}")
    if target.device != x.device:
        raise ValueError(f"Expected `target` on {x.device} as `{name}`, got {target.device}.")
    if mask is None:
        return
    if mask.shape != (x.shape[0], 1, *x.shape[2:]):
        expected = (x.shape[0], 1, *x.shape[2:])
        raise ValueError(
            f"Expected `mask` of shape {expected} to match `{name}` of shape {tuple(x.shape)}, "
            f"got {tuple(mask.shape)}."
        )
    if mask.is_complex():
        raise TypeError(f"Expected `mask` of a bool, integer or floating dtype, got {mask.dtype}.")
    if mask.device != x.device:
        raise ValueError(f"Expected `mask` on {x.device} as `{name}`, got {mask.device}.")


def check_options(
    *, reduction: str, smooth: float, alpha: float = 0.5, beta: float = 0.5, gamma: float = 1.0
) -> None:
    """Refuse options out of range.

    Raises:
        ValueError: One of them is; the message names it and its range.
    """
    check_one_of("reduction", reduction, ("batch", "image"))
    check_range("smooth", smooth, 0.0, float("inf"), open_high=True)
    check_range("alpha", alpha, 0.0, float("inf"), open_high=True)
    check_range("beta", beta, 0.0, float("inf"), open_high=True)
    check_range("gamma", gamma, 1.0, float("inf"), open_high=True)


def cardinalities(x: Tensor, y: Tensor, overlap: Overlap, *, mask: Tensor | None = None) -> Cardinalities:
    """Measure x and y, per sample and class.

    Args:
        x: Probabilities, (B, C, *spatial) in [0, 1]; any floating dtype, summed in float32 (float64 in
            float64).
        y: Target, of the same shape and range.
        overlap: How the intersection is measured.
        mask: (B, 1, *spatial), 0 where a voxel is ignored. What x and y hold there, NaN included, has no
            effect.

    Returns:
        Four tensors (B, C), differentiable with respect to x and y. All zero where everything is ignored.
    """
    dtype = working_dtype(x, y)
    x, y = x.to(dtype).flatten(2), y.to(dtype).flatten(2)
    if mask is not None:
        ignored = ~mask.bool().flatten(2)
        x, y = x.masked_fill(ignored, 0), y.masked_fill(ignored, 0)
    product = None if overlap is Overlap.DIFFERENCE else (x * y).sum(2)
    difference = (x - y).abs().sum(2) if overlap in (Overlap.DIFFERENCE, Overlap.BOTH) else None
    if overlap is Overlap.SOFT_SQUARED:
        x, y = x.square(), y.square()
    return assemble(x.sum(2), y.sum(2), product=product, difference=difference)


def assemble(x: Tensor, y: Tensor, *, product: Tensor | None, difference: Tensor | None) -> Cardinalities:
    """Fill in the cardinality that was not measured from the three that were (|x|+|y| = 2|v|+|m| on sets)."""
    if product is not None and difference is not None:
        return Cardinalities(x, y, 2 * product, difference)
    if difference is not None:
        return Cardinalities(x, y, x + y - difference, difference)
    assert product is not None
    return Cardinalities(x, y, 2 * product, x + y - 2 * product)


class _SumOverRanks(torch.autograd.Function):
    """All-reduce in both directions.

    Every rank computes the same loss of the joint batch, so the gradient that arrives here is summed over
    the ranks; DDP divides by their number afterwards, which leaves the gradient of the joint batch.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        distributed.all_reduce(total)
        return total


def reduce_samples(sums: Cardinalities, *, reduction: str, gather: bool = False) -> Cardinalities:
    """Bring the cardinalities (B, C) to the sets that the loss compares.

    Args:
        sums: Per sample and class.
        reduction: "batch": one set per class over the whole batch, (C,); "image": one per sample and class.
        gather: With "batch", sum over the DDP ranks too. No effect where `torch.distributed` is not
            initialised, nor with "image", where each image stands for itself.
    """
    if reduction == "image":
        return sums
    stacked = torch.stack(sums).sum(1)
    if gather and distributed.is_available() and distributed.is_initialized():
        stacked = _SumOverRanks.apply(stacked)
    return Cardinalities(*stacked.unbind(0))


def tversky(sums: Cardinalities, *, alpha: float, beta: float, gamma: float = 1.0, smooth: float) -> Tensor:
    """The one loss formula: 1 − (2|v| + s) / (2|v| + 2α·FP + 2β·FN + s), to the power 1/γ.

    FP = (|x|−|y|+|m|)/2 and FN = (|y|−|x|+|m|)/2. α = β = 0.5 is Dice, α = β = 1 is Jaccard. It is computed
    as (2α·FP + 2β·FN) / (denominator), which is the same and exactly 0 at x = y.

    Returns:
        A loss in [0, 1] for each entry of `sums`; 0 where both sides are empty.
    """
    error = (alpha + beta) * sums.difference
    if alpha != beta:
        error = error + (alpha - beta) * (sums.x - sums.y)
    loss = error / (sums.shared + error + smooth).clamp_min(TINY)
    if gamma == 1:
        return loss
    # the root is infinitely steep at 0, where inf * 0 would turn the gradient into NaN
    positive = loss > 0
    return torch.where(positive, torch.where(positive, loss, 1.0) ** (1 / gamma), 0.0)
