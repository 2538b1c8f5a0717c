"""Two models on the same cases: paired differences, their confidence intervals and tests."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import wilcoxon

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml.evaluation.bootstrap import LEVEL, RESAMPLES, percentile_interval
from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.evaluation.measures import MEASURES

DEFAULTS = ("dice", "bdice", "ece", "brier", "volume_bias")
MEAN = "mean"
"""Stands for the mean over the classes."""

TIE = 1e-9
"""Values that differ by no more are equal: sums of float32 and float64 in another order."""

FEWEST = 6
"""Cases below which no two-sided signed-rank test can reach 0.05: the least p is 2^(1 − n)."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A measure of two models, case by case: `model` − `baseline`."""

    measure: str
    label: str
    """The class; `mean` over several; empty where the measure has none."""
    baseline: str
    model: str
    cases: int
    """In which both are defined."""
    undefined: int
    """Common cases in which one is not; they are left out."""
    baseline_mean: float
    model_mean: float
    difference: float
    """Mean over the cases. Of a measure that should be zero, of its absolute values, as are the two means."""
    low: float
    high: float
    """Ends of the bootstrap's interval; NaN with fewer than two cases."""
    wins: int
    """Cases in which `model` is better."""
    ties: int
    losses: int
    p: float
    """Wilcoxon's signed-rank test, two-sided; NaN with fewer than two cases."""
    p_holm: float
    """The same, corrected for all tests of the comparison."""


@dataclass(frozen=True)
class Comparison:
    """Several models on the cases that all of them have."""

    rows: list[Difference]
    cases: list[str]
    left_out: dict[str, list[str]]
    """Cases of each model that not all have."""
    resamples: int
    seed: int
    level: float
    notes: list[str] = field(default_factory=list)

    @property
    def tests(self) -> int:
        """How many tests Holm's correction is over."""
        return sum(not np.isnan(row.p) for row in self.rows)

    @property
    def explanation(self) -> str:
        """What the figures are."""
        return (
            "Model − baseline, paired by case; means over the cases. "
            f"Interval: {100 * self.level:g} %, percentile bootstrap over cases, {self.resamples} resamples, seed {self.seed}. "
            f"p: Wilcoxon's signed-rank test, two-sided; Holm's correction over {self.tests} tests. "
            "A win is a case in which the model is better; volume biases are compared by their absolute values."
        )


