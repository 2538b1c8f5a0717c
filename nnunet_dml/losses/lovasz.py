"""The Lovász-softmax loss, a baseline for hard labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_dml.losses._averaging import (
    Active,
    Averaging,
    Reduction,
    Sets,
    average,
    class_weight_tensor,
    conditions,
    peaks,
)
from nnunet_dml.losses._cardinalities import TINY, check_inputs, masked


def lovasz_softmax_loss(
    probs: Tensor,
    target: Tensor,
    *,
    reduction: Reduction = "batch",
    active: Active = "all",
    threshold: float = 0.01,
    class_weights: Sequence[float] | Tensor | None = None,
    log: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Lovász-softmax loss: the convex extension of the Jaccard loss of hard sets. For hard labels only.

        Δ = Σ_i e_(i) (J_i − J_(i−1)),  e = |x − y| sorted downwards, J_i = 1 − (|y| − tp_i) / (|y| + fp_i),

    tp_i and fp_i counting positives and negatives among the i largest errors, J_0 = 0. With predictions of 0
    and 1 it is the Jaccard loss. A set without positives costs its greatest prediction (the authors' code
    leaves such a class out, as `active="present"` does here).

    Values are not checked, it would stall a GPU: a soft target is taken as 1 above 0.5, and training on soft
    labels with it is not what the labels say.

    Args:
        probs: x, (B, C, *spatial) in [0, 1], any floating dtype; computed in float32 (float64 in float64).
        target: y, of the same shape, 0 or 1.
        reduction: As of `dice_semimetric_loss`, and so are the following.
        active: Which classes count.
        threshold: Of `active`.
        class_weights: One per channel.
        log: −log(1 − Δ) of each set, at most −log(1e-8).
        mask: (B, 1, *spatial), bool or 0/1; voxels that are 0 contribute nothing.

    Returns:
        A scalar in [0, 1]; 0 where no voxel is valid.

    Raises:
        TypeError: `probs` or `target` is not floating.
        ValueError: Shapes or devices do not match, or an option is out of range.

    Source: Berman, Triki, Blaschko, The Lovász-Softmax Loss, CVPR 2018.

    >>> import torch
    >>> x, y = torch.tensor([[[0.75, 0.5]]]), torch.tensor([[[1.0, 0.0]]])
    >>> lovasz_softmax_loss(x, y).item()  # 0.5 · (1 − 1/2) + 0.25 · (1 − 1/2)
    0.375
    """
    check_inputs("probs", probs, target, mask)
    averaging = Averaging(reduction, active, threshold)
    weights = class_weight_tensor(class_weights, target.shape[1], "target", target.device)
    x, y = masked(probs, target, mask)
    met = conditions(*peaks(x, y, averaging), averaging)
    error = (x - (y > 0.5).to(x.dtype)).abs()
    batch = images = None
    if "batch" in averaging.shares:
        flat = [t.transpose(0, 1).flatten(1) for t in (error, y > 0.5)]
        batch = Sets(_extension(*flat, log=log), None if met is None else met.amax(1).bool().all(0))
    if averaging.shares.keys() & {"image", "class"}:
        images = Sets(_extension(error, y > 0.5, log=log), None if met is None else met.bool().all(0))
    return average(batch, images, averaging, weights)


def _extension(error: Tensor, positive: Tensor, *, log: bool) -> Tensor:
    """The extension of the Jaccard loss at `error`, over the last axis. Linear once the order is known.

    Ignored voxels have no error and are no positives: they come last and change nothing.
    """
    order = error.detach().argsort(-1, descending=True)
    among = positive.gather(-1, order)
    # whole numbers: float32 stops counting at 2^24 voxels
    hits, misses = among.cumsum(-1), (~among).cumsum(-1)
    size = positive.sum(-1, keepdim=True)
    jaccard = 1 - (size - hits).to(error.dtype) / (size + misses).clamp_min(1).to(error.dtype)
    steps = jaccard.diff(dim=-1, prepend=torch.zeros_like(jaccard[..., :1]))
    loss = (error * torch.empty_like(steps).scatter_(-1, order, steps)).sum(-1)
    return -(1 - loss).clamp_min(TINY).log() if log else loss
