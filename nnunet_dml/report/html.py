"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from nnunet_dml import __version__
from nnunet_dml.evaluation.compare import Comparison
from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.evaluation.measures import GROUPS, MEASURES
from nnunet_dml.report.about import about_tables
from nnunet_dml.report.figures import Chart
from nnunet_dml.report.pictures import ERROR, MAP, CasePictures, colour_bar
from nnunet_dml.report.pooled import POOLED
from nnunet_dml.report.reading import reading
from nnunet_dml.report.tables import Cell, Estimate, Table, measure_of
from nnunet_dml.report.theme import inline_svg
from nnunet_dml.report.training import full_name, training_table

TILES = ("dice", "bdice", "ece_pooled", "volume_bias")
CASE_COLUMNS = (
    "dice",
    "bdice",
    "surface_dice",
    "hd95_mm",
    "ece",
    "soft_ece",
    "foreground_ece",
    "brier",
    "volume_bias",
    "volume_ml",
    "reference_ml",
)
"""Of the table of cases of one model."""
CASE_COLUMNS_OF_SEVERAL = ("dice", "bdice", "ece", "volume_bias")
MOST_CLASSES = 8
"""That have a column of their own in the table of cases."""


@dataclass
class Report:
    """What a report shows."""

    models: list[Evaluation]
    calibrated: list[Evaluation]
    """The same after calibration, one each, or none."""
    summary: Table
    estimates: dict[str, Estimate]
    """Of the first model."""
    class_tables: list[Table]
    comparison: Comparison | None
    comparison_table: Table | None
    comparison_notes: list[str]
    charts: list[Chart]
    pictures: list[CasePictures]
    resamples: int
    seed: int
    notes: list[str] = field(default_factory=list)

    @property
    def shown(self) -> list[Evaluation]:
        """All models, each before its calibrated self."""
        if not self.calibrated:
            return self.models
        return [it for pair in zip(self.models, self.calibrated, strict=True) for it in pair]


