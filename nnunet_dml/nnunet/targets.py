"""From what nnU-Net's loader yields to what the losses want: fractions of all classes and a mask of valid voxels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunet_dml.losses import CrossEntropyOverlapLoss, DeepSupervisionLoss, one_hot


def fractions_of(target: Tensor) -> Tensor:
    """The fractions of all classes in a packed soft target.

    Args:
        target: (B, F + 1, *spatial) float: F soft foreground channels, then the labels.

    Returns:
        (B, F + 1, *spatial), background first, summing to one.
    """
    soft = target[:, :-1]
    background = (1 - soft.sum(1, keepdim=True)).clamp_(min=0)
    return torch.cat((background, soft), 1)


def labels_of(target: Tensor) -> Tensor:
    """The labels in a packed soft target, (B, 1, *spatial), int64."""
    return target[:, -1:].round().long()


class SoftTargetLoss(nn.Module):
    """A loss on packed soft targets; deep supervision averages them down on the device."""

    def __init__(self, loss: CrossEntropyOverlapLoss, weights: Sequence[float] | None) -> None:
        """Wrap a loss.

        Args:
            loss: `loss(logits, target)` at one resolution.
            weights: Weights of the outputs under deep supervision; None without it.
        """
        super().__init__()
        self.loss = loss if weights is None else DeepSupervisionLoss(loss, weights)

    def forward(self, output: Tensor | list[Tensor], target: Tensor) -> Tensor:
        """The loss of one output, or of all of them under deep supervision."""
        return self.loss(output, fractions_of(target))


class HardTargetLoss(nn.Module):
    """The same loss on nnU-Net's own integer targets, one per output under deep supervision."""

    def __init__(
        self, loss: CrossEntropyOverlapLoss, weights: Sequence[float] | None, ignore_label: int | None
    ) -> None:
        """Wrap a loss.

        Args:
            loss: `loss(logits, target, mask)` at one resolution.
            weights: Weights of the outputs under deep supervision; None without it.
            ignore_label: Label of voxels that do not count.
        """
        super().__init__()
        self.deep_supervision = weights is not None
        self.loss = loss if weights is None else DeepSupervisionLoss(loss, weights, targets_per_output=True)
        self.ignore_label = ignore_label

    def forward(self, output: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        """The loss of one output, or of all of them under deep supervision."""
        outputs, targets = (output, target) if self.deep_supervision else ([output], [target])
        hot = [
            one_hot(t, o.shape[1], ignore_label=self.ignore_label)
            for o, t in zip(outputs, targets, strict=True)
        ]
        masks = None if self.ignore_label is None else [t != self.ignore_label for t in targets]
        if self.deep_supervision:
            return self.loss(output, hot, masks)
        return self.loss(output, hot[0], masks and masks[0])
