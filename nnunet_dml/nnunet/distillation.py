"""What a training with a teacher adds to one without: the loss on nnU-Net's targets, and what is noted of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch import distributed as dist

from nnunet_dml.losses import DeepSupervisionLoss, DistillationLoss
from nnunet_dml.losses.distillation import TERMS
from nnunet_dml.metrics import ece_from_counts, reliability_counts
from nnunet_dml.metrics.calibration import BINS
from nnunet_dml.nnunet.targets import Read, Smoothing, TargetLayout, TargetLoss

ECE = ("teacher_ece", "teacher_ece_calibrated")


class TaughtLoss(nn.Module):
    """A distillation loss on nnU-Net's targets at one or more resolutions.

    The labels go the way that they go without a teacher (`TargetLoss`). The teacher's probabilities are not among
    nnU-Net's targets: they are set for the time of a step by `taught`, and averaged down for the coarse outputs.
    Outside `taught` there is no teacher, and the labels have the whole weight.
    """

    def __init__(
        self,
        loss: DistillationLoss,
        weights: Sequence[float] | None,
        layout: TargetLayout,
        smoothing: Smoothing,
        *,
        soft: bool,
    ) -> None:
        """Wrap a loss; arguments as of `TargetLoss`. Only the labels are smoothed."""
        super().__init__()
        self.halves = loss
        self.label = None
        if loss.label is not None:
            self.label = TargetLoss(loss.label, weights, layout, smoothing, soft=soft)
        self.teacher: nn.Module | None = loss.teacher
        if loss.teacher is not None and weights is not None:
            self.teacher = DeepSupervisionLoss(loss.teacher, weights)
        self._read = layout.soft if soft else layout.hard
        self._taught: Read | None = None
        self.terms: Tensor | None = None
        """The four terms of the last call, unweighted and without a gradient, in the order of `TERMS`."""

    def labels(self, target: Tensor | list[Tensor]) -> Read:
        """The labels that the teacher is calibrated with, in full resolution and not smoothed."""
        return self._read(target[0] if isinstance(target, list) else target)

    @contextmanager
    def taught(self, probs: Tensor, mask: Tensor | None) -> Iterator[None]:
        """Let the loss see a teacher's probabilities.

        Args:
            probs: (B, C, *spatial), full resolution.
            mask: (B, 1, *spatial), 0 where voxels are ignored.
        """
        self._taught = probs, mask
        try:
            yield
        finally:
            self._taught = None

    def forward(self, output: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        """The loss of one output, or of all of them under deep supervision."""
        of_label = None if self.label is None else self.label(output, target)
        if self._taught is None:
            return self.halves.total(of_label, None)
        of_teacher = None if self.teacher is None else self.teacher(output, *self._taught)
        self.terms = self.halves.terms(of_label, of_teacher)
        return self.halves.total(of_label, of_teacher)


class TeachingRecord:
    """The terms of the loss and the teacher's calibration error over an epoch, kept on the device."""

    def __init__(self, device: torch.device, *, independent: bool) -> None:
        """Start an epoch."""
        self._independent = independent
        self._terms = torch.zeros(len(TERMS) + 1, dtype=torch.float64, device=device)  # the last counts steps
        self._counts = torch.zeros(2, 3, BINS, dtype=torch.float64, device=device)

    def add_terms(self, terms: Tensor) -> None:
        """Add a step's terms, in the order of `TERMS`."""
        self._terms[:-1] += terms
        self._terms[-1] += 1

    def add_teacher(self, probs: Tensor, calibrated: Tensor, labels: Tensor, mask: Tensor | None) -> None:
        """Add a batch's reliability before and after calibration; see `reliability`."""
        self._counts += reliability(probs, calibrated, labels, mask, independent=self._independent)

    def figures(self) -> tuple[list[float], list[float]]:
        """Mean terms, in the order of `TERMS`, and the ECE before and after; over all ranks. NaN where nothing was."""
        sums = torch.cat((self._terms, self._counts.flatten()))
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        sums = sums.cpu()
        terms, counts = sums[: len(TERMS)] / sums[len(TERMS)], sums[len(TERMS) + 1 :].view(2, 3, BINS)
        return terms.tolist(), [float(ece_from_counts(it)) for it in counts]


def reliability(
    probs: Tensor, calibrated: Tensor, labels: Tensor, mask: Tensor | None, *, independent: bool
) -> Tensor:
    """A teacher's `reliability_counts` before and after calibration, (2, 3, BINS); regions against their complements.

    Args:
        probs: (B, C, *spatial).
        calibrated: The same shape.
        labels: The same shape.
        mask: (B, 1, *spatial), 0 where voxels are ignored, or None.
        independent: Whether the channels are regions.
    """
    if independent:
        mask = None if mask is None else mask.expand_as(probs).flatten(0, 1)
        probs, calibrated, labels = (
            torch.stack((1 - it, it), 2).flatten(0, 1) for it in (probs, calibrated, labels)
        )
    else:
        mask = None if mask is None else mask[:, 0]
    return torch.stack([reliability_counts(it, labels, mask=mask) for it in (probs, calibrated)])
