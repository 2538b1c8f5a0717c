"""Overlap losses on soft labels: Dice, Jaccard and Tversky, and the classic soft forms for comparison.

All of them take probabilities and targets (B, C, *spatial) in [0, 1] and return the mean over the classes
given; to leave out the background, leave out its channel. The options that all share are explained at
`dice_semimetric_loss`. See `_cardinalities` for the kernel and `_averaging` for the means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from nnunet_dml._checks import check_one_of
from nnunet_dml.losses._averaging import (
    Active,
    Averaging,
    Reduction,
    class_weight_tensor,
    compare,
    conditions,
    peaks,
)
from nnunet_dml.losses._cardinalities import Formula, Overlap, cardinalities, check_inputs, masked


def dice_semimetric_loss(
    probs: Tensor,
    target: Tensor,
    *,
    variant: Literal[1, 2] = 1,
    log: bool = False,
    reduction: Reduction = "batch",
    active: Active = "all",
    threshold: float = 0.01,
    class_weights: Sequence[float] | Tensor | None = None,
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
        log: −log(1 − Δ) of each set in place of Δ; finite, for `smooth` 0 with 1 − Δ at least 1e-8 voxels.
        reduction: "batch" sums over the batch first (nnU-Net's `batch_dice`), "image" averages over classes,
            then images, "class" over images, then classes; or weights of these, as {"batch": 1, "class": 1},
            normalised to sum one. The JML paper's mIoU^D, mIoU^I and mIoU^C (section 6.1).
        active: Which classes take part in the mean: "all"; "present", those that are the label's argmax at a
            valid voxel (where the channels sum to less than one, the rest competes, too) or above 0.5 there;
            "label" or "prob", those whose label or prediction is above `threshold` somewhere; "both", those
            that are both (the paper's code compares the sum of the two). Decided per compared set,
            without a gradient. Names of the JML paper (section 2.4.2, Table 7); the authors' code calls
            "label" PRESENT. An image without an active class is left out of the mean over images.
        threshold: Of `active`, in [0, 1).
        class_weights: One per channel, at least 0 and one of them above: the mean over active classes is
            weighted. A tensor's values are not checked.
        smooth: Added to numerator and denominator, at least 0, in voxels.
        mask: (B, 1, *spatial), bool or 0/1; voxels that are 0 contribute nothing.
        gather: With "batch", sum over the DDP ranks too, where `torch.distributed` is initialised, and decide
            there what is active; images are each rank's own.

    Returns:
        A scalar in [0, 1] (at least 0 with `log`). A class that is empty on both sides counts 0; where none
        is active it is 0 with a gradient of 0.

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
    formula = Formula(overlap, smooth=smooth, log=log)
    return _loss(probs, target, mask, formula, Averaging(reduction, active, threshold, gather), class_weights)


def jaccard_metric_loss(
    probs: Tensor,
    target: Tensor,
    *,
    variant: Literal[1, 2] = 1,
    log: bool = False,
    reduction: Reduction = "batch",
    active: Active = "all",
    threshold: float = 0.01,
    class_weights: Sequence[float] | Tensor | None = None,
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
        log: As of `dice_semimetric_loss`, as the rest, the result and the errors.
        reduction: What a set is, and the order of the means.
        active: Which classes take part.
        threshold: Of `active`.
        class_weights: One per channel.
        smooth: Added to numerator and denominator, at least 0, in voxels.
        mask: (B, 1, *spatial), bool or 0/1.
        gather: With "batch", sum over the DDP ranks too.

    Source: Wang et al., Jaccard Metric Losses, NeurIPS 2023, Eqs. 7 and 8.

    >>> import torch
    >>> half = torch.full((1, 1, 4), 0.5)
    >>> round(jaccard_metric_loss(torch.ones(1, 1, 4), half).item(), 4)
    0.5
    """
    check_one_of("variant", variant, (1, 2))
    overlap = Overlap.DIFFERENCE if variant == 1 else Overlap.BOTH
    formula = Formula(overlap, 1.0, 1.0, smooth=smooth, log=log)
    return _loss(probs, target, mask, formula, Averaging(reduction, active, threshold, gather), class_weights)