def render(report: Report) -> str:
    """The HTML of a report."""
    environment = Environment(
        loader=PackageLoader("nnunet_dml.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    return environment.get_template("report.html").render(_context(report))


def _context(report: Report) -> dict[str, Any]:
    """What the template names."""
    first = report.models[0]
    names = [model.name for model in report.models]
    there = {chart.section for chart in report.charts}
    columns, rows = case_table(report.shown)
    sections = [("summary", "Summary"), ("training", "Training")]
    if report.comparison_table or report.comparison_notes:
        sections.append(("comparison", "Comparison"))
    sections += [
        (anchor, text)
        for anchor, text in (
            ("reliability", "Reliability"),
            ("bdice", "Dice by threshold"),
            ("volume", "Volumes"),
        )
        if anchor in there
    ]
    sections += [
        ("pictures", "Pictures"),
        ("cases", "Cases"),
        ("definitions", "Definitions"),
        ("about", "Data"),
    ]
    cases = {len(model.records) for model in report.shown}
    count = " to ".join(map(str, sorted({min(cases), max(cases)})))
    return {
        "title": f"{first.dataset}: {names[0]}"
        if len(names) == 1
        else f"{first.dataset}: {len(names)} models",
        "lead": f"{count} cases, {_classes(first)}"
        + (f"; {said}" if (said := ", ".join(names) if len(names) > 1 else full_name(first)) else "")
        + (", before and after calibration." if report.calibrated else "."),
        "sections": sections,
        "models": report.shown,
        "calibrated": bool(report.calibrated),
        "tiles": _tiles(report) if len(report.shown) == 1 else [],
        "reading": reading(
            first,
            {row[0].measure for row in report.summary.rows},
            compared=report.comparison_table is not None,
        ),
        "summary": report.summary,
        "notes": report.notes,
        "class_tables": report.class_tables,
        "fine_grained": fine_grained_table(report.shown),
        "training": training_table(report.models),
        "comparison": report.comparison_table,
        "comparison_explanation": report.comparison.explanation if report.comparison else "",
        "comparison_note": report.comparison_notes,
        "figures": [_chart(chart) for chart in report.charts],
        "has_reliability": "reliability" in there,
        "has_bdice": "bdice" in there,
        "has_volume": "volume" in there,
        "pictures": [_case(it) for it in report.pictures],
        "map_bar": colour_bar(MAP),
        "error_bar": colour_bar(ERROR),
        "case_columns": columns,
        "case_rows": rows,
        "definitions": definitions(report.shown),
        "about": about_tables(report.shown),
        "resamples": report.resamples,
        "seed": report.seed,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
    }


def breakable(text: str) -> Markup:
    """A text in which a name may be broken behind underscores and before the words that it is made of.

    >>> breakable("nnUNetTrainerDML__<b>")
    Markup('nnUNet<wbr>TrainerDML__<wbr>&lt;b&gt;')
    """
    return Markup("<wbr>").join(re.split(r"(?<=\w_)(?=[^_])|(?<=[a-z])(?=[A-Z][a-z])", text))


def case_table(models: Sequence[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """The table of all cases.

    Args:
        models: One has many columns, several have a few each.

    Returns:
        The columns' heads, `Case` and `Fold` first, and the rows' texts. Of several classes their mean, and of one model
        each class's Dice, too.
    """
    wanted = CASE_COLUMNS if len(models) == 1 else CASE_COLUMNS_OF_SEVERAL
    heads = ["Case", "Fold"]
    columns: list[dict[str, str]] = []

    def add(head: str, name: str, model: Evaluation, values: Sequence[float]) -> None:
        heads.append(head)
        texts = [MEASURES[name].text(value) for value in values]
        columns.append(dict(zip((r.case for r in model.records), texts, strict=True)))

    for name in wanted:
        for model in models:
            if name not in model.measures:
                continue
            measure = MEASURES[name]
            unit = f" ({measure.unit})" if measure.unit else ""
            head = f"{measure.title}{unit}" if len(models) == 1 else f"{measure.title}{unit}, {model.name}"
            values = model.values(name)
            add(head, name, model, _row_means(values))
            if name == "dice" and len(models) == 1 and 1 < len(model.classes) <= MOST_CLASSES:
                for c, label in enumerate(model.classes):
                    add(f"{measure.title}{unit}, {label}", name, model, values[:, c].tolist())
    folds = {r.case: r.fold for model in reversed(models) for r in model.records}
    rows = [
        [case, folds[case] or "–", *(column.get(case, "–") for column in columns)] for case in sorted(folds)
    ]
    return heads, rows


def definitions(models: Sequence[Evaluation]) -> list[tuple[str, str, str]]:
    """The definitions of all that is shown: anchor, name, words; then what the evaluation says of itself."""
    names = [name for name in MEASURES if any(name in model.measures for model in models)]
    ordered = sorted((*names, *POOLED), key=lambda name: GROUPS.index(measure_of(name).group))
    shown = [(name, measure_of(name).title, measure_of(name).definition) for name in ordered]
    own = dict(models[0].summary.get("definitions", {}))
    soft = models[0].summary.get("raters", {}).get("soft_reference")
    if soft and "soft reference" in own:  # which leads to a key of summary.json
        own["soft reference"] = soft
    general = [(key, text) for key, text in own.items() if key not in MEASURES and key not in POOLED]
    return shown + [("", (key[:1].upper() + key[1:]).replace("_", " "), str(text)) for key, text in general]


def fine_grained_table(models: Sequence[Evaluation]) -> Table | None:
    """Dice and IoU per data set, image and class, where the summaries have them."""
    columns = {"per_dataset": "Per data set", "per_image": "Per image", "per_class": "Per class"}
    table = Table("Dice and IoU averaged in three ways", ["Measure", *columns.values()])
    for model in models:
        for name, values in model.summary.get("fine_grained", {}).items():
            if name in MEASURES:
                texts = [MEASURES[name].text(_float(values.get(key))) for key in columns]
                group = model.name if len(models) > 1 else ""
                table.add([Cell(MEASURES[name].heading, measure=name), *map(Cell, texts)], group)
    return table if table.rows else None


def _tiles(report: Report) -> list[dict[str, object]]:
    """The few figures that stand large above the table."""
    found = []
    for name in TILES:
        if (it := report.estimates.get(name)) is None:
            continue
        measure = measure_of(name)
        interval = "" if np.isnan(it.low) else f"{measure.text(it.low)} to {measure.text(it.high)}"
        found.append(
            {"title": measure.title, "unit": measure.unit, "cell": Cell(measure.text(it.value), interval)}
        )
    return found


def _chart(chart: Chart) -> dict[str, object]:
    svg = inline_svg(chart.figure, chart.name, str(escape(chart.description)))
    return {"section": chart.section, "title": chart.title, "svg": Markup(svg)}


def _case(it: CasePictures) -> dict[str, object]:
    rows = [
        {
            "title": row.title,
            "panels": [
                {
                    "title": panel.title,
                    "description": f"{panel.description}. {it.case}, {row.title}.",
                    "data": b64encode(panel.png()).decode(),
                }
                for panel in row.panels
            ],
        }
        for row in it.rows
    ]
    dice = MEASURES["dice"].text(it.dice)
    return {
        "role": it.role,
        "case": it.case,
        "dice": dice,
        "raters": it.raters,
        "rows": rows,
        "notes": it.notes,
    }


def _classes(model: Evaluation) -> str:
    number = len(model.classes)
    return f"{number} foreground classes" if number > 1 else f"one foreground class ({model.classes[0]})"


def _row_means(values: np.ndarray) -> list[float]:
    return [float(row[~np.isnan(row)].mean()) if (~np.isnan(row)).any() else np.nan for row in values]


def _float(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan
