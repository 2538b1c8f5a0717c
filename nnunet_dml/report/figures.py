"""The figures of a report: reliability, confidence, BDice by threshold, volumes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nnunet_dml.evaluation.bootstrap import percentile_interval, weighted_means
from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.evaluation.records import ZONES
from nnunet_dml.report.pooled import ZONE_TITLES, curve, ece_of_sums, reliability_name, sums
from nnunet_dml.report.tables import RESAMPLES
from nnunet_dml.report.theme import INK, QUIET, Style, new_figure, style

Floats = npt.NDArray[np.float64]

LONGEST = 26
"""Letters of a model's name in a legend."""
PER_CENT = FuncFormatter(lambda value, _: f"{100 * value:.4g} %")

MOST_CLASSES = 12
"""Classes that have figures of their own."""


@dataclass(frozen=True)
class Series:
    """A model in the figures."""

    model: Evaluation
    style: Style
    label: str
    """Its name, cut to fit a legend."""


@dataclass(frozen=True)
class Chart:
    """A figure with its words."""

    name: str
    """Of its files, and unique."""
    section: str
    title: str
    description: str
    """What is to be seen, for those who do not see it."""
    figure: Figure


def series_of(models: Sequence[Evaluation], calibrated: Sequence[Evaluation] = ()) -> list[Series]:
    """The models in their colours; a calibrated one follows its own.

    Args:
        models: The models.
        calibrated: The same after calibration, in the same order; or none.
    """
    found = []
    for k, model in enumerate(models):
        found.append((model, style(k)))
        if calibrated:
            found.append((calibrated[k], style(k, after=True)))
    labels = legend_names([model.name for model, _ in found])
    return [Series(*it, label) for it, label in zip(found, labels, strict=True)]


def legend_names(names: Sequence[str]) -> list[str]:
    """Names of at most `LONGEST` letters, cut where they still differ, if near the middle there is such a place.

    >>> legend_names(["nnUNetTrainerDML/evaluation", "nnUNetTrainerJML/evaluation", "short"])
    ['nnUNetTrainerD…/evaluation', 'nnUNetTrainerJ…/evaluation', 'short']
    """
    names = [re.sub("^_", " _", name) for name in names]  # matplotlib hides labels that begin with one
    for head in sorted(range(LONGEST), key=lambda it: abs(it - LONGEST // 2)):
        tail = LONGEST - 1 - head
        cut = [it if len(it) <= LONGEST else f"{it[:head]}…{it[len(it) - tail :]}" for it in names]
        if len(set(cut)) == len(cut):
            return cut
    return [f"{k}: {name}"[: LONGEST - 1] + "…" for k, name in enumerate(names, start=1)]


def all_charts(series: Sequence[Series]) -> list[Chart]:
    """Every figure that the evaluations have the sums for."""
    charts = [*reliability_diagrams(series), *confidence_histograms(series)]
    classes = series[0].model.classes[:MOST_CLASSES]
    charts += [it for c in range(len(classes)) if (it := bdice_by_threshold(series, c)) is not None]
    for c in range(len(classes)):
        charts += volume_charts(series, c)
    return charts


def reliability_diagrams(series: Sequence[Series]) -> list[Chart]:
    """Accuracy against confidence, for each zone and against either reference, of the voxels of all cases."""
    charts = []
    for soft in (False, True):
        reference = "soft reference" if soft else "hard reference"
        for zone in ZONES:
            name = reliability_name(zone, soft=soft)
            found = [(it, counts.sum(0)) for it in series if (counts := sums(it.model, name)) is not None]
            if not found:
                continue
            figure = new_figure(3.5, 3.5)
            axes = figure.subplots()
            axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=":", zorder=1)
            said = []
            for it, counts in found:
                confidence, accuracy, _ = curve(counts)
                error = f"{100 * float(ece_of_sums(counts)):.2f} %"
                axes.plot(confidence, accuracy, label=f"{it.label}: ECE {error}", **it.style.line)  # type: ignore[arg-type]
                said.append(f"{it.model.name} has an ECE of {error}")
            axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="confidence", aspect="equal")
            axes.set_ylabel("share of raters who agree" if soft else "accuracy")
            axes.set_title(f"{ZONE_TITLES[zone].capitalize()}, {reference}", loc="left")
            _legend(figure, axes, len(found), "lower right")  # empty but for a model that is sure and wrong
            title = f"Reliability, {ZONE_TITLES[zone]}, {reference}"
            text = f"Reliability diagram: accuracy against confidence in bins. {'; '.join(said)}."
            charts.append(Chart(name.replace("_", "-"), "reliability", title, text, figure))
    return charts


