"""The records as rows: `cases.csv`, and the table for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnunet_dml.evaluation.dataset import ALL_CLASSES
from nnunet_dml.evaluation.figures import OVERALL, PER_CLASS
from nnunet_dml.evaluation.records import CaseRecord
from nnunet_dml.metrics.empty_cases import BOTH_EMPTY

CASES_CSV = "cases.csv"
FIRST = ("dice", "bdice", "ece", "volume_bias")  # where older scripts look for them
BY = ("case", "class", "fold")

SHOWN = {
    "dice": "Dice",
    "bdice": "BDice",
    "ece": "ECE/image",
    "ece_pooled": "ECE pooled",
    "soft_ece": "soft ECE",
    "foreground_ece": "ECE near fg",
    "boundary_ece": "BECE",
    "brier": "Brier",
    "classwise_ece": "ECE of class",
    "volume_bias": "volume bias",
    "surface_dice": "surface Dice",
    "hd95_mm": "HD95 mm",
}
"""Columns of the table; those that were measured, and the class-wise error only where classes are asked for."""


def cases_csv(records: Sequence[CaseRecord], foreground: Sequence[str]) -> str:
    """The text of `cases.csv`: per case a row for each foreground class, then one for what has no class.

    Fractions; `nan` where a value is undefined, nothing where it does not belong to the row.
    """
    measured = {name for r in records for values in (r.overall, *r.per_class.values()) for name in values}
    names = [name for name in dict.fromkeys((*FIRST, *PER_CLASS, *OVERALL)) if name in measured]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "fold", "class", *names])
    for r in records:
        for row, values in (*((it, r.per_class[it]) for it in foreground), (ALL_CLASSES, r.overall)):
            writer.writerow([r.case, r.fold, row, *(values.get(name, "") for name in names)])
    return text.getvalue()


def table(
    summary: dict[str, Any], records: Sequence[CaseRecord], notes: Sequence[str], *, by: str | None = None
) -> str:
    """The summary for people, in per cent.

    Args:
        summary: Of `summary.summarise`.
        records: The cases.
        notes: What stands below.
        by: One of `BY`: what has a row each, beside all together. By default folds and classes.
    """
    mean = summary["mean"]
    shown = {key: name for key, name in SHOWN.items() if key in mean}
    if by != "class":
        shown.pop("classwise_ece", None)
    if mean.get("soft_ece") == mean.get("ece"):  # the soft reference is the hard one
        shown.pop("soft_ece", None)

    def row(name: str, cases: int, values: dict[str, Any]) -> list[str]:
        return [name, str(cases), *(_cell(key, values.get(key, "")) for key in shown)]

    rows = []
    if by in (None, "fold"):
        rows += [row(f"fold {fold}", values["cases"], values) for fold, values in summary["per_fold"].items()]
    if by == "case":
        rows += [row(r.case, 1, _of_case(r)) for r in records]
    classes = [row(name, summary["cases"], values) for name, values in summary["per_class"].items()]
    rows.append(row("all", summary["cases"], summary["mean"]))
    if by == "class" or (by is None and len(classes) > 1):
        rows += classes
    return "\n".join(
        [
            *_aligned([["", "cases", *shown.values()], *rows]),
            "",
            *_below(summary),
            *(f"Note: {note}." for note in notes),
        ]
    )


def _of_case(record: CaseRecord) -> dict[str, float | None]:
    """A case's figures, those of classes as the mean of the defined ones."""
    values: dict[str, float | None] = dict(record.overall)
    for name in PER_CLASS:
        found = [it[name] for it in record.per_class.values() if name in it]
        defined = [value for value in found if value == value]
        if found:
            values[name] = float(np.mean(defined)) if defined else None
    values["ece_pooled"] = record.overall["ece"]
    return values


def _below(summary: dict[str, Any]) -> list[str]:
    empty, raters = summary["empty"], summary["raters"]
    span = raters["per_case"]
    who = f"{span['min']}" if span["min"] == span["max"] else f"{span['min']} to {span['max']}"
    lines = [
        "Per cent; means over cases. Dice, Brier and calibration errors: against labelsTr. BDice, volume bias and soft: against",
        f"{raters['soft_reference']} ({who} raters per case).",
        f"Empty masks decided {empty['dice_decided_by_policy']} of {empty['pairs_of_case_and_class']} Dice "
        f"values and {empty['bdice_thresholds_decided_by_policy']} of {empty['bdice_thresholds']} thresholds "
        f"(both empty: {BOTH_EMPTY:g}); volume bias undefined {empty['volume_bias_undefined']} times.",
    ]
    for key, text in (
        ("cases_without_raters", "without raters"),
        ("cases_with_one_rater", "with one rater"),
        ("cases_all_empty", "that every rater left empty"),
    ):
        if raters[key]:
            names = raters[key]
            lines.append(
                f"Cases {text}: {len(names)} ({', '.join(names[:8])}{' …' if len(names) > 8 else ''})"
            )
    if summary["ignored_voxels"]:
        lines.append(f"Voxels with the ignore label, left out of everything: {summary['ignored_voxels']}")
    return lines


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in rows
    ]


def _cell(key: str, value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return "undefined"
    if key.endswith("_mm"):
        return f"{value:.2f}"
    return f"{100 * value:{'+' if key == 'volume_bias' else ''}.2f}"
