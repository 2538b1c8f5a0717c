"""Selection of the bandwidth from a grid: by leave-one-out likelihood or by the Brier score of held-out voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_dml._checks import check_same_shape
from nnunet_dml.calibration.kde import check_bandwidth, kernel_calibrate

GRID = tuple(float(f"{10 ** (k / 3 - 5):.3g}") for k in range(16))  # 1e-5 … 1, three to a decade
LEAST = 1e-6  # a probability counts as no less, so that one impossible key does not decide alone


@dataclass(frozen=True)
class BandwidthSearch:
    """A chosen bandwidth and how all of them did.

    Attributes:
        bandwidth: The one with the lowest score; the smallest of several.
        grid: All that were tried, ascending.
        scores: Their scores, lower is better.
    """

    bandwidth: float
    grid: tuple[float, ...]
    scores: tuple[float, ...]


def bandwidth_by_likelihood(
    key_probs: Tensor,
    key_labels: Tensor,
    *,
    kernel: str = "dirichlet",
    key_weights: Tensor | None = None,
    grid: Sequence[float] = GRID,
    memory_mib: float | None = None,
) -> BandwidthSearch:
    """The bandwidth under which the keys' labels are likeliest, each estimated from all keys but itself.

        score(h) = − Σ_i w_i Σ_c y_ic log Ê_{−i}[y | f(x_i)]_c / Σ_i w_i       (nats per key; floor of 1e-6 in the log)

    Args:
        key_probs: (M, C), at least two keys; as in `kernel_calibrate`.
        key_labels: (M, C).
        kernel: `"dirichlet"` or `"beta"`; with `"beta"` each column is a two-class problem, their scores are averaged.
        key_weights: (M,), above 0; all the same by default.
        grid: Bandwidths to try, each above 0.
        memory_mib: Bound on the working memory.

    Returns:
        The choice and the scores. Noisy keys make the score noisy; a choice at an end of the grid says
        that the grid is too short.

    Raises:
        ValueError: Fewer than two keys, an empty grid, or what `kernel_calibrate` refuses.
        TypeError: As `kernel_calibrate`.

    Source: leave-one-out maximum likelihood, as in Popordanoska et al., NeurIPS 2022, section 4.
    """
    if len(key_probs) < 2:
        raise ValueError(f"Expected at least two keys in `key_probs`, got {len(key_probs)}.")
    own = torch.arange(len(key_probs), device=key_probs.device)
    weights = torch.ones_like(own, dtype=torch.float64) if key_weights is None else key_weights.double()

    def score(bandwidth: float) -> float:
        estimate = kernel_calibrate(
            key_probs.double(),
            key_probs,
            key_labels,
            bandwidth=bandwidth,
            kernel=kernel,
            own_key=own,
            key_weights=key_weights,
            memory_mib=memory_mib,
        )
        labels = key_labels.double()
        loss = -labels * estimate.clamp(min=LEAST).log()
        if kernel == "beta":
            loss = (loss - (1 - labels) * (1 - estimate).clamp(min=LEAST).log()) / labels.shape[1]
        return float((weights * loss.sum(1)).sum() / weights.sum())

    return _search(score, grid)


def bandwidth_by_brier(
    probs: Tensor,
    labels: Tensor,
    key_probs: Tensor,
    key_labels: Tensor,
    *,
    kernel: str = "dirichlet",
    key_weights: Tensor | None = None,
    grid: Sequence[float] = GRID,
    memory_mib: float | None = None,
) -> BandwidthSearch:
    """The bandwidth with the lowest Brier score on voxels that are no keys (better: of other cases).

        score(h) = 1/N Σ_j Σ_c (Ê[y | f(x_j)]_c − y_jc)²

    Args:
        probs: (N, C), at least one row: the held-out voxels' f(x).
        labels: (N, C), their labels, one-hot or fractions.
        key_probs: (M, C), as in `kernel_calibrate`.
        key_labels: (M, C).
        kernel: `"dirichlet"` or `"beta"`.
        key_weights: (M,), above 0; all the same by default.
        grid: Bandwidths to try, each above 0.
        memory_mib: Bound on the working memory.

    Returns:
        The choice and the scores.

    Raises:
        ValueError: No held-out voxel, an empty grid, shapes that differ, or what `kernel_calibrate` refuses.
        TypeError: As `kernel_calibrate`.

    Source: Brier, Verification of Forecasts Expressed in Terms of Probability, 1950.
    """
    check_same_shape("labels", labels.shape, "probs", probs.shape)
    if not len(probs):
        raise ValueError("Expected at least one held-out voxel in `probs`, got none.")

    def score(bandwidth: float) -> float:
        estimate = kernel_calibrate(
            probs,
            key_probs,
            key_labels,
            bandwidth=bandwidth,
            kernel=kernel,
            key_weights=key_weights,
            memory_mib=memory_mib,
        )
        return float((estimate.double() - labels.double()).square().sum(1).mean())

    return _search(score, grid)


def _search(score: Callable[[float], float], grid: Sequence[float]) -> BandwidthSearch:
    if not len(grid):
        raise ValueError("Expected argument `grid` to hold at least one bandwidth, got none.")
    for bandwidth in grid:
        check_bandwidth(bandwidth)
    tried = tuple(sorted(grid))
    scores = tuple(score(bandwidth) for bandwidth in tried)
    return BandwidthSearch(tried[scores.index(min(scores))], tried, scores)