def confidence_histograms(series: Sequence[Series]) -> list[Chart]:
    """The share of voxels in each bin of confidence, for each zone."""
    charts = []
    for zone in ZONES:
        name = reliability_name(zone, soft=False)
        found = [(it, counts.sum(0)[0]) for it in series if (counts := sums(it.model, name)) is not None]
        found = [(it, number / number.sum()) for it, number in found if number.sum() > 0]
        if not found:
            continue
        figure = new_figure(3.5, 2.6)
        axes = figure.subplots()
        said = []
        for it, share in found:
            edges = np.linspace(0, 1, len(share) + 1)
            dashes = it.style.line["linestyle"]
            axes.stairs(share, edges, color=it.style.colour, linestyle=dashes, linewidth=1.6, label=it.label)
            if len(found) == 1:
                axes.stairs(share, edges, color=it.style.colour, fill=True, alpha=0.25)
            said.append(f"{it.model.name}: {100 * share[-1]:.1f} % in the highest bin")
        axes.set_yscale("log")
        lowest = min(share[share > 0].min() for _, share in found)
        axes.set(xlim=(0, 1), ylim=(lowest / 3, 1.5), xlabel="confidence", ylabel="share of voxels")
        axes.yaxis.set_major_formatter(PER_CENT)
        axes.set_title(ZONE_TITLES[zone].capitalize(), loc="left")
        if len(found) > 1:
            _legend(figure, axes, len(found), "upper left")
        title = f"Confidence, {ZONE_TITLES[zone]}"
        text = f"Histogram of the top label's confidence. {'; '.join(said)}."
        charts.append(Chart(f"confidence-{zone}", "confidence", title, text, figure))
    return charts


def bdice_by_threshold(series: Sequence[Series], c: int) -> Chart | None:
    """Dice of both sides cut at each threshold, with the interval of its mean; None where it was not measured."""
    label = series[0].model.classes[c]
    figure = new_figure(3.5, 2.9)
    axes = figure.subplots()
    drawn, said = 0, []
    for it in series:
        values = sums(it.model, "bdice_by_threshold")
        levels = it.model.summary.get("options", {}).get("thresholds")
        if values is None or levels is None or values.shape[1:] != (len(it.model.classes), len(levels)):
            continue
        own = values[:, c]
        ends = percentile_interval(partial(weighted_means, values=own), len(own), resamples=RESAMPLES)
        middle = weighted_means(np.ones((1, len(own))), own)[0]
        axes.fill_between(levels, *ends, color=it.style.colour, alpha=0.14, linewidth=0)
        axes.plot(levels, middle, label=it.label, **it.style.line)  # type: ignore[arg-type]
        said.append(f"{it.model.name} from {100 * middle[0]:.1f} to {100 * middle[-1]:.1f} %")
        drawn += 1
    if not drawn:
        return None
    axes.set(xlabel="threshold", ylabel="Dice", xticks=levels)
    axes.yaxis.set_major_formatter(PER_CENT)
    axes.set_title(label, loc="left")
    if drawn > 1:
        _legend(figure, axes, drawn, "lower left")
    text = f"Dice of {label} by threshold, with 95 % intervals: {'; '.join(said)} at the lowest and highest threshold."
    return Chart(f"bdice-{c + 1}", "bdice", f"BDice by threshold, {label}", text, figure)


