"""Tables without a format: the summary with its confidence intervals, classes, comparison, empty masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from nnunet_dml.evaluation.bootstrap import percentile_interval, weighted_means
from nnunet_dml.evaluation.compare import Comparison
from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.evaluation.measures import GROUPS, MEASURES, Measure
from nnunet_dml.report.pooled import POOLED, POOLED_SUMS, ece_of_sums, sums

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
"""For tables and figures: the ends of the intervals are not read to more digits than these give."""


@dataclass(frozen=True)
class Cell:
    """What stands in a table."""

    text: str
    interval: str = ""
    best: bool = False
    measure: str = ""
    """Whose definition explains it."""


@dataclass
class Table:
    """Rows under columns, in groups."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    groups: dict[int, str] = field(default_factory=dict)
    """Number of a row: the group that begins with it."""

    def add(self, row: list[Cell], group: str = "") -> None:
        """Append a row; a group that is not that of the row before begins with it."""
        if group and (not self.groups or next(reversed(self.groups.values())) != group):
            self.groups[len(self.rows)] = group
        self.rows.append(row)


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def estimates(model: Evaluation, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """Every measure's mean over the cases in which it is defined, then over the classes; and the pooled figures.

    Args:
        model: The evaluation.
        resamples: Of the bootstrap over cases.
        seed: Of the bootstrap.

    Returns:
        By the measure's name, in the tables' order.
    """
    columns = by_class(model, resamples=resamples, seed=seed)
    names = list(model.measures)
    found = {name: columns[name][-1] for name in names}
    for name in POOLED:
        counts = sums(model, POOLED_SUMS[name])
        if counts is None:
            continue
        flat = counts.reshape(len(counts), -1)
        shape = counts.shape[1:]

        def pooled(weights: Floats, flat: Floats = flat, shape: tuple[int, ...] = shape) -> Floats:
            return ece_of_sums((weights @ flat).reshape(-1, *shape))

        low, high = percentile_interval(pooled, len(counts), resamples=resamples, seed=seed)
        found[name] = Estimate(float(ece_of_sums(counts.sum(0))), float(low), float(high))
    order = [*MEASURES, *POOLED]
    return {
        name: found[name]
        for name in sorted(found, key=lambda it: (GROUPS.index(measure_of(it).group), order.index(it)))
    }


def by_class(model: Evaluation, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, list[Estimate]]:
    """Every measure's mean over the cases, for each class, then their mean; one alone where it has no class."""
    names = model.measures
    blocks = [model.values(name) for name in names]
    width = [block.shape[1] for block in blocks]
    ends = np.cumsum([0, *width])
    values = np.concatenate(blocks, axis=1) if blocks else np.empty((len(model.records), 0))

    def means(weights: Floats) -> Floats:
        each = weighted_means(weights, values)
        over = [_mean_of_defined(each[:, a:b]) for a, b in pairwise(ends)]
        return np.concatenate([each, np.stack(over, axis=1)], axis=1)

    middle = means(np.ones((1, len(model.records))))[0]
    low, high = percentile_interval(means, len(model.records), resamples=resamples, seed=seed)
    all_of = [Estimate(*map(float, it)) for it in zip(middle, low, high, strict=True)]
    found = {}
    for k, name in enumerate(names):
        own = all_of[ends[k] : ends[k + 1]] if MEASURES[name].per_class else []
        found[name] = [*own, all_of[ends[-1] + k]]
    return found


def summary_table(
    models: Sequence[Evaluation], figures: Sequence[dict[str, Estimate]], *, caption: str
) -> Table:
    """A row per measure, a column per model; the best of several is marked."""
    table = Table(caption, ["Measure", *(model.name for model in models)])
    for name in dict.fromkeys(name for found in figures for name in found):
        measure = measure_of(name)
        own = [found.get(name) for found in figures]
        best = _best(measure, [it.value if it else np.nan for it in own])
        cells = [_cell(measure, it, best=k in best) for k, it in enumerate(own)]
        table.add([Cell(measure.heading, measure=name), *cells], measure.group)
    return table


def class_table(model: Evaluation, columns: dict[str, list[Estimate]]) -> Table:
    """A row per measure that has classes, a column per class."""
    table = Table(f"{model.name}, class by class", ["Measure", *model.classes])
    for name, own in columns.items():
        if MEASURES[name].per_class:
            cells = [_cell(MEASURES[name], it) for it in own[:-1]]
            table.add([Cell(MEASURES[name].heading, measure=name), *cells], MEASURES[name].group)
    return table


def comparison_table(comparison: Comparison) -> Table:
    """A row per test."""
    with_class = len({row.label for row in comparison.rows if row.label}) > 1
    level = f"{100 * comparison.level:g} %"
    columns = ["Measure", *(["Class"] if with_class else []), "Cases", "Baseline", "Model", "Difference"]
    columns += [f"{level} interval", "Wins / ties / losses", "p", "p (Holm)"]
    caption = f"Differences on {len(comparison.cases)} common cases"
    table = Table(caption, columns)
    for row in comparison.rows:
        measure = MEASURES[row.measure]
        title = f"|{measure.title}| ({measure.unit})" if measure.better == "zero" else measure.heading
        low, high = (_signed(measure, it) for it in (row.low, row.high))
        cells = [Cell(title, measure=row.measure), *([Cell(row.label)] if with_class else [])]
        texts = [str(row.cases), _plain(measure, row.baseline_mean), _plain(measure, row.model_mean)]
        texts += [_signed(measure, row.difference), f"{low} to {high}"]
        texts += [f"{row.wins} / {row.ties} / {row.losses}", p_text(row.p), p_text(row.p_holm)]
        clear = row.p_holm < 1 - comparison.level
        cells += [Cell(text) for text in texts[:-1]] + [Cell(texts[-1], best=bool(clear))]
        table.add(cells, f"{row.model} against {row.baseline}")
    return table


def p_text(p: float) -> str:
    """A p-value as it is printed.

    >>> p_text(0.0312), p_text(0.00004), p_text(float("nan")), p_text(1.0)
    ('0.031', '< 0.001', '–', '1.000')
    """
    return "–" if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def measure_of(name: str) -> Measure:
    """A measure of a case, or one that is pooled over them."""
    return MEASURES[name] if name in MEASURES else POOLED[name]


def _cell(measure: Measure, it: Estimate | None, *, best: bool = False) -> Cell:
    if it is None:
        return Cell("")
    interval = "" if np.isnan(it.low) else f"{measure.text(it.low)} to {measure.text(it.high)}"
    return Cell(measure.text(it.value), interval, best)


def _best(measure: Measure, values: Sequence[float]) -> set[int]:
    """The places of the best values; none where there is nothing to choose from."""
    if measure.better == "" or np.sum(~np.isnan(values)) < 2:
        return set()
    array = np.asarray(values)
    cost = {"higher": -array, "lower": array, "zero": np.abs(array)}[measure.better]
    return set(np.flatnonzero(cost == np.nanmin(cost)).tolist())


def _signed(measure: Measure, value: float) -> str:
    text = measure.text(value)
    return text if np.isnan(value) or text[0] in "+−" else f"+{text}"


def _plain(measure: Measure, value: float) -> str:
    return measure.text(value).removeprefix("+")


def _mean_of_defined(values: Floats) -> Floats:
    defined = ~np.isnan(values)
    number = defined.sum(axis=1)
    total = np.where(defined, values, 0.0).sum(axis=1)
    return np.divide(total, number, out=np.full(len(values), np.nan), where=number > 0)
