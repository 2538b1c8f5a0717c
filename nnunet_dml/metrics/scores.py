"""Proper scores of probabilities: Brier score and negative log-likelihood. Means over voxels.

`brier_counts` and `nll_counts` take batches, check only shapes, stay on the device, and return sums that may be
added up over blocks, cases and ranks before `…_from_counts` finishes them.
"""

from __future__ import annotations

import torch

from nnunet_dml.metrics._arrays import Array
from nnunet_dml.metrics._voxels import no_sums, one_case, pieces

CLAMP = 1e-7
"""The least probability whose logarithm is taken: half precision knows none between 0 and 6e-8, and one voxel with 0
would make the mean infinite. So a voxel's NLL is at most 16.1."""


def brier_score(probs: Array, reference: Array, *, mask: Array | None = None) -> float:
    r"""Brier score of one case: the squared distance of probabilities and labels.

    .. math:: \frac 1 N \sum_i \sum_c (p_{ic} - y_{ic})^2

    For regions give `complements` one by one: then it is twice the binary Brier score, `(p − y)²`.

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        reference: Integer labels `(*spatial)`, or soft labels `(C, *spatial)`, floating.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        A value in [0, 2], lower is better; NaN if no voxel counts. 0 means that `probs` equal the labels, hard or
        soft. (Against the mean of several raters it is lower than the mean of their Brier scores by the raters' own
        variance, which no prediction can change: `Σ_c y_c (1 − y_c)` for hard raters.)

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ, values are outside [0, 1], NaN or do not sum to one, or labels are not
            classes.

    References:
        Brier, Verification of forecasts expressed in terms of probability (Monthly Weather Review 78, 1950), Eq. 2.

    >>> p = torch.tensor([0.9, 0.5])
    >>> round(brier_score(torch.stack([1 - p, p]), torch.tensor([1, 0])), 4)  # (2 · 0.01 + 2 · 0.25) / 2
    0.26
    """
    p, y, keep = one_case(probs, reference, mask)
    return float(brier_from_counts(brier_counts(p, y, mask=keep)))


def negative_log_likelihood(probs: Array, reference: Array, *, mask: Array | None = None) -> float:
    r"""Negative log-likelihood of one case, in nats: the cross-entropy of labels and probabilities.

    .. math:: -\frac 1 N \sum_i \sum_c y_{ic} \ln \max(p_{ic}, 10^{-7})

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        reference: Integer labels `(*spatial)`, or soft labels `(C, *spatial)`, floating.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        A value in [0, 16.2), lower is better; NaN if no voxel counts. Against hard labels the best is 0; against
        soft ones it is their entropy, at `probs` equal to them: `nll_counts` has it, too.

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ, values are outside [0, 1], NaN or do not sum to one, or labels are not
            classes.

    References:
        Guo et al., On Calibration of Modern Neural Networks (ICML 2017), Eq. 6, there as a sum.

    >>> p = torch.tensor([0.9, 0.5])
    >>> round(negative_log_likelihood(torch.stack([1 - p, p]), torch.tensor([1, 0])), 4)  # −(ln 0.9 + ln 0.5) / 2
    0.3993
    """
    p, y, keep = one_case(probs, reference, mask)
    return float(nll_from_counts(nll_counts(p, y, mask=keep)))


def brier_counts(probs: Array, reference: Array, *, mask: Array | None = None) -> torch.Tensor:
    """The sums from which the Brier score is finished.

    Args:
        probs: `(B, C, *spatial)`, in [0, 1], background first. Values are not checked.
        reference: Integer labels `(B, *spatial)`, or soft labels `(B, C, *spatial)`, floating.
        mask: `(B, *spatial)`, boolean: the voxels that count. All by default.

    Returns:
        float64 `(2,)` on the device of `probs`: number of voxels, sum of their squared distances.

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ.
    """
    total = no_sums(probs, 2)
    for piece in pieces(probs, reference, mask):
        squares = torch.zeros_like(piece.probs[0])
        for c, values in enumerate(piece.probs):
            squares += (values - piece.truth(c).to(values.dtype)) ** 2
        total += _sums(squares, keep=piece.keep)
    return total


def nll_counts(probs: Array, reference: Array, *, mask: Array | None = None) -> torch.Tensor:
    """The sums from which the negative log-likelihood is finished.

    Args:
        probs: `(B, C, *spatial)`, in [0, 1], background first. Values are not checked.
        reference: Integer labels `(B, *spatial)`, or soft labels `(B, C, *spatial)`, floating.
        mask: `(B, *spatial)`, boolean: the voxels that count. All by default.

    Returns:
        float64 `(3,)` on the device of `probs`: number of voxels, sum of their negative log-likelihoods, sum of
        the entropies of their labels (0 for hard ones).

    Raises:
        TypeError: If `probs` is not floating, or the reference's type does not fit its shape.
        ValueError: If shapes differ.
    """
    total = no_sums(probs, 3)
    for piece in pieces(probs, reference, mask):
        likelihood = torch.zeros_like(piece.probs[0])
        entropy = torch.zeros_like(likelihood)
        if piece.reference.ndim == 2:
            for values, share in zip(piece.probs, piece.reference, strict=True):
                likelihood -= share * values.clamp(min=CLAMP).log()
                entropy -= torch.xlogy(share, share)
        else:
            for c, values in enumerate(piece.probs):
                likelihood += values * piece.truth(c)
            likelihood = -likelihood.clamp(min=CLAMP).log()
        total += _sums(likelihood, entropy, keep=piece.keep)
    return total


def brier_from_counts(counts: torch.Tensor) -> torch.Tensor:
    """The Brier score from `brier_counts`, `(…, 2)`: float64 `(…)`; NaN if no voxel was counted."""
    return counts[..., 1] / counts[..., 0]


def nll_from_counts(counts: torch.Tensor) -> torch.Tensor:
    """The negative log-likelihood from `nll_counts`, `(…, 3)`: float64 `(…)`; NaN if no voxel was counted."""
    return counts[..., 1] / counts[..., 0]


def _sums(*rows: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    """float64: the number of voxels and the sum of each row, over the voxels to keep."""
    table = torch.stack([torch.ones_like(rows[0]), *rows])
    if keep is not None:
        table = torch.where(keep, table, 0)
    return table.sum(1, dtype=torch.float64)
