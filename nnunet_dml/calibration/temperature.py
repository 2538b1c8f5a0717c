"""Temperature scaling: one number that flattens or sharpens all probabilities, found by a bounded search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from nnunet_dml._checks import check_same_shape
from nnunet_dml.calibration.calibrators import Arrays, ClassCalibrator, Rows, check_rows, numbers
from nnunet_dml.calibration.kde import FLOOR, working_dtype

BOUNDS = (0.05, 20.0)
_TIE = 1e-12  # a likelihood that is better by less is not better


@dataclass(frozen=True)
class TemperatureFit:
    """What `fit_temperature` found.

    Attributes:
        temperature: T; above 1 flattens, below 1 sharpens.
        nll: Mean negative log-likelihood at T, in nats per row (regions: per row and region).
        nll_before: The same at T = 1.
        at_bound: The best T is a bound of the search: the rows do not determine it (every prediction right, say).
    """

    temperature: float
    nll: float
    nll_before: float
    at_bound: bool


def fit_temperature(
    logits: Tensor,
    labels: Tensor,
    *,
    independent: bool = False,
    bounds: tuple[float, float] = BOUNDS,
    weights: Tensor | None = None,
) -> TemperatureFit:
    """The temperature with the greatest likelihood.

        T = argmin − Σ_j w_j Σ_c y_jc log softmax(z_j / T)_c / Σ_j w_j

    The likelihood has one maximum in T, but where every row is predicted right it is at T = 0 (at infinity, where
    every one is wrong), which masks of two classes easily reach; the bounds keep it from there, and
    `at_bound` says so. Where nothing is better than T = 1 by more than 1e-12, T is 1.

    Args:
        logits: z, (N, C), floating, at least one row. For softmax log-probabilities serve as well: they differ by a constant
            per row. From probabilities of either kind `logits_of` makes them.
        labels: y, (N, C), floating: one-hot or fractions.
        independent: The columns are regions: sigmoid instead of softmax, mean over the columns.
        bounds: Lowest and highest T, 0 < low < high.
        weights: w, (N,), above 0; all the same by default.

    Returns:
        T, the likelihood before and after, and whether T is a bound.

    Raises:
        ValueError: A wrong shape, no row, or bad bounds.
        TypeError: `logits` or `labels` is not floating.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.

    >>> fit = fit_temperature(torch.tensor([[3.0, 0.0]] * 4), torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]]))
    >>> round(fit.temperature, 2), fit.at_bound  # 3 of 4 are right: sigmoid(3 / T) = 0.75
    (2.73, False)
    """
    _check_fit(logits, labels, bounds, weights)
    z, y = logits.detach().double(), labels.detach().double()
    w = z.new_ones(len(z)) if weights is None else weights.detach().double()
    w = w / w.sum()

    def nll(temperature: float) -> float:
        if independent:
            losses = functional.binary_cross_entropy_with_logits(z / temperature, y, reduction="none").mean(1)
        else:
            losses = -(y * (z / temperature).log_softmax(1)).sum(1)
        return float((w * losses).sum())

    found = minimize_scalar(
        lambda log: nll(math.exp(log)),
        bounds=[math.log(it) for it in bounds],
        method="bounded",
        options={"xatol": 1e-6},
    )
    before = nll(1.0)
    best, score = 1.0, before
    if not bounds[0] <= 1 <= bounds[1]:
        best, score = bounds[0], nll(bounds[0])
    for temperature in (*bounds, math.exp(float(found.x))):
        if (value := nll(temperature)) < score - _TIE:
            best, score = temperature, value
    return TemperatureFit(best, score, before, best in bounds)


def apply_temperature(probs: Tensor, temperature: float, *, independent: bool = False) -> Tensor:
    """Probabilities at another temperature: softmax(log p / T), for regions sigmoid(log(p / (1 − p)) / T).

    Args:
        probs: (B, C, *spatial) or (N, C), floating, in [0, 1]; without `independent` summing to one over C. An exact 0
            counts as 1.2e-38.
        temperature: T > 0.
        independent: The channels are regions.

    Returns:
        The same shape, a new tensor, float32 (float64 if `probs` is), without a gradient.

    Raises:
        ValueError: T is not above 0, or `probs` has fewer than two axes.
        TypeError: `probs` is not floating.

    >>> apply_temperature(torch.tensor([[0.8, 0.2]]), 2.0)
    tensor([[0.6667, 0.3333]])
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"Expected argument `temperature` above 0 and finite, got {temperature}.")
    with torch.no_grad():
        logits = logits_of(probs, independent=independent) / temperature
        return logits.sigmoid() if independent else logits.softmax(1)