def volume_charts(series: Sequence[Series], c: int) -> list[Chart]:
    """Predicted against reference volume, and their Bland–Altman plot: one of each per model, all on one scale."""
    label = series[0].model.classes[c]
    pairs = []
    for it in series:
        if not {"volume_ml", "reference_ml"} <= set(it.model.measures):
            continue
        predicted, reference = it.model.values("volume_ml")[:, c], it.model.values("reference_ml")[:, c]
        both = ~np.isnan(predicted) & ~np.isnan(reference)
        if both.any():
            pairs.append((it, predicted[both], reference[both]))
    if not pairs:
        return []
    everything = np.concatenate([values for _, *both in pairs for values in both])
    top = 1.05 * max(float(everything.max()), 1e-6)
    reach = 1.1 * max(1e-6, *(float(np.abs(p - r).max()) for _, p, r in pairs))
    unit, factor = ("ml", 1.0) if top >= 0.1 else ("mm³", 1000.0)
    charts = []
    for k, (it, predicted, reference) in enumerate(pairs, start=1):
        number = f"-{k}" if len(pairs) > 1 else ""
        own = (it, predicted * factor, reference * factor)
        charts.append(_scatter(own, label, unit, top * factor, f"volume-{c + 1}{number}"))
        charts.append(
            _bland_altman(own, label, unit, top * factor, reach * factor, f"bland-altman-{c + 1}{number}")
        )
    return charts


def _scatter(own: tuple[Series, Floats, Floats], label: str, unit: str, top: float, name: str) -> Chart:
    it, predicted, reference = own
    figure = new_figure(3.5, 3.5)
    axes = figure.subplots()
    axes.plot([0, top], [0, top], color=QUIET, linewidth=1, linestyle=":")
    axes.plot(reference, predicted, alpha=0.75, **it.style.points)  # type: ignore[arg-type]
    axes.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    axes.set(xlabel=f"reference volume ({unit})", ylabel=f"predicted volume ({unit})")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.set_title(f"{label}: {it.label}", loc="left")
    spread = len(predicted) > 1 and predicted.std() > 0 and reference.std() > 0
    r = f", correlation {np.corrcoef(predicted, reference)[0, 1]:.3f}" if spread else ""
    text = f"Predicted against reference volume of {label}, {len(predicted)} cases of {it.model.name}{r}."
    return Chart(name, "volume", f"Volumes of {label}, {it.model.name}", text, figure)


def _bland_altman(
    own: tuple[Series, Floats, Floats], label: str, unit: str, top: float, reach: float, name: str
) -> Chart:
    it, predicted, reference = own
    difference, mean = predicted - reference, (predicted + reference) / 2
    figure = new_figure(3.5, 3.5)
    axes = figure.subplots()
    axes.plot(mean, difference, alpha=0.75, **it.style.points)  # type: ignore[arg-type]
    bias = float(difference.mean())
    spread = 1.96 * float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    axes.axhline(0, color=QUIET, linewidth=1, linestyle=":")
    reach = max(reach, 1.1 * (abs(bias) + spread))
    for value in (bias, bias + spread, bias - spread) if spread else (bias,):
        axes.axhline(value, color=INK, linewidth=1.1, linestyle="-" if value == bias else "--")
        if value != bias and spread < 0.12 * reach:
            continue  # its number would stand on that of the mean
        text = f"{value:+.3g}".replace("-", "−")
        axes.text(1.02, value, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set(xlim=(0, top), ylim=(-reach, reach))
    axes.set(xlabel=f"mean of both volumes ({unit})", ylabel=f"predicted − reference ({unit})")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_title(f"{label}: {it.label}", loc="left")
    text = (
        f"Bland–Altman plot of the volume of {label}, {it.model.name}: mean difference {bias:+.3g} {unit}, limits of "
        f"agreement {bias - spread:+.3g} to {bias + spread:+.3g} {unit}."
    )
    return Chart(name, "bland-altman", f"Bland–Altman plot of {label}, {it.model.name}", text, figure)


def _legend(
    figure: Figure, axes: Axes, number: int, loc: Literal["upper left", "lower left", "lower right"]
) -> None:
    """A legend where the axes have room for it; of many series below them."""
    if number <= 3:
        axes.legend(loc=loc, handlelength=2.2, borderaxespad=0.3)
        return
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.08 + 0.165 * number)
    figure.legend(loc="outside lower left", handlelength=2.2, labelspacing=0.3)
