"""Overlap losses on soft labels: Dice, Jaccard and Tversky, and the classic soft forms for comparison.

All of them take probabilities and targets (B, C, *spatial) in [0, 1] and return the mean over the classes
given; to leave out the background, leave out its channel. See `_cardinalities` for the kernel they share.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from nnunet_dml._checks import check_one_of
from nnunet_dml.losses._cardinalities import (
    Overlap,
    cardinalities,
    check_inputs,
    check_options,
    reduce_samples,
    tversky,
)

Reduction = Literal["batch", "image"]


def dice_semimetric_loss(
    probs: Tensor,
    target: Tensor,
    *,
    variant: Literal[1, 2] = 1,
    reduction: Reduction = "batch",
    smooth: float = 1e-5,
    mask: Tensor | None = None,
    gather: bool = False,
) -> Tensor:
    """Dice semimetric loss, least (0) exactly at `probs` = `target`, soft or hard.

        Δ_DML,1 = 1 − (|x|+|y|−|x−y|) / (|x|+|y|)        Δ_DML,2 = 1 − 2<x,y> / (2<x,y> + |x−y|)

    `smooth` is added to numerator and denominator, as in nnU-Net: on hard labels either variant equals 1 plus
    the value of its `MemoryEfficientSoftDiceLoss`.

    Args:
        probs: x, (B, C, *spatial) in [0, 1], any floating dtype; summed in float32 (float64 in float64).
        target: y, of the same shape and range.
        variant: 1 or 2; the same on hard labels, 1 is less or equal on soft ones and what the paper advises.
        reduction: "batch" sums over the batch first (nnU-Net's `batch_dice`), "image" averages over images.
        smooth: Added to numerator and denominator, at least 0, in voxels.
        mask: (B, 1, *spatial), bool or 0/1; voxels that are 0 contribute nothing.
        gather: With "batch", sum over the DDP ranks too, where `torch.distributed` is initialised.

    Returns:
        A scalar in [0, 1], the mean over the classes (and images). A class that is empty on both sides counts
        0.

    Raises:
        TypeError: `probs` or `target` is not floating.
        ValueError: Shapes or devices do not match, or an option is out of range.

    Source: Wang et al., Dice Semimetric Losses, MICCAI 2023, Eq. 4.

    >>> import torch
    >>> half = torch.full((1, 1, 4), 0.5)
    >>> dice_semimetric_loss(half, half).item()
    0.0
    >>> round(dice_semimetric_loss(torch.ones(1, 1, 4), half).item(), 4)
    0.3333
    """
    check_one_of("variant", variant, (1, 2))
    overlap = Overlap.DIFFERENCE if variant == 1 else Overlap.BOTH
    return _loss(probs, target, overlap, 0.5, 0.5, 1.0, reduction, smooth, mask, gather)


def jaccard_metric_loss(
    probs: Tensor,
    target: Tensor,
    *,
    variant: Literal[1, 2] = 1,
    reduction: Reduction = "batch",
    smooth: float = 1e-5,
    mask: Tensor | None = None,
    gather: bool = False,
) -> Tensor:
    """Jaccard metric loss, least (0) exactly at `probs` = `target`, soft or hard; a metric.

        Δ_JML,1 = 1 − (|x|+|y|−|x−y|) / (|x|+|y|+|x−y|)        Δ_JML,2 = 1 − <x,y> / (<x,y> + |x−y|)

    Per class Δ_DML = Δ_JML / (2 − Δ_JML), at any `smooth`: s is added to numerator and denominator of the
    first formula, and of the second after both are doubled.

    Args:
        probs: x, (B, C, *spatial) in [0, 1], any floating dtype; summed in float32 (float64 in float64).
        target: y, of the same shape and range.
        variant: 1 or 2; the same on hard labels, 1 is less or equal on soft ones and what the paper advises.
        reduction: "batch" sums over the batch first, "image" averages over images.
        smooth: Added to numerator and denominator, at least 0, in voxels.
        mask: (B, 1, *spatial), bool or 0/1; voxels that are 0 contribute nothing.
        gather: With "batch", sum over the DDP ranks too, where `torch.distributed` is initialised.

    Returns:
        A scalar in [0, 1], the mean over the classes (and images). A class that is empty on both sides counts
        0.

    Raises:
        TypeError: `probs` or `target` is not floating.
        ValueError: Shapes or devices do not match, or an option is out of range.

    Source: Wang et al., Jaccard Metric Losses, NeurIPS 2023, Eqs. 7 and 8.

    >>> import torch
    >>> half = torch.full((1, 1, 4), 0.5)
    >>> round(jaccard_metric_loss(torch.ones(1, 1, 4), half).item(), 4)
    0.5
    """
    check_one_of("variant", variant, (1, 2))
    overlap = Overlap.DIFFERENCE if variant == 1 else Overlap.BOTH
    return _loss(probs, target, overlap, 1.0, 1.0, 1.0, reduction, smooth, mask, gather)


def compatible_tversky_loss(
    probs: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float = 1.0,
    reduction: Reduction = "batch",
    smooth: float = 1e-5,
    mask: Tensor | None = None,
    gather: bool = False,
) -> Tensor:
    """Compatible (focal) Tversky loss, least (0) exactly at `probs` = `target` where `alpha`, `beta` > 0.

        Δ_CTL = 1 − v / (2α|x| + 2β|y| + (1−α−β)v),  v = |x|+|y|−|x−y|;        focal: Δ_CTL^(1/γ)

    α = β = 0.5 is Δ_DML,1, α = β = 1 is Δ_JML,1.

    Args:
        probs: x, (B, C, *spatial) in [0, 1], any floating dtype; summed in float32 (float64 in float64).
        target: y, of the same shape and range.
        alpha: Weight of false positives, at least 0.
        beta: Weight of false negatives, at least 0.
        gamma: The paper's γ, at least 1: the loss of each class is raised to 1/γ, not to γ as in some code.
            Above 1 its slope grows without bound towards `probs` = `target`, where it is taken to be 0.
        reduction: "batch" sums over the batch first, "image" averages over images.
        smooth: Added to numerator and denominator, at least 0, in voxels.
        mask: (B, 1, *spatial), bool or 0/1; voxels that are 0 contribute nothing.
        gather: With "batch", sum over the DDP ranks too, where `torch.distributed` is initialised.

    Returns:
        A scalar in [0, 1], the mean over the classes (and images). A class that is empty on both sides counts
        0.

    Raises:
        TypeError: `probs` or `target` is not floating.
        ValueError: Shapes or devices do not match, or an option is out of range.

    Source: Wang et al., Dice Semimetric Losses, MICCAI 2023, Eqs. 27 and 33.

    >>> import torch
    >>> x, y = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
    >>> round(compatible_tversky_loss(x, y, alpha=0.3, beta=0.7).item(), 4)  # 1 − 1 / (1 + 0.3)
    0.2308
    """
    return _loss(probs, target, Overlap.DIFFERENCE, alpha, beta, gamma, reduction, smooth, mask, gather)


def soft_dice_loss(
    probs: Tensor,
    target: Tensor,
    *,
    reduction: Reduction = "batch",
    smooth: float = 1e-5,
    mask: Tensor | None = None,
    gather: bool = False,
) -> Tensor:
    """The classic soft Dice loss, for comparison: on soft targets it is *not* least at `probs` = `target`.

        Δ_SDL = 1 − 2<x,y> / (|x|+|y|)

    Arguments, result and errors are those of `dice_semimetric_loss`, which equals it on hard labels; here the
    value at `probs` = `target` is above 0 and the gradient pushes towards 0 and 1.

    Source: Wang et al., Dice Semimetric Losses, MICCAI 2023, Eq. 1.

    >>> import torch
    >>> half = torch.full((1, 1, 4), 0.5)
    >>> round(soft_dice_loss(half, half).item(), 4)
    0.5
    >>> round(soft_dice_loss(torch.ones(1, 1, 4), half).item(), 4)
    0.3333
    """
    return _loss(probs, target, Overlap.SOFT, 0.5, 0.5, 1.0, reduction, smooth, mask, gather)


def soft_jaccard_loss(
    probs: Tensor,
    target: Tensor,
    *,
    norm: Literal[1, 2] = 1,
    reduction: Reduction = "batch",
    smooth: float = 1e-5,
    mask: Tensor | None = None,
    gather: bool = False,
) -> Tensor:
    """The classic soft Jaccard loss, for comparison: in L1 it is *not* least at `probs` = `target` if soft.

        Δ_SJL = 1 − <x,y> / (|x|+|y|−<x,y>), in L2 with Σx², Σy² for |x|, |y|

    Arguments, result and errors are those of `jaccard_metric_loss`, which equals the L1 form on hard labels.

    Args:
        probs: x, (B, C, *spatial) in [0, 1].
        target: y, of the same shape and range.
        norm: 1 or 2; 2 is least at `probs` = `target`, but flat there.
        reduction: See `jaccard_metric_loss`, as the rest.
        smooth: At least 0.
        mask: (B, 1, *spatial), bool or 0/1.
        gather: Sum over the DDP ranks too.

    Source: Wang et al., Jaccard Metric Losses, NeurIPS 2023, Eqs. 2 and 3.

    >>> import torch
    >>> half = torch.full((1, 1, 4), 0.5)
    >>> round(soft_jaccard_loss(half, half).item(), 4), soft_jaccard_loss(half, half, norm=2).item()
    (0.6667, 0.0)
    """
    check_one_of("norm", norm, (1, 2))
    overlap = Overlap.SOFT if norm == 1 else Overlap.SOFT_SQUARED
    return _loss(probs, target, overlap, 1.0, 1.0, 1.0, reduction, smooth, mask, gather)


def _loss(
    probs: Tensor,
    target: Tensor,
    overlap: Overlap,
    alpha: float,
    beta: float,
    gamma: float,
    reduction: str,
    smooth: float,
    mask: Tensor | None,
    gather: bool,
) -> Tensor:
    """Check, measure, reduce, compare, average: the way of every loss above."""
    check_inputs("probs", probs, target, mask)
    check_options(reduction=reduction, smooth=smooth, alpha=alpha, beta=beta, gamma=gamma)
    sums = reduce_samples(
        cardinalities(probs, target, overlap, mask=mask), reduction=reduction, gather=gather
    )
    return tversky(sums, alpha=alpha, beta=beta, gamma=gamma, smooth=smooth).mean()
