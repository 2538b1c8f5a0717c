"""The sizes behind Dice and IoU: of label maps, of masks, and of fractions.

All `…_counts` have three rows, intersection, prediction and reference, and a column per class. They may be added up
over blocks, cases and ranks; `dice_from_counts` and `iou_from_counts` finish any of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml._checks import check_same_shape
from nnunet_dml.metrics._arrays import Array, as_tensor, check_mask, is_label_dtype
from nnunet_dml.metrics._voxels import PIECE, no_sums, one_case, pieces
from nnunet_dml.metrics.empty_cases import overlap_ratio


def iou_per_class(
    prediction: Array, reference: Array, *, num_classes: int, mask: Array | None = None
) -> npt.NDArray[np.float64]:
    r"""Intersection over union (Jaccard index) of two label maps, for each foreground class.

    .. math:: |P \cap R| / |P \cup R|

    Args:
        prediction: `(*spatial)`, integers below `num_classes`.
        reference: The same.
        num_classes: How many classes there are, background included.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        `(num_classes − 1,)`, each in [0, 1], higher is better; it is D / (2 − D) with the Dice D. A class in
        neither map has `empty_cases.BOTH_EMPTY`.

    Raises:
        TypeError: If an argument is not of integers or booleans.
        ValueError: If shapes differ or a counted label is outside 0 … `num_classes` − 1.

    References:
        Jaccard, The distribution of the flora in the alpine zone (New Phytologist 11, 1912).

    >>> iou_per_class(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), num_classes=4).tolist()
    [0.5, 0.5, 1.0]
    """
    counts = overlap_counts(prediction, reference, num_classes=num_classes, mask=mask)
    values: npt.NDArray[np.float64] = iou_from_counts(counts)[1:].cpu().numpy()
    return values


def soft_dice(probs: Array, reference: Array, *, mask: Array | None = None) -> npt.NDArray[np.float64]:
    r"""Soft Dice of one case in the form that is right for soft labels: 1 − Δ_DML,1.

    .. math:: 2 \sum \min(p, y) / \left( \sum p + \sum y \right) = 1 - \frac{\|p - y\|_1}{\|p\|_1 + \|y\|_1}

    The usual form with the product, `2 Σpy / (Σp + Σy)`, is the same for hard labels, but is largest for a
    prediction of 1 where half of the raters said 1.

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        reference: Integer labels `(*spatial)`, or soft labels `(C, *spatial)`, floating.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        `(C − 1,)`, a value in [0, 1] for each foreground class, higher is better; 1 exactly where `probs` are the
        labels. If both are 0 everywhere: `empty_cases.BOTH_EMPTY`.

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ, values are outside [0, 1], NaN or do not sum to one, or labels are not
            classes.

    References:
        Wang et al., Dice Semimetric Losses (MICCAI 2023), Eq. 4.

    >>> p, y = np.array([0.5, 0.5]), np.array([0.5, 0.0])
    >>> soft_dice(np.stack([1 - p, p]), np.stack([1 - y, y])).round(4)  # 2 · 0.5 / 1.5
    array([0.6667])
    """
    p, y, keep = one_case(probs, reference, mask)
    values: npt.NDArray[np.float64] = dice_from_counts(soft_overlap_counts(p, y, mask=keep))[1:].cpu().numpy()
    return values


def overlap_counts(
    prediction: Array, reference: Array, *, num_classes: int, mask: Array | None = None
) -> torch.Tensor:
    """The sizes of each class in two label maps.

    Args:
        prediction: `(*spatial)`, integers below `num_classes`; leading axes of a batch are summed over as well.
        reference: The same.
        num_classes: C, background included.
        mask: Of the same shape, boolean: the voxels that count. All by default.

    Returns:
        int64 `(3, C)`, background first: intersection, size of the prediction, of the reference.

    Raises:
        TypeError: If an argument is not of integers or booleans.
        ValueError: If shapes differ or a counted label is outside 0 … `num_classes` − 1.
    """
    first, second = label_maps(prediction, reference)
    keep = None
    if mask is not None:
        keep = check_mask(as_tensor(mask, "mask").to(first.device), tuple(first.shape)).reshape(-1)
    first, second = first.reshape(-1), second.reshape(-1)
    pairs = torch.zeros(num_classes**2, dtype=torch.int64, device=first.device)
    step = PIECE if first.device.type == "cpu" else max(1, len(first))
    for start in range(0, len(first), step):
        cut = slice(start, start + step)
        p, r = (x[cut] if keep is None else x[cut][keep[cut]] for x in (first, second))
        if not len(p):
            continue
        for name, labels in (("prediction", p), ("reference", r)):
            low, high = (
                int(v)
                for v in labels.to(torch.uint8 if labels.dtype == torch.bool else labels.dtype).aminmax()
            )
            if low < 0 or high >= num_classes:
                raise ValueError(
                    f"Expected `{name}` to hold labels 0 to {num_classes - 1}, got {low} to {high}."
                )
        pairs += torch.bincount(num_classes * p.int() + r, minlength=num_classes**2)
    table = pairs.view(num_classes, num_classes)
    return torch.stack([table.diagonal(), table.sum(1), table.sum(0)])


def mask_overlap_counts(prediction: Array, reference: Array, *, mask: Array | None = None) -> torch.Tensor:
    """The sizes of masks that may overlap one another, such as regions.

    Args:
        prediction: `(K, *spatial)`, boolean: a mask per region.
        reference: The same.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        int64 `(3, K)`: intersection, size of the prediction, of the reference.

    Raises:
        TypeError: If a mask is not boolean.
        ValueError: If shapes differ.
    """
    first, second = as_tensor(prediction, "prediction"), as_tensor(reference, "reference")
    check_same_shape("prediction", first.shape, "reference", second.shape)
    for name, tensor in (("prediction", first), ("reference", second)):
        if tensor.dtype != torch.bool:
            raise TypeError(
                f"Expected `{name}` to hold booleans, a mask per region, got dtype {tensor.dtype}."
            )
    second = second.to(first.device)
    keep = None
    if mask is not None:
        keep = check_mask(as_tensor(mask, "mask").to(first.device), tuple(first.shape[1:]))
    rows = []
    for p, r in zip(first, second, strict=True):
        inside, outside = (p, r) if keep is None else (p & keep, r & keep)
        rows.append(torch.stack([x.count_nonzero() for x in (inside & outside, inside, outside)]))
    return torch.stack(rows, dim=1)


def soft_overlap_counts(probs: Array, reference: Array, *, mask: Array | None = None) -> torch.Tensor:
    """The sizes of fractions: sums instead of numbers, the lesser of two as their intersection.

    Args:
        probs: `(B, C, *spatial)`, in [0, 1], background first. Values are not checked.
        reference: Integer labels `(B, *spatial)`, or soft labels `(B, C, *spatial)`, floating.
        mask: `(B, *spatial)`, boolean: the voxels that count. All by default.

    Returns:
        float64 `(3, C)` on the device of `probs`: Σ min(p, y), Σ p, Σ y; the last two are volumes in voxels.

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ.
    """
    voxels = pieces(probs, reference, mask)
    total = no_sums(probs, 3, probs.shape[1])
    for piece in voxels:
        columns = []
        for c, values in enumerate(piece.probs):
            share = piece.truth(c).to(values.dtype)
            rows = [torch.minimum(values, share), values, share]
            if piece.keep is not None:
                rows = [torch.where(piece.keep, row, 0) for row in rows]
            columns.append(torch.stack([row.sum(dtype=torch.float64) for row in rows]))
        total += torch.stack(columns, dim=1)
    return total


def dice_from_counts(counts: torch.Tensor) -> torch.Tensor:
    """Dice from the counts of one case, or from the sum over many; of `soft_overlap_counts` the soft Dice.

    Args:
        counts: `(…, 3, C)`.

    Returns:
        float64 `(…, C)` in [0, 1]; `empty_cases.BOTH_EMPTY` where both sizes are 0.
    """
    both, predicted, wanted = counts.unbind(-2)
    return overlap_ratio(2 * both, predicted + wanted)


def iou_from_counts(counts: torch.Tensor) -> torch.Tensor:
    """IoU from the counts of one case, or from the sum over many; of `soft_overlap_counts` Σ min / Σ max.

    Args:
        counts: `(…, 3, C)`.

    Returns:
        float64 `(…, C)` in [0, 1]; `empty_cases.BOTH_EMPTY` where both sizes are 0.
    """
    both, predicted, wanted = counts.unbind(-2)
    return overlap_ratio(both, predicted + wanted - both)


def label_maps(prediction: Array, reference: Array) -> tuple[torch.Tensor, torch.Tensor]:
    """Two label maps of one shape as tensors on one device.

    Raises:
        TypeError: If an argument is not of integers or booleans.
        ValueError: If shapes differ.
    """
    first, second = as_tensor(prediction, "prediction"), as_tensor(reference, "reference")
    for name, tensor in (("prediction", first), ("reference", second)):
        if not is_label_dtype(tensor):
            raise TypeError(
                f"Expected `{name}` to hold integers or booleans, got dtype {tensor.dtype}. "
                "Probabilities need a threshold or an argmax first."
            )
    check_same_shape("prediction", first.shape, "reference", second.shape)
    return first, second.to(first.device)
