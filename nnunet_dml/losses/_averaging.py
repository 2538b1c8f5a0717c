"""From the losses of single sets to one number: which sets are compared, which classes count, and how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, distributed

from nnunet_dml._checks import check_one_of, check_range
from nnunet_dml.losses._cardinalities import Cardinalities, Formula, tversky

Active = Literal["all", "present", "prob", "label", "both"]
Reduction = Literal["batch", "image", "class"] | Mapping[str, float]

ACTIVE = ("all", "present", "prob", "label", "both")
REDUCTIONS = ("batch", "image", "class")


@dataclass(frozen=True)
class Averaging:
    """Options of the way from sets to a number, said once for all losses.

    Args:
        reduction: What a set is, and over what the mean is taken, or weights of several such means, which are
            normalised to sum one, e.g. `{"batch": 0.5, "class": 0.5}`. The JML paper's section 6.1 calls them
            mIoU^D, mIoU^I and mIoU^C:
            "batch": one set per class over the whole batch (nnU-Net's `batch_dice`); the mean over the active
            classes.
            "image": one set per image and class; per image the mean over its active classes, then the mean
            over the images that have one.
            "class": the same sets; per class the mean over the images where it is active, then the mean over
            the classes that are active anywhere.
        active: Which classes count, decided per image and for "batch" on the (joint) batch.
            "all": every class.
            "present": the class is the argmax of the label at a valid voxel. Where the channels sum to less
            than one, as without a background, the rest competes, too, and wins a tie. Of regions, which may
            overlap, each one above 0.5 is present as well.
            "label": the label's greatest value is above `threshold`.
            "prob": the prediction's greatest value is.
            "both": "label" and "prob". (The paper's code adds the two values up and compares the sum.)
            Names as in the JML paper, section 2.4.2 and Table 7; the authors' released code calls "label"
            PRESENT.
        threshold: Of "label", "prob" and "both", in [0, 1).
        gather: Take sums and activity of the joint batch of all DDP ranks, where `torch.distributed` is
            initialised. Of the overlap this concerns "batch"; images are each rank's own.

    Raises:
        ValueError: An option is out of range or unknown.
    """

    reduction: Reduction = "batch"
    active: Active = "all"
    threshold: float = 0.01
    gather: bool = False

    def __post_init__(self) -> None:
        """Check; nothing is kept but the options."""
        check_one_of("active", self.active, ACTIVE)
        check_range("threshold", self.threshold, 0.0, 1.0, open_high=True)
        if not isinstance(self.reduction, Mapping):
            check_one_of("reduction", self.reduction, REDUCTIONS)
            return
        for name, weight in self.reduction.items():
            if name not in REDUCTIONS or not 0 <= weight < math.inf:
                raise ValueError(
                    f"Expected argument `reduction` to give {list(REDUCTIONS)} weights of at least 0, "
                    f"got {name!r}: {weight!r}."
                )
        if not any(self.reduction.values()):
            raise ValueError(
                f"Expected argument `reduction` to have a weight above 0, got {dict(self.reduction)}."
            )

    @property
    def shares(self) -> dict[str, float]:
        """Weight of each reduction that has one; they sum to one."""
        if not isinstance(self.reduction, Mapping):
            return {self.reduction: 1.0}
        total = math.fsum(self.reduction.values())
        return {name: weight / total for name, weight in self.reduction.items() if weight}

    @property
    def reads_label(self) -> bool:
        """Whether the activity depends on the label's peaks."""
        return self.active in ("present", "label", "both")

    @property
    def reads_prob(self) -> bool:
        """Whether the activity depends on the prediction's peaks."""
        return self.active in ("prob", "both")


def label_peaks(y: Tensor, active: Active) -> Tensor:
    """What of the label decides on the activity: its greatest value, or with "present" 1 where it wins a voxel.

    Args:
        y: (B, C, voxels), 0 where a voxel is ignored.
        active: See `Averaging`.

    Returns:
        (B, C); the greatest over several pieces of a volume is that of the volume.
    """
    if active != "present":
        return y.amax(2)
    value, winner = y.max(1)
    winner = winner.masked_fill_(value <= 1 - y.sum(1), -1)
    classes = torch.arange(y.shape[1], device=y.device).unsqueeze(1)
    return (winner.unsqueeze(1) == classes).logical_or_(y > 0.5).any(2).to(y.dtype)


def peaks(x: Tensor, y: Tensor, averaging: Averaging) -> tuple[Tensor | None, Tensor | None]:
    """The peaks (B, C) of label and prediction that `averaging` reads, of x and y (B, C, voxels)."""
    label = label_peaks(y.detach(), averaging.active) if averaging.reads_label else None
    return label, x.detach().amax(2) if averaging.reads_prob else None


def conditions(label: Tensor | None, prob: Tensor | None, averaging: Averaging) -> Tensor | None:
    """What has to hold for a class to be active, (K, B, C) of 0 and 1, from the peaks (B, C); None: nothing."""
    met = []
    if label is not None:
        met.append(label > (0.5 if averaging.active == "present" else averaging.threshold))
    if prob is not None:
        met.append(prob > averaging.threshold)
    return torch.stack(met).float() if met else None


def class_weight_tensor(
    weights: Sequence[float] | Tensor | None, channels: int, name: str, device: torch.device | None = None
) -> Tensor | None:
    """The weights as a float32 tensor (C,); values of a tensor are not read, it would stall a GPU.

    Args:
        weights: One per channel, finite, at least 0 and one of them above 0; None for no weights.
        channels: How many are expected.
        name: What has the channels (`target` or `logits`).
        device: Where the result lies, None for torch's default.

    Raises:
        ValueError: There are more or fewer, or they are not as above.
    """
    if weights is None:
        return None
    if not isinstance(weights, Tensor):
        check_class_weights(weights)
        weights = torch.tensor([float(weight) for weight in weights], dtype=torch.float32, device=device)
    if weights.shape != (channels,):
        raise ValueError(
            f"Expected argument `class_weights` to have {channels} entries, one per channel of `{name}`, "
            f"got {weights.numel()}."
        )
    return weights


def check_class_weights(weights: Sequence[float]) -> None:
    """Raise `ValueError` unless all are finite and at least 0 and one is above."""
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ValueError(
            "Expected argument `class_weights` to be at least 0 and one of them above 0, "
            f"got {tuple(weights)}."
        )


class _SumOverRanks(torch.autograd.Function):
    """All-reduce in both directions.

    Every rank computes the same loss of the joint batch, so the gradient that arrives here is summed over
    the ranks; DDP divides by their number afterwards, which leaves the gradient of the joint batch.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        distributed.all_reduce(total)
        return total


def sum_over_ranks(*tensors: Tensor, gather: bool) -> list[Tensor]:
    """Sum tensors over the DDP ranks, all at once; themselves without `gather` or without ranks."""
    if not (gather and distributed.is_available() and distributed.is_initialized()):
        return list(tensors)
    dtype = tensors[0].dtype
    total = _SumOverRanks.apply(torch.cat([tensor.to(dtype).flatten() for tensor in tensors]))
    parts = total.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


class Sets(NamedTuple):
    """Losses of sets and which of them count, (C,) or (B, C); `active` None: all of them."""

    loss: Tensor
    active: Tensor | None


def compare(
    sums: Cardinalities,
    met: Tensor | None,
    formula: Formula,
    averaging: Averaging,
    weights: Tensor | None,
) -> Tensor:
    """The loss of cardinalities (B, C) under `conditions` (K, B, C): a scalar."""
    batch = images = None
    if "batch" in averaging.shares:
        total = torch.stack(sums).sum(1)
        if met is None:
            (total,), active = sum_over_ranks(total, gather=averaging.gather), None
        else:
            total, met_anywhere = sum_over_ranks(total, met.amax(1), gather=averaging.gather)
            active = met_anywhere.gt(0).all(0)
        batch = Sets(tversky(Cardinalities(*total.unbind(0)), formula), active)
    if averaging.shares.keys() & {"image", "class"}:
        images = Sets(tversky(sums, formula), None if met is None else met.bool().all(0))
    return average(batch, images, averaging, weights)


def average(batch: Sets | None, images: Sets | None, averaging: Averaging, weights: Tensor | None) -> Tensor:
    """The weighted mean over active classes, and images; 0 with a gradient of 0 where no class is active.

    Args:
        batch: One set per class, where "batch" has a share.
        images: One per image and class, where "image" or "class" has.
        averaging: The options.
        weights: One per class, None for equal ones. A class of weight 0 counts as one that is not active.
    """
    terms = []
    for name, share in averaging.shares.items():
        sets = batch if name == "batch" else images
        assert sets is not None
        counts = None if sets.active is None else sets.active.to(sets.loss.dtype)
        if counts is None and weights is not None:
            counts = torch.ones_like(sets.loss)
        if counts is None:
            value = sets.loss.mean()
        elif name == "class":
            per_class, any_image = _mean(sets.loss, counts, 0)
            value, _ = _mean(per_class, any_image if weights is None else any_image * weights, 0)
        else:
            value, any_class = _mean(sets.loss, counts if weights is None else counts * weights, -1)
            if name == "image":
                value, _ = _mean(value, any_class, 0)
        terms.append(value if share == 1 else share * value)
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum()


def _mean(values: Tensor, counts: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The mean weighted by `counts`, 0 where all are 0, and whether they are not, as 0 or 1."""
    total = counts.sum(dim)
    some = total > 0
    return (values * counts).sum(dim) / torch.where(some, total, 1.0), some.to(values.dtype)
