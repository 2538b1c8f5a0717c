"""Labels from a teacher's predictions, and the loss of a batch that is partly labelled and partly not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from nnunet_dml.losses import DeepSupervisionLoss, DistillationLoss
from nnunet_dml.nnunet.targets import Smoothing, TargetLayout, TargetLoss


class PseudoLabels(NamedTuple):
    """What a teacher says of unlabelled patches."""

    fractions: Tensor  # (U, C, *spatial) float32 in [0, 1]: classes, background first, or regions
    valid: Tensor  # (U, 1, *spatial) bool: where it is sure enough
    confidence: Tensor  # (U,) in [0, 1]: of each patch, see `pseudo_labels`


def pseudo_labels(
    logits: Tensor, *, independent: bool, kind: Literal["soft", "hard"] = "soft", threshold: float = 0.0
) -> PseudoLabels:
    """A teacher's probabilities as labels.

    A voxel's certainty is its greatest probability, among independent regions that of the least certain one. It is
    valid where that is at least `threshold`.

    A patch's confidence is the mean of (C · certainty − 1) / (C − 1), which is 0 where all C classes are as likely (C is 2
    for regions) and 1 where one is certain, weighted by each voxel's probability of foreground. Without
    the weights, as in AugSeg, a patch that is mostly background is always sure, whatever its lesion.

    Args:
        logits: (U, C, *spatial), any floating dtype.
        independent: Whether the channels are regions (sigmoid).
        kind: "soft" for the probabilities, "hard" for the greatest class, or regions above one half.
        threshold: In [0, 1); 0 keeps every voxel.
    """
    probs = logits.float().sigmoid() if independent else logits.float().softmax(1)
    if independent:
        certainty = torch.maximum(probs, 1 - probs).amin(1, keepdim=True)
        foreground, classes = probs.amax(1, keepdim=True), 2
    else:
        certainty = probs.amax(1, keepdim=True)
        foreground, classes = 1 - probs[:, :1], probs.shape[1]
    excess = (classes * certainty - 1) / (classes - 1)
    weight = foreground.clamp(min=1e-6)  # a patch without any is as sure as its background
    confidence = (excess * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)
    fractions = probs
    if kind == "hard":
        fractions = (probs > 0.5).float() if independent else _greatest(probs)
    return PseudoLabels(fractions, certainty >= threshold, confidence.clamp(0, 1))


def _greatest(probs: Tensor) -> Tensor:
    """One-hot of the greatest class."""
    return torch.zeros_like(probs).scatter_(1, probs.argmax(1, keepdim=True), 1)


class JointLoss(nn.Module):
    """The loss of outputs whose first samples are labelled, with pseudo-labels for the others.

        weight_ce (η_S CE(S, L) + η_U CE(S, T)) + weight_overlap (θ_S (Δ(S, L) − 1) + θ_U (Δ(S, T) − 1))

    Each Δ is of its own part of the batch, at every resolution. The four unweighted terms of the last call are kept in
    `terms`, in the order of `nnunet_dml.losses.distillation.TERMS`.

    Source: Wang et al., Jaccard Metric Losses, NeurIPS 2023, Eq. 62-64.
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
        """Wrap a loss.

        Args:
            loss: The four terms at one resolution, both halves present.
            weights: Weights of the outputs under deep supervision; None without it.
            layout: What the channels of a labelled target mean.
            smoothing: Applied in full resolution to labels and pseudo-labels, before they are averaged down.
            soft: Whether labelled targets are packed soft ones.
        """
        super().__init__()
        assert loss.label is not None
        assert loss.teacher is not None
        self.halves = loss
        self.labelled = TargetLoss(loss.label, weights, layout, smoothing, soft=soft)
        self.unlabelled: nn.Module = loss.teacher
        if weights is not None:
            self.unlabelled = DeepSupervisionLoss(loss.teacher, weights)
        self.terms: Tensor | None = None
        self._smoothing = smoothing
        self._read = layout.soft if soft else layout.hard

    def forward(self, output: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        """The loss of a batch.

        Args:
            output: Logits (L + U, C, *spatial), or a list of them, finest first, under deep supervision.
            target: [labelled, fractions, valid]: nnU-Net's own or a packed target of the first L samples, the
                pseudo-labels of the others (U, C, *spatial), and where they count (U, 1, *spatial). A target by
                itself, or alone in a list, is of labelled samples only, which then have the whole weight.
        """
        of_teacher = None
        if isinstance(target, list) and len(target) == 3:
            labelled, fractions, valid = target
            first, others = _part(output, slice(len(labelled))), _part(output, slice(len(labelled), None))
            of_labels = self.labelled(first, labelled)
            of_teacher = self.unlabelled(others, self._smoothing(fractions, valid), valid)
        else:
            of_labels = self.labelled(output, target)
        self.terms = self.halves.terms(of_labels, of_teacher)
        return self.halves.total(of_labels, of_teacher)

    def labels(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """A labelled target as pseudo-labels are: fractions, and where they count; not smoothed yet."""
        fractions, mask = self._read(target)
        return fractions, torch.ones_like(fractions[:, :1], dtype=torch.bool) if mask is None else mask.bool()


def _part(output: Tensor | list[Tensor], samples: slice) -> Tensor | list[Tensor]:
    """Some samples of one output, or of several."""
    return output[samples] if isinstance(output, Tensor) else [it[samples] for it in output]
