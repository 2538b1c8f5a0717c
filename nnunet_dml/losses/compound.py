"""Cross-entropy on soft labels, and cross-entropy plus overlap as nnU-Net trains with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nnunet_dml._checks import check_one_of, check_range
from nnunet_dml.losses._cardinalities import (
    Overlap,
    cardinalities,
    check_inputs,
    check_options,
    reduce_samples,
    tversky,
    working_dtype,
)
from nnunet_dml.losses._softmax_sums import SoftmaxSums, softmax_sums
from nnunet_dml.losses.overlap import Reduction

OverlapName = Literal["dml", "jml", "ctl", "sdl", "sjl"]


def one_hot(labels: Tensor, num_classes: int, *, ignore_label: int | None = None) -> Tensor:
    """Integer labels as one channel per class.

    Args:
        labels: (B, 1, *spatial), integer dtype, or floating as nnU-Net's loader gives them; values 0 … C − 1
            or `ignore_label`.
        num_classes: C, at least 1, the background included.
        ignore_label: Voxels of this label are 0 in all channels; pass `labels != ignore_label` as `mask` too.

    Returns:
        (B, C, *spatial), float32, 0 or 1. A label outside 0 … C − 1 is 0 in all channels: labels are not
        checked, it would stall a GPU.

    Raises:
        TypeError: `labels` is bool or complex.
        ValueError: `labels` has no channel axis of length 1, or `num_classes` is below 1.

    >>> import torch
    >>> one_hot(torch.tensor([[[0, 2, 9]]]), 3, ignore_label=9).tolist()
    [[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
    """
    if labels.dtype == torch.bool or labels.is_complex():
        raise TypeError(f"Expected `labels` of an integer dtype, got {labels.dtype}.")
    if labels.ndim < 3 or labels.shape[1] != 1:
        raise ValueError(f"Expected `labels` of shape (B, 1, *spatial), got {tuple(labels.shape)}.")
    if num_classes < 1:
        raise ValueError(f"Expected argument `num_classes` to be at least 1, got {num_classes}.")
    classes = torch.arange(num_classes, device=labels.device).view(-1, *[1] * (labels.ndim - 2))
    hot = labels == classes
    if ignore_label is not None:
        hot &= labels != ignore_label
    return hot.float()


def soft_cross_entropy(logits: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Cross-entropy against a distribution per voxel: the mean over the valid voxels of −Σ_c y_c log p_c.

    Args:
        logits: (B, C, *spatial), any floating dtype; the softmax is taken in float32 (float64 in float64).
        target: y, (B, C, *spatial) in [0, 1]. It gets no gradient unless it asks for one.
        mask: (B, 1, *spatial), bool or 0/1; voxels that are 0 contribute nothing.

    Returns:
        A scalar, at least 0; 0 where no voxel is valid.

    Raises:
        TypeError: `logits` or `target` is not floating.
        ValueError: Shapes or devices do not match.

    >>> import torch
    >>> round(soft_cross_entropy(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 0.5)).item(), 4)  # log 2
    0.6931
    """
    check_inputs("logits", logits, target, mask)
    sums = _sums(logits, target, mask=mask, overlap=None, first=0, cross_entropy=True)
    assert sums.cross_entropy is not None
    return _mean_over_voxels(sums.cross_entropy, logits, mask)


class CrossEntropyOverlapLoss(nn.Module):
    """Cross-entropy plus overlap on logits: weight_ce · CE + weight_overlap · (Δ − 1).

    As in nnU-Net the overlap enters as minus the score, hence Δ − 1, and the value may be negative. On hard
    labels, with weights 1 and 1, "dml" equals nnU-Net's `DC_and_CE_loss` with its Dice of `batch_dice` and
    `smooth` (without background), with and without an ignore label. The default weights are the paper's 1:3
    at nnU-Net's total of 2.

    Args:
        overlap: "dml" Dice semimetric, "jml" Jaccard metric, "ctl" compatible Tversky, "sdl" and "sjl" the
            classic soft Dice and Jaccard (for comparison; wrong on soft labels).
        weight_ce: At least 0; at 0 the term is not computed.
        weight_overlap: At least 0; at 0 the term is not computed.
        background: Whether the first class takes part in the overlap.
        variant: Of "dml" and "jml", 1 or 2.
        alpha: Of "ctl", weight of false positives.
        beta: Of "ctl", weight of false negatives.
        gamma: Of "ctl", the paper's γ ≥ 1 in Δ^(1/γ).
        reduction: "batch" (nnU-Net's `batch_dice`) or "image".
        smooth: Added to numerator and denominator of the overlap, in voxels.
        gather: With "batch", sum the overlap's sets over the DDP ranks, where `torch.distributed` is
            initialised.

    Raises:
        ValueError: An option is out of range, or set for an overlap that does not have it.

    Source: Wang et al., Dice Semimetric Losses, MICCAI 2023, section 3.2.

    >>> import torch
    >>> target = torch.full((1, 2, 4), 0.5)
    >>> loss = CrossEntropyOverlapLoss("dml", weight_ce=1, weight_overlap=1)
    >>> round(loss(torch.zeros(1, 2, 4), target).item(), 4)  # log 2 + (0 − 1)
    -0.3069
    """

    def __init__(
        self,
        overlap: OverlapName = "dml",
        *,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        weight_ce: float = 0.5,
        weight_overlap: float = 1.5,
        background: bool = False,
        variant: Literal[1, 2] = 1,
        norm: Literal[1, 2] = 1,
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float = 1.0,
        power: float = 1.0,
        log: bool = False,
        reduction: Reduction = "batch",
        active: Literal["all", "present", "prob", "label", "both"] = "all",
        threshold: float = 0.01,
        class_weights: Sequence[float] | None = None,
        smooth: float = 1e-5,
        gather: bool = False,
    ) -> None:
        super().__init__()
        if (activation, norm, power, log, active, class_weights) != ("softmax", 1, 1.0, False, "all", None):
            raise NotImplementedError("Only the defaults of the new options are read yet.")
        check_one_of("overlap", overlap, ("dml", "jml", "ctl", "sdl", "sjl"))
        check_one_of("variant", variant, (1, 2))
        check_range("weight_ce", weight_ce, 0.0, float("inf"), open_high=True)
        check_range("weight_overlap", weight_overlap, 0.0, float("inf"), open_high=True)
        check_options(reduction=reduction, smooth=smooth, alpha=alpha, beta=beta, gamma=gamma)
        if weight_ce == 0 and weight_overlap == 0:
            raise ValueError(
                "Expected `weight_ce` or `weight_overlap` above 0, got 0 for both: nothing would be learnt."
            )
        if overlap != "ctl" and (alpha, beta, gamma) != (0.5, 0.5, 1.0):
            raise ValueError(f"`alpha`, `beta` and `gamma` belong to overlap='ctl', got overlap={overlap!r}.")
        if overlap not in ("dml", "jml") and variant != 1:
            raise ValueError(f"`variant` 2 belongs to overlap='dml' and 'jml', got overlap={overlap!r}.")
        if overlap in ("jml", "sjl"):
            alpha = beta = 1.0
        self.overlap = overlap
        self.weight_ce, self.weight_overlap = float(weight_ce), float(weight_overlap)
        self.background = background
        self.variant: Literal[1, 2] = variant
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.reduction: Reduction = reduction
        self.smooth = smooth
        self.gather = gather

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (B, C, *spatial), C ≥ 2 unless `background`; any floating dtype, softmax in float32 at
                least.
            target: (B, C, *spatial) in [0, 1], soft or one-hot, background first.
            mask: (B, 1, *spatial), bool or 0/1; voxels that are 0 contribute nothing.

        Returns:
            A scalar. Where no voxel is valid CE is 0 and Δ is 0.

        Raises:
            TypeError: `logits` or `target` is not floating.
            ValueError: Shapes or devices do not match, or no class is left.
        """
        check_inputs("logits", logits, target, mask)
        first = 0 if self.background else 1
        if logits.shape[1] <= first:
            raise ValueError(
                f"Expected `logits` with a class beside the background, got {logits.shape[1]} channel. "
                "Set `background=True` to take the first class into the overlap."
            )
        measured = _sums(
            logits,
            target,
            mask=mask,
            overlap=self._measure() if self.weight_overlap else None,
            first=first,
            cross_entropy=self.weight_ce != 0,
        )
        terms = []
        if measured.cross_entropy is not None:
            terms.append(self.weight_ce * _mean_over_voxels(measured.cross_entropy, logits, mask))
        if measured.sums is not None:
            sums = reduce_samples(measured.sums, reduction=self.reduction, gather=self.gather)
            delta = tversky(
                sums, alpha=self.alpha, beta=self.beta, gamma=self.gamma, smooth=self.smooth
            ).mean()
            terms.append(self.weight_overlap * (delta - 1))
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def extra_repr(self) -> str:
        """The options, as `print(module)` shows them."""
        names = ("overlap", "weight_ce", "weight_overlap", "background", "variant", "alpha", "beta", "gamma")
        return ", ".join(
            f"{name}={getattr(self, name)!r}" for name in (*names, "reduction", "smooth", "gather")
        )

    def _measure(self) -> Overlap:
        if self.overlap in ("sdl", "sjl"):
            return Overlap.SOFT
        return Overlap.DIFFERENCE if self.variant == 1 else Overlap.BOTH


def _sums(
    logits: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None,
    overlap: Overlap | None,
    first: int,
    cross_entropy: bool,
) -> SoftmaxSums:
    """`softmax_sums`, or the same by autograd where the target wants a gradient."""
    if not target.requires_grad:
        return softmax_sums(
            logits, target, mask=mask, overlap=overlap, first=first, cross_entropy=cross_entropy
        )
    log_p = torch.log_softmax(logits.to(working_dtype(logits, target)), 1)
    entropy = None
    if cross_entropy:
        products = log_p * target
        entropy = -(products if mask is None else products.masked_fill(~mask.bool(), 0)).sum()
    if overlap is None:
        return SoftmaxSums(entropy, None)
    return SoftmaxSums(entropy, cardinalities(log_p.exp()[:, first:], target[:, first:], overlap, mask=mask))


def _mean_over_voxels(total: Tensor, logits: Tensor, mask: Tensor | None) -> Tensor:
    """`total` over the number of valid voxels; 0 where there are none."""
    if mask is None:
        return total / max(1, logits.numel() // max(1, logits.shape[1]))
    return total / mask.bool().sum().clamp_min(1)
