"""Distillation: a student learns from labels and from a teacher's probabilities, four terms in all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnunet_dml._checks import check_range
from nnunet_dml.losses._averaging import Active
from nnunet_dml.losses.compound import CrossEntropyOverlapLoss, OverlapName

TERMS = ("ce_label", "ce_teacher", "overlap_label", "overlap_teacher")


class TermsLoss(CrossEntropyOverlapLoss):
    """`CrossEntropyOverlapLoss` whose value is (cross-entropy, Δ), unweighted; 0 where the weight is 0.

    A weighted sum over several outputs, as in `DeepSupervisionLoss`, then keeps the two apart.
    """

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The terms, (2,); arguments as of `CrossEntropyOverlapLoss`."""
        terms = self.terms(logits, target, mask)
        some = next(term for term in terms if term is not None)
        return torch.stack([some.new_zeros(()) if term is None else term for term in terms])


class DistillationLoss(nn.Module):
    """Cross-entropy and overlap with the labels L and with a teacher's probabilities T.

        weight_ce · (μ_L CE(S, L) + μ_T CE(S, T)) + weight_overlap · (ν_L (Δ(S, L) − 1) + ν_T (Δ(S, T) − 1))

    As in `CrossEntropyOverlapLoss` Δ enters as minus the score, in the log form as −log(1 − Δ). With μ_T = ν_T = 0
    and μ_L = ν_L = 1 it is that loss. The teacher gets no gradient.

    Args:
        overlap: As of `CrossEntropyOverlapLoss`; not "lovasz" with the teacher, which is soft.
        ce_label: μ_L, at least 0; a term of weight 0 is not computed.
        ce_teacher: μ_T.
        overlap_label: ν_L.
        overlap_teacher: ν_T.
        weight_ce: λ_CE, at least 0.
        weight_overlap: λ_Δ, at least 0.
        teacher_active: Which classes count in Δ(S, T), see `CrossEntropyOverlapLoss`; with "label" those that the
            teacher gives more than the threshold to anywhere. The others only carry its noise, and next to a low
            target Δ is steep (Wang et al., Jaccard Metric Losses, section 2.4.2).
        teacher_threshold: Of `teacher_active`.
        **options: All else as of `CrossEntropyOverlapLoss`, for both halves; `active` and `threshold` are those of
            Δ(S, L).

    Raises:
        ValueError: An option is out of range, or all terms have weight 0.

    Source: Wang et al., Jaccard Metric Losses, NeurIPS 2023, Eq. 11-13; Dice Semimetric Losses, MICCAI 2023.

    >>> import torch
    >>> target = torch.full((1, 2, 4), 0.5)
    >>> loss = DistillationLoss("dml", weight_ce=1, weight_overlap=1)
    >>> round(loss(torch.zeros(1, 2, 4), target, target).item(), 4)  # ½ log 2 + ½ log 2 − ½ − ½
    -0.3069
    """

    weights: Tensor
    _best: Tensor

    def __init__(
        self,
        overlap: OverlapName = "dml",
        *,
        ce_label: float = 0.5,
        ce_teacher: float = 0.5,
        overlap_label: float = 0.5,
        overlap_teacher: float = 0.5,
        weight_ce: float = 0.5,
        weight_overlap: float = 1.5,
        teacher_active: Active = "label",
        teacher_threshold: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__()
        shares = dict(zip(TERMS, (ce_label, ce_teacher, overlap_label, overlap_teacher), strict=True))
        for name, share in (*shares.items(), ("weight_ce", weight_ce), ("weight_overlap", weight_overlap)):
            check_range(name, share, 0.0, float("inf"), open_high=True)
        weights = [
            share * (weight_ce if name.startswith("ce") else weight_overlap) for name, share in shares.items()
        ]
        if not any(weights):
            raise ValueError("Expected a term of weight above 0, got 0 for all: nothing would be learnt.")
        if overlap == "lovasz" and weights[3]:
            raise ValueError("Expected `overlap_teacher=0` with overlap='lovasz', which needs hard labels.")
        of_teacher = {**options, "active": teacher_active, "threshold": teacher_threshold}
        self.label = _half(overlap, weights[0], weights[2], options)
        self.teacher = _half(overlap, weights[1], weights[3], of_teacher)
        best = 0.0 if options.get("log", False) else 1.0
        self.register_buffer("weights", torch.tensor(weights), persistent=False)
        self.register_buffer("_best", torch.tensor([0.0, best]), persistent=False)

    def forward(self, logits: Tensor, target: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            logits: The student's, (B, C, *spatial).
            target: L, (B, C, *spatial) in [0, 1].
            teacher: T, (B, C, *spatial) in [0, 1].
            mask: (B, 1, *spatial), bool or 0/1; voxels that are 0 contribute nothing.

        Returns:
            A scalar.

        Raises:
            TypeError: A tensor is not floating.
            ValueError: Shapes or devices do not match.
        """
        of_label = None if self.label is None else self.label(logits, target, mask)
        of_teacher = None if self.teacher is None else self.teacher(logits, teacher.detach(), mask)
        return self.total(of_label, of_teacher)

    def total(self, of_label: Tensor | None, of_teacher: Tensor | None) -> Tensor:
        """The loss of what `label` and `teacher` return, (2,) each; None: that half is left out.

        Where one half stands alone its terms have the weight of both, so that the value keeps its scale.
        """
        halves = (of_label, of_teacher)
        weights = self.weights.view(2, 2).unbind(1)
        if of_label is None or of_teacher is None:
            weights = tuple(torch.where(own > 0, sum(weights), 0) for own in weights)
        values = [
            (own * (half - self._best)).sum()
            for own, half in zip(weights, halves, strict=True)
            if half is not None
        ]
        return torch.stack(values).sum()

    def terms(self, of_label: Tensor | None, of_teacher: Tensor | None) -> Tensor:
        """The same four numbers unweighted, without a gradient, (4,) in the order of `TERMS`; 0 for what is left out."""
        halves = [self._best.new_zeros(2) if it is None else it.detach() for it in (of_label, of_teacher)]
        return torch.stack(halves, 1).flatten()

    def extra_repr(self) -> str:
        """The weights, as `print(module)` shows them."""
        return ", ".join(f"{name}={weight:g}" for name, weight in zip(TERMS, self.weights, strict=True))


def _half(
    overlap: OverlapName, weight_ce: float, weight_overlap: float, options: dict[str, Any]
) -> TermsLoss | None:
    """The terms against the labels or against the teacher; None where both have weight 0."""
    if not weight_ce and not weight_overlap:
        return None
    return TermsLoss(overlap, weight_ce=weight_ce, weight_overlap=weight_overlap, **options)
