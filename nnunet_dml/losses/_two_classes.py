"""The softmax of two classes: one probability says all, and the derivatives by the two logits are opposite.

Half the arrays of the general way, for what is most common: one foreground class and its background.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def foreground(logits: Tensor, target: Tensor, entropy: Tensor | None) -> Tensor:
    """The probability of class 1, (B, 1, N); Σ −y_c log p_c is added to `entropy`, (2,), where it is wanted.

    Args:
        logits: (B, 2, N).
        target: (B, 2, N), 0 at ignored voxels.
        entropy: (2,) or None.
    """
    difference = logits[:, 1:] - logits[:, :1]
    if entropy is None:
        return difference.sigmoid_()
    surprise = logsigmoid(difference.abs()).neg_()  # −log of the greater probability, exact near 1, too
    least = surprise + difference.clamp(min=0)  # −log p of class 0
    entropy[0] += (least * target[:, :1]).sum()
    surprise += difference.clamp_(max=0).neg_()  # of class 1
    entropy[1] += torch.mul(surprise, target[:, 1:], out=least).sum()
    return surprise.neg_().exp_()


def gradient(p: Tensor, target: Tensor, grad_entropy: Tensor | None, slope: Tensor | None) -> Tensor:
    """The derivative by the logits, (B, 2, N): p·Σ y·g − y₁·g₁ of the entropy, slope·p·(1 − p) of the overlap."""
    out = torch.zeros_like(p)
    if grad_entropy is not None:
        wanted = target[:, 1:] * grad_entropy[1]
        out = torch.addcmul(wanted, target[:, :1], grad_entropy[0]).mul_(p).sub_(wanted)
    if slope is not None:
        out += slope.mul_(p).mul_(1 - p)
    return torch.cat((-out, out), 1)