def compare(
    pairs: Sequence[tuple[Evaluation, Evaluation]],
    *,
    measures: Sequence[str] | None = None,
    per_class: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Comparison:
    """Compare models in pairs, on the cases that all of them have.

    Args:
        pairs: Each a baseline and a model; all checked by `folder.check_comparable`.
        measures: Names of `MEASURES`; those of `DEFAULTS` that all have by default.
        per_class: Whether a measure that has classes is compared class by class instead of its mean over a case's
            classes.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        level: Of its intervals.

    Returns:
        A row per pair, measure and class.

    Raises:
        InputError: A measure is unknown, has no better side or was not measured; or there are fewer than two common
            cases.
    """
    models = list({id(it): it for pair in pairs for it in pair}.values())
    common = sorted(set.intersection(*(set(it.cases) for it in models)))
    left_out = {it.name: sorted(set(it.cases) - set(common)) for it in models}
    if len(common) < 2:
        expected = "at least two cases that all evaluations have"
        found = f"{len(common)} of {', '.join(f'{len(it.cases)} in {it.name}' for it in models)}"
        where = " and ".join(str(it.folder) for it in models)
        raise InputError(
            problem(where, expected=expected, found=found, todo="There is nothing to test with fewer.")
        )
    chosen = _chosen(models, measures)
    on_common = {id(it): it.only(common) for it in models}
    rows = []
    for baseline, model in pairs:
        for name in chosen:
            for label, a, b in _columns(on_common[id(baseline)], on_common[id(model)], name, per_class):
                interval = {"resamples": resamples, "seed": seed, "level": level}
                rows.append(_difference(name, label, baseline.name, model.name, a, b, **interval))
    corrected = holm(np.array([row.p for row in rows]))
    rows = [Difference(**{**vars(row), "p_holm": float(p)}) for row, p in zip(rows, corrected, strict=True)]
    return Comparison(rows, common, left_out, resamples, seed, level, _notes(rows, len(common), left_out))


def as_json(comparison: Comparison) -> dict[str, Any]:
    """What JSON can hold; undefined figures are None."""
    rows = [
        {key: None if isinstance(it, float) and np.isnan(it) else it for key, it in vars(row).items()}
        for row in comparison.rows
    ]
    return {
        **vars(comparison),
        "tests": comparison.tests,
        "explanation": comparison.explanation,
        "rows": rows,
    }


def write_csv(comparison: Comparison, path: Path) -> None:
    """A row per difference; its columns are those of `Difference`, undefined figures `nan`."""
    names = [it.name for it in fields(Difference)]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([getattr(row, name) for name in names] for row in comparison.rows)


def holm(p: Floats) -> Floats:
    """Holm's step-down correction of p-values.

    The i-th smallest of m is multiplied by m − i + 1, and is at least as large as those before it, at most 1.

    Args:
        p: `(N,)`; NaN is no test and stays NaN.

    References:
        Holm, A simple sequentially rejective multiple test procedure (Scandinavian Journal of Statistics 6, 1979).

    >>> holm(np.array([0.01, 0.04, 0.03, np.nan])).tolist()
    [0.03, 0.06, 0.06, nan]
    """
    result = np.full(len(p), np.nan)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN comes last
    factors = np.arange(len(order), 0, -1)
    result[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return result


def signed_rank_p(differences: Floats) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; zeros are dropped, 1 where all are zero.

    Exact up to 50 differences without ties of size, else by the normal approximation.

    References:
        Wilcoxon, Individual comparisons by ranking methods (Biometrics Bulletin 1, 1945); scipy.stats.wilcoxon.

    >>> signed_rank_p(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))  # 2 / 2^6
    0.03125
    """
    kept = differences[np.abs(differences) > TIE]
    if not len(kept):
        return 1.0
    digits = 12  # so that equal sizes are equal
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small samples: the notes say it
        return float(wilcoxon(kept.round(digits)).pvalue)


def _chosen(models: Sequence[Evaluation], wanted: Sequence[str] | None) -> list[str]:
    """The measures that are compared."""
    there = [
        name for name in MEASURES if MEASURES[name].better and all(name in model.measures for model in models)
    ]
    if wanted is None:
        return [name for name in DEFAULTS if name in there] or there
    wrong = [name for name in dict.fromkeys(wanted) if name not in there]
    if wrong:
        neutral = [name for name in wrong if name in MEASURES and not MEASURES[name].better]
        found = ", ".join(wrong) + (f" ({', '.join(neutral)}: neither side is better)" if neutral else "")
        expected = f"measures that all evaluations have: {', '.join(there)}"
        raise InputError(problem("--metrics", expected=expected, found=found))
    return list(dict.fromkeys(wanted))


def _columns(a: Evaluation, b: Evaluation, name: str, per_class: bool) -> list[tuple[str, Floats, Floats]]:
    """What is compared of a measure: a label and the values of both, `(cases,)`."""
    measure = MEASURES[name]
    first, second = a.values(name), b.values(name)
    if measure.better == "zero":
        first, second = np.abs(first), np.abs(second)
    if not measure.per_class:
        return [("", first[:, 0], second[:, 0])]
    if per_class or len(a.classes) == 1:
        return [(label, first[:, c], second[:, c]) for c, label in enumerate(a.classes)]
    both = ~np.isnan(first) & ~np.isnan(second)  # so that the mean is over the same classes
    number = both.sum(axis=1)
    means = [
        np.divide(np.where(both, it, 0).sum(axis=1), number, out=np.full(len(it), np.nan), where=number > 0)
        for it in (first, second)
    ]
    return [(MEAN, *means)]


def _difference(
    name: str, label: str, baseline: str, model: str, a: Floats, b: Floats, **interval: float
) -> Difference:
    """One row, from two columns of values; not corrected yet."""
    both = ~np.isnan(a) & ~np.isnan(b)
    a, b = a[both], b[both]
    cases = len(a)
    d = b - a
    better = d if MEASURES[name].better == "higher" else -d
    wins, losses = int((better > TIE).sum()), int((better < -TIE).sum())
    low = high = p = np.nan
    if cases > 1:
        ends = percentile_interval(lambda weights: weights @ d / cases, cases, **interval)  # type: ignore[arg-type]
        low, high, p = float(ends[0]), float(ends[1]), signed_rank_p(d)
    return Difference(
        measure=name,
        label=label,
        baseline=baseline,
        model=model,
        cases=cases,
        undefined=len(both) - cases,
        baseline_mean=_mean(a),
        model_mean=_mean(b),
        difference=_mean(d),
        low=low,
        high=high,
        wins=wins,
        ties=cases - wins - losses,
        losses=losses,
        p=p,
        p_holm=np.nan,
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else np.nan


def _notes(rows: Sequence[Difference], common: int, left_out: dict[str, list[str]]) -> list[str]:
    """What a reader must know besides the figures."""
    notes = [
        f"{len(cases)} cases of {name} are not in all evaluations and are left out: {some(cases)}"
        for name, cases in left_out.items()
        if cases
    ]
    if common < FEWEST:
        notes.append(
            f"{common} cases are too few for a test: no p can be below {2.0 ** (1 - common):.2g}, whatever the differences"
        )
    undefined = sum(row.undefined for row in rows)
    if undefined:
        notes.append(f"{undefined} pairs of values are left out, as one of the two is undefined")
    if untested := sum(row.cases < 2 for row in rows):
        notes.append(f"{untested} rows have fewer than two defined pairs and no test")
    return notes
