"""From what nnU-Net's loader yields to what the losses want: fractions of all outputs and a mask of valid voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn

from nnunet_dml.labels import smooth_boundary, smooth_labels
from nnunet_dml.losses import CrossEntropyOverlapLoss, DeepSupervisionLoss, one_hot
from nnunet_dml.nnunet.option_groups import LabelOptions

Read: TypeAlias = tuple[Tensor, Tensor | None]  # fractions (B, C, *spatial), mask (B, 1, *spatial) or None


@dataclass(frozen=True)
class TargetLayout:
    """What the channels of a target mean.

    A packed soft target has `soft_channels` fractions (the foreground labels and, with an ignore label, the share of
    ignored voxels), then what nnU-Net's own transforms make of the labels: one channel of labels, or one channel per
    region (and one of ignored voxels). A hard target has the latter alone.
    """

    foreground: int
    regions: tuple[tuple[int, ...], ...] | None
    ignore_label: int | None

    @classmethod
    def of(cls, labels: LabelManager) -> TargetLayout:
        """The layout of a data set's targets."""
        regions = None
        if labels.has_regions:
            regions = tuple(
                tuple(region) if isinstance(region, (tuple, list)) else (int(region),)
                for region in labels.foreground_regions
            )
        return cls(len(labels.foreground_labels), regions, labels.ignore_label)

    @property
    def soft_channels(self) -> int:
        """Number of channels of the maps on disk."""
        return self.foreground + (self.ignore_label is not None)

    @property
    def outputs(self) -> int:
        """Number of the network's outputs: the regions, or the labels with the background first."""
        return 1 + self.foreground if self.regions is None else len(self.regions)

    def soft(self, target: Tensor) -> Read:
        """The fractions in a packed soft target.

        Args:
            target: (B, soft_channels + …, *spatial), float.

        Returns:
            (B, outputs, *spatial) in [0, 1]: fractions among those who labelled the voxel, background first; of a
            region the sum of its labels'. And the voxels that anyone labelled (at least half of what interpolation
            mixed), None without an ignore label.
        """
        fractions, mask = target[:, : self.foreground], None
        if self.ignore_label is not None:
            ignored = target[:, self.foreground : self.foreground + 1]
            mask = ignored < 0.5
            fractions = fractions / torch.where(mask, 1 - ignored, 1.0)
        background = (1 - fractions.sum(1, keepdim=True)).clamp_(min=0)
        fractions = torch.cat((background, fractions), 1)
        if self.regions is None:
            return fractions, mask
        sums = [fractions[:, list(region)].sum(1) for region in self.regions]
        return torch.stack(sums, 1).clamp_(max=1), mask

    def hard(self, target: Tensor) -> Read:
        """The same of nnU-Net's own target: labels (B, 1, *spatial), or regions (B, outputs (+ 1), *spatial)."""
        if self.regions is None:
            mask = None if self.ignore_label is None else target != self.ignore_label
            return one_hot(target, self.outputs, ignore_label=self.ignore_label), mask
        mask = None if self.ignore_label is None else target[:, -1:] < 0.5
        return target[:, : self.outputs].float(), mask

    def hard_of_packed(self, target: Tensor) -> Tensor:
        """nnU-Net's own target in a packed soft one: labels as int64, or regions as they are."""
        hard = target[:, self.soft_channels :]
        return hard.round().long() if self.regions is None else hard


class Smoothing:
    """Label smoothing as the options say."""

    def __init__(self, options: LabelOptions, *, independent: bool) -> None:
        """Read the options.

        Args:
            options: `labels.smoothing`, `labels.epsilon`, `labels.neighbourhood`.
            independent: Whether the channels are regions.
        """
        self._boundary = options.smoothing == "boundary"
        self._everywhere = options.smoothing == "all"
        self._smooth = partial(smooth_labels, epsilon=options.epsilon, independent=independent)
        self._smooth_boundary = partial(
            smooth_boundary,
            epsilon=options.epsilon,
            neighbourhood=options.neighbourhood,
            independent=independent,
        )

    def __call__(self, fractions: Tensor, mask: Tensor | None) -> Tensor:
        """Smoothed fractions."""
        if self._boundary:
            return self._smooth_boundary(fractions, mask=mask)
        return self._smooth(fractions) if self._everywhere else fractions


class TargetLoss(nn.Module):
    """A loss on nnU-Net's targets, hard or packed soft, at one or more resolutions.

    Under deep supervision a single target in full resolution (alone in a list, too) is averaged down on the device; a
    list of targets, one per output as nnU-Net's loader makes them of hard labels, is taken as it is.
    """

    def __init__(
        self,
        loss: CrossEntropyOverlapLoss,
        weights: Sequence[float] | None,
        layout: TargetLayout,
        smoothing: Smoothing,
        *,
        soft: bool,
    ) -> None:
        """Wrap a loss.

        Args:
            loss: `loss(logits, target, mask)` at one resolution.
            weights: Weights of the outputs under deep supervision; None without it.
            layout: What the target's channels mean.
            smoothing: Applied in full resolution, before targets are averaged down.
            soft: Whether targets are packed soft ones.
        """
        super().__init__()
        self.single = loss
        self.averaging = None if weights is None else DeepSupervisionLoss(loss, weights)
        self.per_output = (
            None if weights is None else DeepSupervisionLoss(loss, weights, targets_per_output=True)
        )
        self._read = layout.soft if soft else layout.hard
        self._smoothing = smoothing

    def forward(self, output: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        """The loss of one output, or of all of them under deep supervision."""
        if isinstance(target, list) and len(target) == 1:
            target = target[0]
        if isinstance(target, Tensor):
            fractions, mask = self.fractions(target)
            return (self.single if self.averaging is None else self.averaging)(output, fractions, mask)
        assert self.per_output is not None
        reads = [self.fractions(it) for it in target]
        masks = None if reads[0][1] is None else [mask for _, mask in reads]
        loss: Tensor = self.per_output(output, [fractions for fractions, _ in reads], masks)
        return loss

    def fractions(self, target: Tensor) -> Read:
        """What the network is trained towards, in the resolution of the target."""
        fractions, mask = self._read(target)
        return self._smoothing(fractions, mask), mask
