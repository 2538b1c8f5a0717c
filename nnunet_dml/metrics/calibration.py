"""Expected calibration error of the top label.

`reliability_counts` takes batches, checks only shapes, stays on the device, and returns sums that may be
added up over patches, batches, cases and ranks; `ece_from_counts` finishes them. Over all voxels of many
cases that is the pooled ECE.
"""

from __future__ import annotations

import torch

from nnunet_dml._checks import check_same_shape
from nnunet_dml.metrics._arrays import (
    Array,
    as_tensor,
    check_distribution,
    check_mask,
    check_shapes,
    is_label_dtype,
)

BINS = 10
_ROWS = 1024  # of sums that are added up in the end


def expected_calibration_error(
    probs: Array, reference: Array, *, bins: int = BINS, mask: Array | None = None
) -> float:
    r"""Expected calibration error of one case: top label, all voxels, background included.

    .. math:: \sum_b \frac{n_b}{N} \left| \mathrm{acc}_b - \mathrm{conf}_b \right|

    The confidence of a voxel is its largest probability, its predicted class the one that has it (on ties the
    lowest). Bins are [k/n, (k+1)/n), with 1 in the last.

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        reference: Either integer labels `(*spatial)`: a voxel is right or wrong. Or soft labels `(C,
            *spatial)`, floating: a voxel is right to the share of its predicted class.
        bins: How many bins of equal width.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        A value in [0, 1], lower is better; NaN if no voxel counts.

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ, values are outside [0, 1], NaN or do not sum to one, or labels are not
            classes.

    References:
        Guo et al., On Calibration of Modern Neural Networks (ICML 2017), Eq. 5.

    >>> foreground = torch.tensor([0.25, 0.75, 1.0])  # wrong with 0.75, right with 0.75, right with 1
    >>> probs = torch.stack([1 - foreground, foreground])
    >>> round(expected_calibration_error(probs, torch.tensor([1, 1, 1])), 4)  # 2/3 · |0.5 − 0.75|
    0.1667
    """
    p, y = as_tensor(probs, "probs"), as_tensor(reference, "reference")
    check_shapes(p, leading="C")
    _check_reference(p, y, class_axis=0)
    check_distribution(p, "probs")
    if y.ndim == p.ndim:
        check_distribution(y, "reference")
    else:
        counted = y if mask is None else y[check_mask(as_tensor(mask, "mask").to(y.device), tuple(y.shape))]
        if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < p.shape[0]:
            raise ValueError(
                f"Expected `reference` to hold labels 0 to {p.shape[0] - 1}, got {int(counted.min())} to "
                f"{int(counted.max())}. Leave ignored voxels out with `mask`."
            )
    keep = None if mask is None else as_tensor(mask, "mask")[None]
    return float(ece_from_counts(reliability_counts(p[None], y[None], bins=bins, mask=keep)))


def reliability_counts(
    probs: Array, reference: Array, *, bins: int = BINS, mask: Array | None = None
) -> torch.Tensor:
    """The sums from which the reliability diagram and the ECE are finished.

    Args:
        probs: `(B, C, *spatial)`, in [0, 1], background first. Values are not checked.
        reference: Integer labels `(B, *spatial)`, or soft labels `(B, C, *spatial)`, floating.
        bins: How many bins of equal width.
        mask: `(B, *spatial)`, boolean: the voxels that count. All by default.

    Returns:
        float64 `(3, bins)` on the device of `probs`: number of voxels, sum of their confidences, sum of their
        accuracies.

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ or there is no bin.
    """
    p, y = as_tensor(probs, "probs"), as_tensor(reference, "reference")
    check_shapes(p, leading="BC")
    _check_reference(p, y, class_axis=1)
    if bins < 1:
        raise ValueError(f"Expected argument `bins` to be at least 1, got {bins}.")
    y = y.to(p.device)
    confidence, top = p.max(1)
    accuracy = (top == y) if y.ndim < p.ndim else y.gather(1, top[:, None])[:, 0]
    keep = None
    if mask is not None:
        keep = check_mask(as_tensor(mask, "mask").to(p.device), tuple(confidence.shape)).reshape(-1)
    confidence, accuracy = confidence.reshape(-1), accuracy.reshape(-1)
    if confidence.dtype.itemsize < 4:
        confidence = confidence.float()
    # Compared in the confidences' own precision, so that the float nearest to k/n opens bin k.
    edges = (torch.arange(1, bins, dtype=torch.float64, device=p.device) / bins).to(confidence.dtype)
    place = torch.bucketize(confidence, edges, right=True)
    if keep is not None:
        place = torch.where(
            keep, place, bins
        )  # a bin of those that do not count: nothing waits for the device
    rows = 1
    if p.device.type != "cpu":  # thousands of threads that add to ten numbers would wait for one another
        rows = _ROWS
        place += (bins + 1) * (torch.arange(len(place), device=p.device) % rows)
    counts = torch.zeros(3, rows * (bins + 1), dtype=torch.float64, device=p.device)
    for count, values in zip(counts, (torch.ones_like(confidence), confidence, accuracy), strict=True):
        count.index_add_(0, place, values.double())
    return counts.view(3, rows, bins + 1).sum(1)[:, :bins]


def ece_from_counts(counts: torch.Tensor) -> torch.Tensor:
    """ECE from `reliability_counts` of one case, or from the sum over many.

    Args:
        counts: `(3, bins)`.

    Returns:
        A scalar float64 in [0, 1]; NaN if no voxel was counted.
    """
    number, confidence, accuracy = counts
    gap: torch.Tensor = (accuracy - confidence).abs().sum()
    error: torch.Tensor = gap / number.sum()
    return error


def _check_reference(probs: torch.Tensor, reference: torch.Tensor, *, class_axis: int) -> None:
    """The number of axes says what the reference is; its type must agree, nothing is guessed."""
    labels_shape = (*probs.shape[:class_axis], *probs.shape[class_axis + 1 :])
    if reference.ndim == probs.ndim:
        check_same_shape("reference", reference.shape, "probs", probs.shape)
        if not reference.dtype.is_floating_point:
            raise TypeError(
                f"Expected a soft `reference` of shape {tuple(probs.shape)} to hold fractions, got dtype "
                f"{reference.dtype}. Convert one-hot maps to float, or give labels of shape {labels_shape}."
            )
    else:
        check_same_shape("reference", reference.shape, "probs without its classes", labels_shape)
        if not is_label_dtype(reference):
            raise TypeError(
                f"Expected a label `reference` of shape {labels_shape} to hold integers, "
                f"got dtype {reference.dtype}. "
                f"Soft labels have the shape of `probs`, {tuple(probs.shape)}."
            )
