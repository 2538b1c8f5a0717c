"""Cross-entropy plus overlap, as nnU-Net trains with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nnunet_dml._checks import check_one_of, check_range
from nnunet_dml.losses._averaging import (
    Active,
    Averaging,
    Reduction,
    check_class_weights,
    class_weight_tensor,
    compare,
    conditions,
)
from nnunet_dml.losses._cardinalities import Formula, Overlap, check_inputs, working_dtype
from nnunet_dml.losses._logit_sums import Activation, LogitSums, logit_sums
from nnunet_dml.losses.cross_entropy import mean_entropy
from nnunet_dml.losses.lovasz import lovasz_softmax_loss

OverlapName = Literal["dml", "jml", "ctl", "sdl", "sjl", "lovasz"]

OVERLAPS = ("dml", "jml", "ctl", "sdl", "sjl", "lovasz")
SUMS = OVERLAPS[:-1]  # those that are functions of sums
# options that not every overlap has: where they belong, and the default that says nothing
OWN_OPTIONS: dict[str, tuple[tuple[str, ...], Any]] = {
    "variant": (("dml", "jml"), 1),
    "norm": (("sjl",), 1),
    "alpha": (("ctl",), 0.5),
    "beta": (("ctl",), 0.5),
    "gamma": (("ctl",), 1.0),
    "power": (("ctl",), 1.0),
    "smooth": (SUMS, 1e-5),
    "gather": (SUMS, False),
}


class CrossEntropyOverlapLoss(nn.Module):
    """Cross-entropy plus overlap on logits: weight_ce · CE + weight_overlap · (Δ − 1), or · −log(1 − Δ).

    As in nnU-Net the overlap enters as minus the score, hence Δ − 1, and the value may be negative. On hard
    labels, with weights 1 and 1, "dml" equals nnU-Net's `DC_and_CE_loss` with its Dice of `batch_dice` and
    `smooth` (without background), with and without an ignore label, and with "sigmoid" its `DC_and_BCE_loss`
    without an ignore label; with one nnU-Net sums the binary cross-entropy over the channels, here it stays
    the mean over them. The default weights are the paper's 1:3 at nnU-Net's total of 2.

    Options without an explanation are those of `dice_semimetric_loss`.

    Args:
        overlap: "dml" Dice semimetric, "jml" Jaccard metric, "ctl" compatible Tversky; for comparison "sdl" and
            "sjl", the classic soft Dice and Jaccard (wrong on soft labels), and "lovasz", Lovász-softmax (for
            hard labels only, which is not checked).
        activation: "softmax": the channels are classes that exclude each other, background first. "sigmoid":
            each channel is a region of its own, they may overlap, and all take part in the overlap.
        weight_ce: At least 0; at 0 the term is not computed.
        weight_overlap: At least 0; at 0 the term is not computed.
        background: Whether the first class takes part in the overlap; not with "sigmoid", which has none.
        variant: Of "dml" and "jml", 1 or 2.
        norm: Of "sjl", 1 or 2.
        alpha: Of "ctl", weight of false positives.
        beta: Of "ctl", weight of false negatives.
        gamma: Of "ctl", the paper's γ ≥ 1 in Δ^(1/γ).
        power: Of "ctl", the exponent of the authors' code, Δ^power with power ≥ 1; it or `gamma` is 1.
        log: −log(1 − Δ) of each set, without the −1.
        reduction: "batch" (nnU-Net's `batch_dice`), "image", "class" or weights of these.
        active: "all", "present", "prob", "label" or "both": the classes that take part in the overlap.
        threshold: Of `active`.
        class_weights: One per channel, the background's included, which the overlap reads only with
            `background`. They weigh the mean over active classes and, see `soft_cross_entropy`, the
            cross-entropy. A buffer: it moves with the Module and is not saved, as no option is.
        smooth: Added to numerator and denominator of the overlap, in voxels. Not of "lovasz".
        gather: Take cross-entropy, the sets of "batch" and what is active there of the joint batch of all DDP
            ranks, where `torch.distributed` is initialised. Then every rank returns the joint value, but for
            the share of "image" and "class", and DDP's mean gradient is that of the joint batch. Not of
            "lovasz", whose sets are each rank's own.

    Raises:
        ValueError: An option is out of range, or set for an overlap that does not have it.

    Source: Wang et al., Dice Semimetric Losses, MICCAI 2023, section 3.2.

    >>> import torch
    >>> target = torch.full((1, 2, 4), 0.5)
    >>> loss = CrossEntropyOverlapLoss("dml", weight_ce=1, weight_overlap=1)
    >>> round(loss(torch.zeros(1, 2, 4), target).item(), 4)  # log 2 + (0 − 1)
    -0.3069
    """

    class_weights: Tensor | None

    def __init__(
        self,
        overlap: OverlapName = "dml",
        *,
        activation: Activation = "softmax",
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
        active: Active = "all",
        threshold: float = 0.01,
        class_weights: Sequence[float] | None = None,
        smooth: float = 1e-5,
        gather: bool = False,
    ) -> None:
        super().__init__()
        own = {"variant": variant, "norm": norm, "alpha": alpha, "beta": beta, "gamma": gamma, "power": power}
        check_one_of("overlap", overlap, OVERLAPS)
        check_one_of("activation", activation, ("softmax", "sigmoid"))
        check_one_of("variant", variant, (1, 2))
        check_one_of("norm", norm, (1, 2))
        check_range("weight_ce", weight_ce, 0.0, float("inf"), open_high=True)
        check_range("weight_overlap", weight_overlap, 0.0, float("inf"), open_high=True)
        if weight_ce == 0 and weight_overlap == 0:
            raise ValueError(
                "Expected `weight_ce` or `weight_overlap` above 0, got 0 for both: nothing would be learnt."
            )
        _refuse_foreign(overlap, own | {"smooth": smooth, "gather": gather})
        if background and activation == "sigmoid":
            raise ValueError("`background` belongs to activation='softmax': among regions there is none.")
        if overlap in ("jml", "sjl"):
            alpha = beta = 1.0
        self.formula = Formula(_measure(overlap, variant, norm), alpha, beta, gamma, power, smooth, log)
        self.averaging = Averaging(reduction, active, threshold, gather)
        self.overlap, self.activation = overlap, activation
        self.weight_ce, self.weight_overlap = float(weight_ce), float(weight_overlap)
        self.background = background
        self._first = 1 if activation == "softmax" and not background else 0
        weights = None
        if class_weights is not None:
            check_class_weights(class_weights)
            if weight_overlap and not any(class_weights[self._first :]):
                raise ValueError(
                    "Expected argument `class_weights` above 0 for a class of the overlap, "
                    f"got {tuple(class_weights)}."
                )
            weights = torch.tensor([float(weight) for weight in class_weights])
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (B, C, *spatial), with softmax C ≥ 2 unless `background`; any floating dtype, the
                activation is taken in float32 at least.
            target: (B, C, *spatial) in [0, 1], soft or one-hot, background first; or a channel per region.
            mask: (B, 1, *spatial), bool or 0/1; voxels that are 0 contribute nothing.

        Returns:
            A scalar. Where no voxel is valid, or no class is active, CE or Δ is 0.

        Raises:
            TypeError: `logits` or `target` is not floating.
            ValueError: Shapes or devices do not match, the class weights are not one per channel, or no class
                is left.
        """
        entropy, overlap = self.terms(logits, target, mask)
        terms = []
        if entropy is not None:
            terms.append(self.weight_ce * entropy)
        if overlap is not None:
            terms.append(self.weight_overlap * (overlap if self.formula.log else overlap - 1))
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def terms(
        self, logits: Tensor, target: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Cross-entropy and overlap Δ (log form: −log(1 − Δ)) apart and unweighted; arguments as of `forward`.

        Returns:
            Two scalars; None where the weight is 0.
        """
        check_inputs("logits", logits, target, mask)
        weights = class_weight_tensor(self.class_weights, logits.shape[1], "logits", logits.device)
        if logits.shape[1] <= self._first:
            raise ValueError(
                f"Expected `logits` with a class beside the background, got {logits.shape[1]} channel. "
                "Set `background=True` to take the first class into the overlap."
            )
        by_sums = self.overlap != "lovasz" and self.weight_overlap != 0
        measured = logit_sums(
            logits,
            target,
            activation=self.activation,
            mask=mask,
            overlap=self.formula.measured if by_sums else None,
            averaging=self.averaging,
            first=self._first,
            cross_entropy=self.weight_ce != 0,
            mass=self.weight_ce != 0 and weights is not None and self.activation == "softmax",
        )
        entropy = overlap = None
        if measured.entropy is not None:
            entropy = mean_entropy(
                measured, logits, mask, weights, activation=self.activation, gather=self.averaging.gather
            )
        if self.weight_overlap != 0:
            overlap = self._delta(measured, logits, target, mask, weights)
        return entropy, overlap

    def _delta(
        self,
        measured: LogitSums,
        logits: Tensor,
        target: Tensor,
        mask: Tensor | None,
        weights: Tensor | None,
    ) -> Tensor:
        """The overlap's mean."""
        weights = None if weights is None else weights[self._first :]
        if measured.sums is not None:
            met = conditions(measured.label_peaks, measured.prob_peaks, self.averaging)
            return compare(measured.sums, met, self.formula, self.averaging, weights)
        z = logits.to(working_dtype(logits, target))
        p = z.softmax(1) if self.activation == "softmax" else z.sigmoid()
        return lovasz_softmax_loss(
            p[:, self._first :],
            target[:, self._first :],
            reduction=self.averaging.reduction,
            active=self.averaging.active,
            threshold=self.averaging.threshold,
            class_weights=weights,
            log=self.formula.log,
            mask=mask,
        )

    def extra_repr(self) -> str:
        """The options, as `print(module)` shows them."""
        names = ("overlap", "activation", "weight_ce", "weight_overlap", "background")
        shown = {name: getattr(self, name) for name in names}
        if self.class_weights is not None:
            shown["class_weights"] = self.class_weights.tolist()
        shown |= vars(self.formula) | vars(self.averaging)
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


def _refuse_foreign(overlap: str, options: dict[str, Any]) -> None:
    """Raise `ValueError` where an option is set that the overlap does not have."""
    for name, value in options.items():
        owners, default = OWN_OPTIONS[name]
        if overlap not in owners and value != default:
            listed = " or ".join(repr(owner) for owner in owners)
            raise ValueError(
                f"`{name}` belongs to overlap={listed}, got {name}={value!r} with overlap={overlap!r}."
            )


def _measure(overlap: str, variant: int, norm: int) -> Overlap:
    if overlap in ("sdl", "sjl"):
        return Overlap.SOFT if norm == 1 else Overlap.SOFT_SQUARED
    return Overlap.DIFFERENCE if variant == 1 else Overlap.BOTH
