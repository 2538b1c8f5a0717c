"""The one kernel of the room: how large are x, y, what they share and what they differ in.

Every overlap loss of this package but Lovász's is a function of four sums per sample and class, and one formula,
`tversky`, turns them into a loss. A loss differs from another in how "shared" is measured on soft values
(`Overlap`) and in how false positives and negatives are weighed (`Formula`), and in nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from nnunet_dml._checks import check_range, check_same_shape

ONE_HOT_HINT = "For hard labels call `one_hot` first."
TINY = 1e-8  # what a denominator is at least; matters only where `smooth` is 0 and both sides are empty


class Overlap(Enum):
    """How the intersection and the difference of two soft sets are measured.

    The first three agree with x = y having nothing in difference; `SOFT` and `SOFT_SQUARED` take the difference
    from the product, so that x = y = 0.5 differ (`SOFT`).
    """

    DIFFERENCE = "difference"  # |x−y| measured, 2|v| = |x|+|y|−|x−y|        (variant 1)
    MINIMUM = "minimum"  # the same value from 2|v| = 2·Σ min(x, y), see `Formula.measured`
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


@dataclass(frozen=True)
class Formula:
    """How a set's cardinalities become its loss, see `tversky`.

    Raises:
        ValueError: An option is out of range; the message names it and its range.
    """

    overlap: Overlap
    alpha: float = 0.5  # weight of false positives
    beta: float = 0.5  # weight of false negatives
    gamma: float = 1.0  # Δ^(1/γ)
    power: float = 1.0  # Δ^power
    smooth: float = 1e-5  # added to numerator and denominator, in voxels
    log: bool = False  # −log(1 − Δ)

    def __post_init__(self) -> None:
        """Check the ranges."""
        infinity = float("inf")
        for name, low in (("smooth", 0.0), ("alpha", 0.0), ("beta", 0.0), ("gamma", 1.0), ("power", 1.0)):
            check_range(name, getattr(self, name), low, infinity, open_high=True)
        if self.alpha + self.beta == 0:
            raise ValueError(
                "Expected `alpha` or `beta` above 0, got 0 for both: no error would cost anything."
            )
        if self.gamma != 1 and self.power != 1:
            raise ValueError(
                f"Expected `gamma` or `power` to be 1, got gamma={self.gamma} and power={self.power}: "
                "the loss is raised to 1/gamma (the paper's) or to power (its code's)."
            )

    @property
    def exponent(self) -> float:
        """What Δ is raised to."""
        return 1 / self.gamma if self.power == 1 else self.power

    @property
    def measured(self) -> Overlap:
        """How to measure the overlap.

        Next to Δ = 1 the log form's slope by |v| is so steep that, taken from |x|+|y|−|x−y|, the slopes of the
        three would cancel in float32 and leave a class that is not there without a gradient.
        """
        return Overlap.MINIMUM if self.log and self.overlap is Overlap.DIFFERENCE else self.overlap


def masked(x: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both as (B, C, voxels) in the working dtype, 0 where a voxel is ignored, whatever they held there."""
    dtype = working_dtype(x, y)
    x, y = x.to(dtype).flatten(2), y.to(dtype).flatten(2)
    if mask is not None:
        ignored = ~mask.bool().flatten(2)
        x, y = x.masked_fill(ignored, 0), y.masked_fill(ignored, 0)
    return x, y


def cardinalities(x: Tensor, y: Tensor, overlap: Overlap) -> Cardinalities:
    """Measure x and y, per sample and class.

    Args:
        x: Probabilities, (B, C, voxels) in [0, 1], as `masked` returns them.
        y: Target, of the same shape and range.
        overlap: How the intersection is measured.

    Returns:
        Four tensors (B, C), differentiable with respect to x and y. All zero where everything is ignored.
    """
    product = None
    if overlap is not Overlap.DIFFERENCE:
        product = (torch.minimum(x, y) if overlap is Overlap.MINIMUM else x * y).sum(2)
    difference = None if overlap in (Overlap.SOFT, Overlap.SOFT_SQUARED) else (x - y).abs().sum(2)
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


def tversky(sums: Cardinalities, formula: Formula) -> Tensor:
    """The one loss formula: Δ = 1 − (2|v| + s) / (2|v| + 2α·FP + 2β·FN + s), then Δ^e, then −log(1 − Δ^e).

    FP = (|x|−|y|+|m|)/2 and FN = (|y|−|x|+|m|)/2. α = β = 0.5 is Dice, α = β = 1 is Jaccard. It is computed
    as (2α·FP + 2β·FN) / (denominator), which is the same and exactly 0 at x = y.

    Returns:
        A loss for each entry of `sums`, in [0, 1], in the log form in [0, inf) and finite; 0 where both sides
        are empty.
    """
    alpha, beta, exponent = formula.alpha, formula.beta, formula.exponent
    error = (alpha + beta) * sums.difference
    if alpha != beta:
        error = (error + (alpha - beta) * (sums.x - sums.y)).clamp_min(0)  # what rounding may have left
    if formula.log:
        return _log_form(error, (sums.shared + formula.smooth).clamp_min(TINY), exponent)
    loss = error / (sums.shared + error + formula.smooth).clamp_min(TINY)
    if exponent == 1:
        return loss
    # a root is infinitely steep at 0, where inf * 0 would turn the gradient into NaN
    positive = loss > 0
    return torch.where(positive, torch.where(positive, loss, 1.0) ** exponent, 0.0)


def _log_form(error: Tensor, right: Tensor, exponent: float) -> Tensor:
    """−log(1 − Δ^e), Δ = error / (right + error), without forming 1 − Δ, which rounds to 0 next to Δ = 1."""
    if exponent == 1:
        return torch.log1p(error / right)
    positive = error > TINY**2 * right  # below, Δ^e and its logarithm are 0 for all that floats can tell
    u = exponent * torch.log1p(right / torch.where(positive, error, right))  # −log Δ^e
    return torch.where(positive, -torch.log(-torch.expm1(-u)), 0.0)
