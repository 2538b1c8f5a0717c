"""Probabilities, cross-entropy and cardinalities in one pass over the voxels, with the gradient written out.

Cross-entropy and overlap need the same softmax (or sigmoid); computed apart, each keeps several arrays of the
size of the logits for the backward pass. Here nothing is kept but the inputs: the forward pass goes through
the volume in pieces and leaves a few sums, the backward pass goes through it again and writes the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from nnunet_dml.losses import _two_classes
from nnunet_dml.losses._averaging import Averaging, peaks
from nnunet_dml.losses._cardinalities import (
    Cardinalities,
    Overlap,
    assemble,
    cardinalities,
    masked,
    working_dtype,
)

Activation = Literal["softmax", "sigmoid"]

# Elements of a piece. On the CPU the intermediate arrays of a piece stay near the cache, yet there are few
# enough pieces that waiting for a busy machine's threads does not add up; on an accelerator they only bound
# the memory.
PIECE_CPU = 1 << 19
PIECE_ACCELERATOR = 1 << 25


class LogitSums(NamedTuple):
    """What the losses need of the probabilities and the target, over the valid voxels; None: not asked for."""

    entropy: Tensor | None  # (C,), Σ −y_c log p_c; of the sigmoid Σ −y_c log p_c − (1 − y_c) log(1 − p_c)
    mass: Tensor | None  # (C,), Σ y_c
    sums: Cardinalities | None  # (B, C − first) each
    label_peaks: Tensor | None  # (B, C − first), see `label_peaks`
    prob_peaks: Tensor | None  # (B, C − first), the greatest probability


class _Task(NamedTuple):
    """What is asked for."""

    activation: Activation
    overlap: Overlap | None
    averaging: Averaging
    first: int
    cross_entropy: bool
    mass: bool

    def is_binary(self, classes: int) -> bool:
        """Whether there are a background and one class that is asked for."""
        return self.activation == "softmax" and (classes, self.first) == (2, 1)


def logit_sums(
    logits: Tensor,
    target: Tensor,
    *,
    activation: Activation = "softmax",
    mask: Tensor | None,
    overlap: Overlap | None = None,
    averaging: Averaging | None = None,
    first: int = 0,
    cross_entropy: bool = True,
    mass: bool = False,
) -> LogitSums:
    """Cross-entropy, cardinalities and peaks, computed in float32 (float64 in float64).

    Args:
        logits: (B, C, *spatial).
        target: (B, C, *spatial) in [0, 1]. Where it wants a gradient, autograd does the work, with autograd's
            memory.
        activation: What makes probabilities of logits: "softmax" over the classes, "sigmoid" of each.
        mask: None or (B, 1, *spatial), 0 where a voxel is ignored; what the target holds there has no effect.
        overlap: How the intersection is measured, None for no cardinalities and no peaks.
        averaging: Says which peaks are wanted.
        first: First class of cardinalities and peaks, 1 to leave out the background.
        cross_entropy: Whether it is wanted.
        mass: Whether it is wanted.
    """
    task = _Task(activation, overlap, averaging or Averaging(), first, cross_entropy, mass)
    if target.requires_grad:
        return _by_autograd(logits, target, mask, task)
    ignored = None if mask is None else ~mask.bool().flatten(2)
    entropy, total_mass, x, y, product, difference, label, prob = _LogitSums.apply(
        logits.flatten(2), target.flatten(2), ignored, task
    )
    sums = None if overlap is None else assemble(x, y, product=product, difference=difference)
    return LogitSums(entropy, total_mass, sums, label, prob)


def _by_autograd(logits: Tensor, target: Tensor, mask: Tensor | None, task: _Task) -> LogitSums:
    z, t = masked(logits, target, mask)
    entropy = _entropy(z, t, task.activation)
    p = z.softmax(1) if task.activation == "softmax" else z.sigmoid()
    if mask is not None:
        ignored = ~mask.bool().flatten(2)
        entropy, p = entropy.masked_fill(ignored, 0), p.masked_fill(ignored, 0)
    total = entropy.sum((0, 2)) if task.cross_entropy else None
    mass = t.sum((0, 2)) if task.mass else None
    if task.overlap is None:
        return LogitSums(total, mass, None, None, None)
    p, t = p[:, task.first :], t[:, task.first :]
    label, prob = peaks(p, t, task.averaging)
    return LogitSums(total, mass, cardinalities(p, t, task.overlap), label, prob)


def _entropy(z: Tensor, t: Tensor, activation: Activation) -> Tensor:
    """Cross-entropy per voxel and class."""
    if activation == "softmax":
        return -torch.log_softmax(z, 1) * t
    return binary_cross_entropy_with_logits(z, t, reduction="none")


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


class _LogitSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, ignored: Tensor | None, task: _Task
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(logits, target, ignored)
        ctx.task = task
        ctx.set_materialize_grads(False)

        dtype, overlap = working_dtype(logits, target), task.overlap
        batch, classes = logits.shape[:2]
        entropy = logits.new_zeros(classes, dtype=dtype) if task.cross_entropy else None
        mass = logits.new_zeros(classes, dtype=dtype) if task.mass else None

        def zeros(wanted: bool) -> Tensor | None:
            return logits.new_zeros((batch, classes - task.first), dtype=dtype) if wanted else None

        x, y = zeros(overlap is not None), zeros(overlap is not None)
        product = zeros(overlap not in (None, Overlap.DIFFERENCE))
        difference = zeros(overlap in (Overlap.DIFFERENCE, Overlap.MINIMUM, Overlap.BOTH))
        label = zeros(overlap is not None and task.averaging.reads_label)
        prob = zeros(overlap is not None and task.averaging.reads_prob)

        for part in _pieces(logits):
            z, t = _piece(logits, target, ignored, part)
            if mass is not None:
                mass += t.sum((0, 2))
            p = _probabilities(z, t, None if ignored is None else ignored[..., part], task, entropy)
            if x is None or y is None:
                continue
            t = t[:, task.first :]
            found = peaks(p, t, task.averaging)
            for peak, here in zip((label, prob), found, strict=True):
                if peak is not None and here is not None:
                    torch.maximum(peak, here, out=peak)
            if product is not None:
                product += (torch.minimum(p, t) if overlap is Overlap.MINIMUM else p * t).sum(2)
            if overlap is Overlap.SOFT_SQUARED:
                p, t = p.square(), t.square()
            x += p.sum(2)
            y += t.sum(2)
            if difference is not None:
                difference += p.sub_(t).abs_().sum(2)
        ctx.mark_non_differentiable(*(t for t in (mass, y, label, prob) if t is not None))
        return entropy, mass, x, y, product, difference, label, prob

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, target, ignored = ctx.saved_tensors
        task: _Task = ctx.task
        grad_entropy, _, grad_x, _, grad_product, grad_difference, _, _ = grads
        if task.overlap is Overlap.SOFT_SQUARED and grad_x is not None:
            grad_x = 2 * grad_x
        grad = torch.empty_like(logits)

        for part in _pieces(logits):
            z, t = _piece(logits, target, ignored, part)
            out = _gradient(z, t, grad_entropy, (grad_x, grad_product, grad_difference), task)
            if ignored is not None:
                out.masked_fill_(ignored[..., part], 0)
            grad[..., part] = out
        return grad, None, None, None


def _probabilities(
    z: Tensor, t: Tensor, ignored: Tensor | None, task: _Task, entropy: Tensor | None
) -> Tensor:
    """Probabilities of a piece from class `first` on, 0 at ignored voxels; the cross-entropy is added to what it was."""
    if task.is_binary(z.shape[1]):
        p = _two_classes.foreground(z, t, entropy)
        return p if ignored is None else p.masked_fill_(ignored, 0)
    if entropy is None:
        p = z.softmax(1) if task.activation == "softmax" else z.sigmoid()
    elif task.activation == "softmax":
        log_p = torch.log_softmax(z, 1)
        p = log_p.exp()
        entropy -= log_p.mul_(t).sum((0, 2))  # the target is 0 at ignored voxels
    else:
        p = z.sigmoid()
        products = _entropy(z, t, "sigmoid")
        entropy += (products if ignored is None else products.masked_fill_(ignored, 0)).sum((0, 2))
    p = p[:, task.first :]
    return p if ignored is None else p.masked_fill_(ignored, 0)


def _gradient(
    z: Tensor,
    t: Tensor,
    grad_entropy: Tensor | None,
    grads: tuple[Tensor | None, Tensor | None, Tensor | None],
    task: _Task,
) -> Tensor:
    """The derivative by the logits of a piece; `grads` are those of Σ p, Σ p·y and Σ |p − y|."""
    if task.is_binary(z.shape[1]):
        p = _two_classes.foreground(z, t, None)
        return _two_classes.gradient(p, t, grad_entropy, _slope(p, t[:, 1:], *grads, task.overlap))
    p = z.softmax(1) if task.activation == "softmax" else z.sigmoid()
    slope = _slope(p[:, task.first :], t[:, task.first :], *grads, task.overlap)
    chain = _through_softmax if task.activation == "softmax" else _through_sigmoid
    return chain(p, t, grad_entropy, slope, task.first)


def _through_softmax(
    p: Tensor, t: Tensor, grad_entropy: Tensor | None, slope: Tensor | None, first: int
) -> Tensor:
    """The derivative by the logits: −t·g + p·Σ t·g of the entropy, p·(slope − Σ p·slope) of the overlap."""
    scale: Tensor | None = None  # of p, per voxel
    out = torch.zeros_like(p) if grad_entropy is None else t * -grad_entropy[:, None]
    if grad_entropy is not None:
        scale = out.sum(1, keepdim=True).neg_()
    if slope is not None:
        slope *= p[:, first:]
        out[:, first:] += slope
        pull = slope.sum(1, keepdim=True)
        scale = -pull if scale is None else scale - pull
    return out if scale is None else out.addcmul_(p, scale)


def _through_sigmoid(
    p: Tensor, t: Tensor, grad_entropy: Tensor | None, slope: Tensor | None, first: int
) -> Tensor:
    """The derivative by the logits: (p − t)·g of the entropy, slope·p·(1 − p) of the overlap."""
    out = torch.zeros_like(p) if grad_entropy is None else (p - t).mul_(grad_entropy[:, None])
    if slope is not None:
        p = p[:, first:]
        out[:, first:] += slope.mul_(p).mul_(1 - p)
    return out


def _slope(
    p: Tensor,
    t: Tensor,
    grad_x: Tensor | None,
    grad_product: Tensor | None,
    grad_difference: Tensor | None,
    overlap: Overlap | None,
) -> Tensor | None:
    """The derivative of the overlap by p: a (or a·p) + b·sign(p−t) + c·t (or c·[p<t]), a, b, c per class."""
    terms = []
    if grad_difference is not None:
        terms.append((p - t).sign_().mul_(grad_difference[..., None]))
    if grad_product is not None:
        # at p = t the minimum's slope is 1/2
        share = (1 - (p - t).sign_()).mul_(0.5) if overlap is Overlap.MINIMUM else t
        terms.append(share * grad_product[..., None])
    if grad_x is not None:
        a = grad_x[..., None]
        terms.append(p * a if overlap is Overlap.SOFT_SQUARED else a.expand_as(p))
    if not terms:
        return None
    slope = terms[0] if len(terms) > 1 else terms[0].clone()
    for term in terms[1:]:
        slope += term
    return slope
