"""The softmax of two classes: one probability says all, and the derivatives by the two logits are opposite.

Half the arrays of the general way, for what is most common: one foreground class and its background.
"""

from __future__ import annotations

import torch
from torch import Tensor

sigmoid_backward = torch.ops.aten.sigmoid_backward


def foreground(logits: Tensor, target: Tensor, entropy: Tensor | None) -> Tensor:
    """The probability of class 1, (B, 1, N); Σ −y_c log p_c is added to `entropy`, (2,), where it is wanted.

    Args:
        logits: (B, 2, N).
        target: (B, 2, N), 0 at ignored voxels.
        entropy: (2,) or None.
    """
    difference = logits[:, 1:] - logits[:, :1]
    if entropy is not None:
        # log of the greater probability: as exact as log_softmax, and half the work of logsigmoid
        log_greater = difference.abs().sigmoid_().log_()
        excess = difference.clamp(min=0)
        for label, beyond in ((1, excess - difference), (0, excess)):
            entropy[label] += beyond.sub_(log_greater).mul_(target[:, label : label + 1]).sum()
    return difference.sigmoid_()


def gradient(p: Tensor, target: Tensor, grad_entropy: Tensor | None, slope: Tensor | None) -> Tensor:
    """The derivative by the logits, (B, 2, N): p·Σ y·g − y₁·g₁ of the entropy, slope·p·(1 − p) of the overlap."""
    out = None if slope is None else sigmoid_backward(slope, p)
    if grad_entropy is not None:
        wanted = target[:, 1:] * grad_entropy[1]
        entropy = torch.addcmul(wanted, target[:, :1], grad_entropy[0]).mul_(p).sub_(wanted)
        out = entropy if out is None else out.add_(entropy)
    out = torch.zeros_like(p) if out is None else out
    return torch.cat((-out, out), 1)
