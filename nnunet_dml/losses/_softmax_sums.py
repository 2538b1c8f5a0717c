"""Softmax, cross-entropy and cardinalities in one pass over the voxels, with the gradient written out.

Cross-entropy and overlap need the same softmax; computed apart, each keeps several arrays of the size of the
logits for the backward pass. Here nothing is kept but the inputs: the forward pass goes through the volume in
pieces and leaves a few sums, the backward pass goes through it again and writes the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nnunet_dml.losses._cardinalities import Cardinalities, Overlap, assemble, working_dtype

# Elements of a piece. On the CPU the intermediate arrays of a piece stay near the cache, yet there are few
# enough pieces that waiting for a busy machine's threads does not add up; on an accelerator they only bound
# the memory.
PIECE_CPU = 1 << 19
PIECE_ACCELERATOR = 1 << 25


class SoftmaxSums(NamedTuple):
    """What the losses need of softmax(logits) and the target."""

    cross_entropy: Tensor | None  # Σ over valid voxels of −Σ_c y_c log p_c, a scalar
    sums: Cardinalities | None  # (B, C − first) each


def softmax_sums(
    logits: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None,
    overlap: Overlap | None,
    first: int = 0,
    cross_entropy: bool = True,
) -> SoftmaxSums:
    """Cross-entropy and cardinalities of softmax(logits), computed in float32 (float64 in float64).

    Args:
        logits: (B, C, *spatial).
        target: (B, C, *spatial) in [0, 1]; treated as a constant, it gets no gradient.
        mask: None or (B, 1, *spatial), 0 where a voxel is ignored; what the target holds there has no effect.
        overlap: How the intersection is measured, None for no cardinalities. Not `SOFT_SQUARED`.
        first: First class of the cardinalities, 1 to leave out the background.
        cross_entropy: Whether it is wanted.
    """
    assert overlap is not Overlap.SOFT_SQUARED
    ignored = None if mask is None else ~mask.bool().flatten(2)
    entropy, x, y, product, difference = _SoftmaxSums.apply(
        logits.flatten(2), target.detach().flatten(2), ignored, overlap, first, cross_entropy
    )
    return SoftmaxSums(
        entropy, None if overlap is None else assemble(x, y, product=product, difference=difference)
    )


def _pieces(logits: Tensor) -> Iterator[slice]:
    """Slices of the voxel axis."""
    batch, classes, voxels = logits.shape
    size = PIECE_CPU if logits.device.type == "cpu" else PIECE_ACCELERATOR
    step = max(1, size // max(1, batch * classes))
    return (slice(start, start + step) for start in range(0, voxels, step))


def _piece(logits: Tensor, target: Tensor, ignored: Tensor | None, part: slice) -> tuple[Tensor, Tensor]:
    """Logits and target of a piece in the working dtype, both 0 at ignored voxels."""
    dtype = working_dtype(logits, target)
    z, y = logits[..., part].to(dtype), target[..., part].to(dtype)
    if ignored is not None:
        z, y = z.masked_fill(ignored[..., part], 0), y.masked_fill(ignored[..., part], 0)
    return z, y


class _SoftmaxSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        ignored: Tensor | None,
        overlap: Overlap | None,
        first: int,
        cross_entropy: bool,
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(logits, target, ignored)
        ctx.first = first
        ctx.set_materialize_grads(False)

        dtype = working_dtype(logits, target)
        zeros = logits.new_zeros((logits.shape[0], logits.shape[1] - first), dtype=dtype)
        entropy = logits.new_zeros((), dtype=dtype) if cross_entropy else None
        x, y = (zeros, zeros.clone()) if overlap is not None else (None, None)
        difference = zeros.clone() if overlap in (Overlap.DIFFERENCE, Overlap.BOTH) else None
        product = zeros.clone() if overlap in (Overlap.SOFT, Overlap.BOTH) else None

        for part in _pieces(logits):
            z, t = _piece(logits, target, ignored, part)
            if entropy is not None:
                log_p = torch.log_softmax(z, 1)
                p = log_p.exp()
                entropy -= log_p.mul_(t).sum()
            else:
                p = torch.softmax(z, 1)
            if x is None or y is None:
                continue
            if ignored is not None:
                p.masked_fill_(ignored[..., part], 0)
            p, t = p[:, first:], t[:, first:]
            x += p.sum(2)
            y += t.sum(2)
            if product is not None:
                product += (p * t).sum(2)
            if difference is not None:
                difference += p.sub_(t).abs_().sum(2)
        return entropy, x, y, product, difference

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, target, ignored = ctx.saved_tensors
        grad_entropy, grad_x, _, grad_product, grad_difference = grads
        grad = torch.empty_like(logits)

        for part in _pieces(logits):
            z, t = _piece(logits, target, ignored, part)
            p = torch.softmax(z, 1)
            scale: Tensor | None = None  # of p, per voxel
            out = torch.zeros_like(p) if grad_entropy is None else t * -grad_entropy
            if grad_entropy is not None:
                scale = t.sum(1, keepdim=True) * grad_entropy
            slope = _slope(p[:, ctx.first :], t[:, ctx.first :], grad_x, grad_product, grad_difference)
            if slope is not None:
                slope *= p[:, ctx.first :]
                out[:, ctx.first :] += slope
                pull = slope.sum(1, keepdim=True)
                scale = -pull if scale is None else scale - pull
            if scale is not None:
                out.addcmul_(p, scale)
            if ignored is not None:
                out.masked_fill_(ignored[..., part], 0)
            grad[..., part] = out
        return grad, None, None, None, None, None


def _slope(
    p: Tensor, t: Tensor, grad_x: Tensor | None, grad_product: Tensor | None, grad_difference: Tensor | None
) -> Tensor | None:
    """The derivative of the overlap by p: a + b·sign(p−t) + c·t, with a, b, c per class."""
    terms = []
    if grad_difference is not None:
        terms.append((p - t).sign_().mul_(grad_difference[..., None]))
    if grad_product is not None:
        terms.append(t * grad_product[..., None])
    if grad_x is not None:
        terms.append(grad_x[..., None].expand_as(p))
    if not terms:
        return None
    slope = terms[0] if len(terms) > 1 else terms[0].clone()
    for term in terms[1:]:
        slope += term
    return slope
