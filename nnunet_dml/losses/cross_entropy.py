"""Labels as channels, and cross-entropy on soft labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_dml._checks import check_one_of
from nnunet_dml.losses._averaging import class_weight_tensor, sum_over_ranks
from nnunet_dml.losses._cardinalities import check_inputs
from nnunet_dml.losses._logit_sums import Activation, LogitSums, logit_sums


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


def soft_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    activation: Activation = "softmax",
    class_weights: Sequence[float] | Tensor | None = None,
    mask: Tensor | None = None,
    gather: bool = False,
) -> Tensor:
    """Cross-entropy against a distribution, or a probability per region, at each voxel; a mean over valid voxels.

        softmax: Σ_c y_c (−log p_c), weighted over the whole batch: Σ w_c y_c (−log p_c) / Σ w_c y_c
        sigmoid: the mean over the channels, weighted by w, of −y_c log p_c − (1 − y_c) log(1 − p_c)

    On hard labels the weighted forms are those of torch's `CrossEntropyLoss(weight=…)` and of the binary
    cross-entropy of each channel. With a mask nnU-Net's `DC_and_BCE_loss` *sums* the latter over the channels;
    here it stays the mean over them, with and without a mask.

    Args:
        logits: (B, C, *spatial), any floating dtype; the activation is taken in float32 (float64 in float64).
        target: y, (B, C, *spatial) in [0, 1]. It gets no gradient unless it asks for one.
        activation: "softmax" over the channels, or "sigmoid" of each, for regions that may overlap.
        class_weights: w, one per channel, at least 0 and one of them above; a tensor's values are not checked.
        mask: (B, 1, *spatial), bool or 0/1; voxels that are 0 contribute nothing.
        gather: Take the mean over the joint batch of all DDP ranks, where `torch.distributed` is initialised.

    Returns:
        A scalar, at least 0; 0 where no voxel is valid or all that is there has weight 0.

    Raises:
        TypeError: `logits` or `target` is not floating.
        ValueError: Shapes or devices do not match, or an option is out of range.

    >>> import torch
    >>> round(soft_cross_entropy(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 0.5)).item(), 4)  # log 2
    0.6931
    """
    check_inputs("logits", logits, target, mask)
    check_one_of("activation", activation, ("softmax", "sigmoid"))
    weights = class_weight_tensor(class_weights, logits.shape[1], "logits", logits.device)
    measured = logit_sums(
        logits, target, activation=activation, mask=mask, mass=weights is not None and activation == "softmax"
    )
    return mean_entropy(measured, logits, mask, weights, activation=activation, gather=gather)


def mean_entropy(
    measured: LogitSums,
    logits: Tensor,
    mask: Tensor | None,
    weights: Tensor | None,
    *,
    activation: Activation,
    gather: bool,
) -> Tensor:
    """The value of `soft_cross_entropy` from sums; they hold the mass where softmax has weights."""
    total = measured.entropy
    assert total is not None
    if weights is not None and activation == "softmax":
        assert measured.mass is not None
        count = (measured.mass * weights).sum()
    elif mask is None:
        count = total.new_full((), logits.numel() // max(1, logits.shape[1]))
    else:
        count = mask.bool().sum().to(total.dtype)
    if activation == "sigmoid":
        count = count * (logits.shape[1] if weights is None else weights.to(total.dtype).sum())
    numerator, denominator = sum_over_ranks(
        (total if weights is None else total * weights).sum(), count, gather=gather
    )
    return numerator / torch.where(denominator > 0, denominator, 1.0)
