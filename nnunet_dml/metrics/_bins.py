"""Histograms of probabilities: which bin a value is in, and the sums of each bin."""

from __future__ import annotations

import torch

_ROWS = 1024  # of sums that are added up in the end

STEPS = 6
"""Fine bins per halving of the distance to 0 or 1: 2 to the power of this."""
_FINEST, _COARSEST = 127 - 25, 127 - 1  # exponents of float32: below 2^-25 all is one bin, 2^-1 is the middle
_SIDE = ((_COARSEST - _FINEST) << STEPS) + 1
FINE_BINS = 2 * _SIDE


def equal_width(values: torch.Tensor, bins: int) -> torch.Tensor:
    """The bin [k/n, (k+1)/n) of each value, 1 in the last.

    Compared in the values' own precision, so that the float nearest to k/n opens bin k.
    """
    edges = (torch.arange(bins + 1, dtype=torch.float64, device=values.device) / bins).to(values.dtype)
    edges[0], edges[-1] = -torch.inf, torch.inf
    place = (values * bins).int().clamp_(0, bins - 1)
    # the product may have been rounded over an edge; three times faster than a search
    place -= (values < edges.index_select(0, place)).int()
    place += (values >= edges[1:].index_select(0, place)).int()
    return place.clamp_(0, bins - 1)  # infinity, which no bin is for, stays visible in the sums


def fine(values: torch.Tensor) -> torch.Tensor:
    """The fine bin of each value: narrow near 0 and 1, where segmentations' probabilities are.

    The bin is the exponent and the first `STEPS` binary digits of the distance to the nearer end, in single
    precision: relative to that distance no bin is wider than 1/64.
    """
    values = values.float().clamp(0, 1)
    upper = values >= 0.5
    distance = torch.minimum(values, 1 - values)  # 1 − v is exact from 0.5 on
    level = ((distance.view(torch.int32) >> (23 - STEPS)) - (_FINEST << STEPS)).clamp_(0, _SIDE - 1)
    return level + upper.int() * (FINE_BINS - 1 - 2 * level)


def fine_widths() -> torch.Tensor:
    """float64 `(FINE_BINS,)`: the width of each fine bin, rounding to single precision included."""
    level = torch.arange(_SIDE + 1, dtype=torch.int32) + (_FINEST << STEPS)
    edges = (level << (23 - STEPS)).view(torch.float32).double()
    edges[0] = 0
    side = edges.diff()
    side[-1] = 0  # the middle, 0.5, alone
    return torch.cat([side, side.flip(0)]) + 2.0**-24


def binned_sums(
    place: torch.Tensor, values: torch.Tensor, truth: torch.Tensor, *, bins: int, keep: torch.Tensor | None
) -> torch.Tensor:
    """float64 `(3, bins)`: number, sum of the values and sum of the truth of each bin."""
    if keep is not None:  # a bin of those that do not count: nothing waits for the device
        place = torch.where(keep, place, bins)
    rows = 1
    if place.device.type != "cpu":  # thousands of threads that add to ten numbers would wait for one another
        rows = _ROWS
        place = place + (bins + 1) * (torch.arange(len(place), device=place.device) % rows).int()
    sums = torch.zeros(3, rows * (bins + 1), dtype=torch.float64, device=place.device)
    for row, added in zip(sums, (torch.ones_like(values), values, truth), strict=True):
        row.index_add_(0, place, added.double())
    return sums.view(3, rows, bins + 1).sum(1)[:, :bins]


def check_bins(bins: int) -> None:
    """Raise `ValueError` unless there is a bin."""
    if bins < 1:
        raise ValueError(f"Expected argument `bins` to be at least 1, got {bins}.")