def logits_of(probs: Tensor, *, independent: bool = False) -> Tensor:
    """Logits that give these probabilities: log p, for regions log p − log(1 − p).

    Args:
        probs: (B, C, *spatial) or (N, C), floating, in [0, 1]; an exact 0 (regions: or 1) counts as 1.2e-38 away from it.
        independent: The channels are regions.

    Returns:
        The same shape, finite, float32 (float64 if `probs` is).

    Raises:
        ValueError: Fewer than two axes.
        TypeError: `probs` is not floating.
    """
    if not probs.is_floating_point():
        raise TypeError(f"Expected `probs` of a floating dtype, got {probs.dtype}.")
    if probs.ndim < 2:
        raise ValueError(f"Expected `probs` of shape (B, C, *spatial) or (N, C), got {tuple(probs.shape)}.")
    p = probs.to(working_dtype(probs))
    logs = p.clamp(min=FLOOR).log()
    return logs - (1 - p).clamp(min=FLOOR).log() if independent else logs


class TemperatureScaling(ClassCalibrator):
    """One temperature for all classes, see `fit_temperature`. The only method that never changes the greatest class."""

    method = "temperature"
    keeps_argmax = True
    channels = None

    def __init__(self, temperature: float) -> None:
        """Take T > 0."""
        if not 0 < temperature < math.inf:
            raise ValueError(f"Expected argument `temperature` above 0 and finite, got {temperature}.")
        self.temperature = temperature

    @classmethod
    def fit(cls, rows: Rows) -> TemperatureScaling:
        """The likeliest temperature; `fit_temperature` says what it raises."""
        check_rows(rows)
        logits = logits_of(rows.probs.double())
        return cls(fit_temperature(logits, rows.labels, weights=rows.weights).temperature)

    def of_rows(self, probs: Tensor) -> Tensor:
        """The rows at the temperature; at T = 1 as they are."""
        return probs if self.temperature == 1 else apply_temperature(probs, self.temperature)

    def to_arrays(self) -> Arrays:
        """T."""
        return {"temperature": np.array(self.temperature)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> TemperatureScaling:
        """See `ClassCalibrator.from_arrays`."""
        return cls(float(numbers(arrays, "temperature", axes=0)))


def _check_fit(logits: Tensor, labels: Tensor, bounds: tuple[float, float], weights: Tensor | None) -> None:
    for name, tensor in (("logits", logits), ("labels", labels)):
        if not tensor.is_floating_point():
            raise TypeError(f"Expected `{name}` of a floating dtype, got {tensor.dtype}.")
    if logits.ndim != 2 or not logits.numel():
        raise ValueError(
            f"Expected `logits` of shape (N, C) with at least one row, got {tuple(logits.shape)}."
        )
    check_same_shape(
        "labels", labels.shape, "logits", logits.shape, hint="For hard labels call `one_hot` first."
    )
    if weights is not None and tuple(weights.shape) != (len(logits),):
        raise ValueError(f"Expected `weights` of shape ({len(logits)},), got {tuple(weights.shape)}.")
    low, high = bounds
    if not 0 < low < high < math.inf:
        raise ValueError(f"Expected argument `bounds` with 0 < low < high, got {bounds}.")