def compatible_tversky_loss(
    probs: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float = 1.0,
    power: float = 1.0,
    log: bool = False,
    reduction: Reduction = "batch",
    active: Active = "all",
    threshold: float = 0.01,
    class_weights: Sequence[float] | Tensor | None = None,
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
        beta: Weight of false negatives, at least 0; one of the two is above.
        gamma: The paper's γ, at least 1: the loss of each class is raised to 1/γ, not to γ as in some code.
            Above 1 its slope grows without bound towards `probs` = `target`, where it is taken to be 0.
        power: The exponent of the authors' code, at least 1: Δ^power. Only one of `gamma` and `power` may differ
            from 1.
        log: As of `dice_semimetric_loss`, as the rest, the result and the errors.
        reduction: What a set is, and the order of the means.
        active: Which classes take part.
        threshold: Of `active`.
        class_weights: One per channel.
        smooth: Added to numerator and denominator, at least 0, in voxels.
        mask: (B, 1, *spatial), bool or 0/1.
        gather: With "batch", sum over the DDP ranks too.

    Source: Wang et al., Dice Semimetric Losses, MICCAI 2023, Eqs. 27 and 33.

    >>> import torch
    >>> x, y = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
    >>> round(compatible_tversky_loss(x, y, alpha=0.3, beta=0.7).item(), 4)  # 1 − 1 / (1 + 0.3)
    0.2308
    """
    formula = Formula(Overlap.DIFFERENCE, alpha, beta, gamma, power, smooth, log)
    return _loss(probs, target, mask, formula, Averaging(reduction, active, threshold, gather), class_weights)


def soft_dice_loss(
    probs: Tensor,
    target: Tensor,
    *,
    log: bool = False,
    reduction: Reduction = "batch",
    active: Active = "all",
    threshold: float = 0.01,
    class_weights: Sequence[float] | Tensor | None = None,
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
    formula = Formula(Overlap.SOFT, smooth=smooth, log=log)
    return _loss(probs, target, mask, formula, Averaging(reduction, active, threshold, gather), class_weights)


def soft_jaccard_loss(
    probs: Tensor,
    target: Tensor,
    *,
    norm: Literal[1, 2] = 1,
    log: bool = False,
    reduction: Reduction = "batch",
    active: Active = "all",
    threshold: float = 0.01,
    class_weights: Sequence[float] | Tensor | None = None,
    smooth: float = 1e-5,
    mask: Tensor | None = None,
    gather: bool = False,
) -> Tensor:
    """The classic soft Jaccard loss, for comparison: in L1 it is *not* least at `probs` = `target` if soft.

        Δ_SJL = 1 − <x,y> / (|x|+|y|−<x,y>), in L2 with Σx², Σy² for |x|, |y|

    `jaccard_metric_loss` equals the L1 form on hard labels.

    Args:
        probs: x, (B, C, *spatial) in [0, 1].
        target: y, of the same shape and range.
        norm: 1 or 2; 2 is least at `probs` = `target`, but flat there.
        log: As of `dice_semimetric_loss`, as the rest, the result and the errors.
        reduction: What a set is, and the order of the means.
        active: Which classes take part.
        threshold: Of `active`.
        class_weights: One per channel.
        smooth: Added to numerator and denominator, at least 0, in voxels.
        mask: (B, 1, *spatial), bool or 0/1.
        gather: With "batch", sum over the DDP ranks too.

    Source: Wang et al., Jaccard Metric Losses, NeurIPS 2023, Eqs. 2 and 3.

    >>> import torch
    >>> half = torch.full((1, 1, 4), 0.5)
    >>> round(soft_jaccard_loss(half, half).item(), 4), soft_jaccard_loss(half, half, norm=2).item()
    (0.6667, 0.0)
    """
    check_one_of("norm", norm, (1, 2))
    overlap = Overlap.SOFT if norm == 1 else Overlap.SOFT_SQUARED
    formula = Formula(overlap, 1.0, 1.0, smooth=smooth, log=log)
    return _loss(probs, target, mask, formula, Averaging(reduction, active, threshold, gather), class_weights)


def _loss(
    probs: Tensor,
    target: Tensor,
    mask: Tensor | None,
    formula: Formula,
    averaging: Averaging,
    class_weights: Sequence[float] | Tensor | None,
) -> Tensor:
    """Check, measure, compare, average: the way of every loss above."""
    check_inputs("probs", probs, target, mask)
    weights = class_weight_tensor(class_weights, target.shape[1], "target", target.device)
    x, y = masked(probs, target, mask)
    met = conditions(*peaks(x, y, averaging), averaging)
    return compare(cardinalities(x, y, formula.measured), met, formula, averaging, weights)
