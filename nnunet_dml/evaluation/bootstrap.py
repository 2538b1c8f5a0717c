"""Bootstrap confidence intervals over cases: of means, and of figures that are pooled over the cases' voxels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
LEVEL = 0.95
_NUMBERS = 2_000_000  # that are drawn at once

Floats = npt.NDArray[np.float64]


def percentile_interval(
    statistic: Callable[[Floats], Floats],
    cases: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Floats:
    """The percentile interval of statistics of the cases.

    Each resample draws as many cases as there are, with replacement, and is handed on as the number of times that each
    case was drawn: sums over the resample are one matrix product. All statistics see the same resamples.

    Args:
        statistic: From weights `(R, cases)` to values `(R, …)`; NaN where a resample has none.
        cases: How many there are, at least 1.
        resamples: How many resamples.
        seed: Of the random numbers.
        level: Of the interval.

    Returns:
        `(2, …)`: the lower and the upper end; NaN where no resample has a value.

    Raises:
        ValueError: If there are no cases or no resamples, or the level is not between 0 and 1.

    References:
        Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3. With few cases the interval is too
        narrow: of 10 normal values a 95 % interval covers the mean about 90 times in 100.

    >>> values = np.array([1.0, 2.0, 3.0])
    >>> percentile_interval(lambda weights: weights @ values / 3, 3, resamples=1000).tolist()  # all 1 to all 3
    [1.0, 3.0]
    """
    if cases < 1 or resamples < 1 or not 0 < level < 1:
        raise ValueError(
            "Expected arguments `cases` and `resamples` to be at least 1 and `level` between 0 and 1, "
            f"got {cases}, {resamples} and {level}."
        )
    rng = np.random.default_rng(seed)
    found = []
    step = max(1, _NUMBERS // cases)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(cases, size=(rows, cases)) + cases * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * cases).reshape(rows, cases)
        found.append(statistic(weights.astype(np.float64)))
    values = np.concatenate(found)
    tail = (1 - level) / 2
    ends = np.full((2, *values.shape[1:]), np.nan)
    some = ~np.isnan(values).all(axis=0)  # all of them: `nanquantile` would warn
    ends[:, some] = np.nanquantile(values[:, some], (tail, 1 - tail), axis=0)
    return ends


def weighted_means(weights: Floats, values: Floats) -> Floats:
    """The mean of each column over the cases in which it is defined, in each resample.

    Args:
        weights: `(R, cases)`.
        values: `(cases, K)`; NaN where undefined.

    Returns:
        `(R, K)`; NaN where a resample holds no defined value.
    """
    defined = ~np.isnan(values)
    total = weights @ np.where(defined, values, 0.0)
    number = weights @ defined.astype(np.float64)
    return np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
