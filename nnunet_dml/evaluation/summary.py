"""From the records of all cases to the summary, the table and the two files."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_dml import __version__
from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file, read_json
from nnunet_dml.evaluation.cases import CaseRecord
from nnunet_dml.metrics import ece_from_counts
from nnunet_dml.metrics.empty_cases import BOTH_EMPTY, mean_of_defined
from nnunet_dml.metrics.overlap import THRESHOLDS

COLUMNS = ("case", "fold", "class", "dice", "bdice", "ece", "volume_bias")
PER_CLASS = ("dice", "bdice", "volume_bias")
ALL_CLASSES = "all"

DEFINITIONS = {
    "hard prediction": "the class with the largest probability; on ties the lowest",
    "dice": "hard prediction against labelsTr",
    "bdice": "probabilities against the soft reference, mean Dice of both cut at value >= threshold",
    "ece": "top label, all voxels, per image, against labelsTr; bins [k/n, (k+1)/n), 1 in the last",
    "ece_pooled": "the same from the voxels of all cases together",
    "volume_bias": "(sum of probabilities - sum of the soft reference) / sum of the soft reference",
    "mean": "over the cases in which the value is defined, then over the foreground classes",
    "empty masks": f"Dice of two is {BOTH_EMPTY:g}; volume bias against an empty reference is undefined",
}


def summarise(records: Sequence[CaseRecord], classes: Sequence[str], *, bins: int) -> dict[str, Any]:
    """Means, pooled figures and counts of all cases.

    Args:
        records: One per case.
        classes: Names of all classes, background first.
        bins: How many bins the reliability sums have.

    Returns:
        What JSON can hold; undefined figures are None.
    """
    foreground = classes[1:]
    raters = [r.raters for r in records]
    folds = sorted({r.fold for r in records if r.fold}, key=int)
    pooled = sum((r.reliability for r in records), np.zeros((3, bins)))

    def count(flags: list[list[bool]]) -> int:
        return int(np.sum(flags))

    both = [[a and b for a, b in zip(r.reference_empty, r.prediction_empty, strict=True)] for r in records]
    thresholds = [r.bdice_thresholds_both_empty for r in records]
    return {
        "cases": len(records),
        "classes": list(foreground),
        "mean": figures(records),
        "per_class": {
            name: {m: _number(_mean([getattr(r, m)[c] for r in records])) for m in PER_CLASS}
            for c, name in enumerate(foreground)
        },
        "per_fold": {
            fold: {
                "cases": sum(r.fold == fold for r in records),
                **figures([r for r in records if r.fold == fold]),
            }
            for fold in folds
        },
        "reliability": {
            "edges": [k / bins for k in range(bins + 1)],
            "voxels": [int(n) for n in pooled[0]],
            "confidence_sum": pooled[1].tolist(),
            "accuracy_sum": pooled[2].tolist(),
        },
        "empty": {
            "pairs_of_case_and_class": len(records) * len(foreground),
            "reference_empty": count([r.reference_empty for r in records]),
            "prediction_empty": count([r.prediction_empty for r in records]),
            "dice_decided_by_policy": count(both),
            "bdice_thresholds_decided_by_policy": int(np.sum(thresholds)),
            "bdice_thresholds": len(records) * len(foreground) * len(THRESHOLDS),
            "volume_bias_undefined": int(np.isnan([r.volume_bias for r in records]).sum()),
            "ece_undefined": int(np.isnan([r.ece for r in records]).sum()),
        },
        "raters": {
            "soft_reference": _soft_reference(raters),
            "per_case": {"min": min(raters), "max": max(raters)},
            "cases_without_raters": [r.case for r in records if r.raters == 0],
            "cases_with_one_rater": [r.case for r in records if r.raters == 1],
            "cases_all_empty": [r.case for r in records if r.raters_empty],
        },
        "ignored_voxels": sum(r.ignored_voxels for r in records),
        "definitions": DEFINITIONS,
        "versions": versions(),
    }


def figures(records: Sequence[CaseRecord]) -> dict[str, float | None]:
    """The means over some cases and classes, and their pooled ECE."""
    values = {
        m: _mean([_mean(column) for column in zip(*(getattr(r, m) for r in records), strict=True)])
        for m in PER_CLASS
    }
    pooled = torch.as_tensor(np.sum([r.reliability for r in records], axis=0))
    return {
        "dice": _number(values["dice"]),
        "bdice": _number(values["bdice"]),
        "ece": _number(_mean([r.ece for r in records])),
        "ece_pooled": _number(float(ece_from_counts(pooled))),
        "volume_bias": _number(values["volume_bias"]),
    }


def table(summary: dict[str, Any], notes: Sequence[str]) -> str:
    """The summary for people, in per cent."""
    head = ["", "cases", "Dice", "BDice", "ECE/image", "ECE pooled", "volume bias"]
    keys = ("dice", "bdice", "ece", "ece_pooled", "volume_bias")

    def row(name: str, cases: int, values: dict[str, float | None]) -> list[str]:
        return [name, str(cases), *(_percent(values.get(k, ""), signed=k == "volume_bias") for k in keys)]

    rows = [row(f"fold {fold}", values["cases"], values) for fold, values in summary["per_fold"].items()]
    rows.append(row("all", summary["cases"], summary["mean"]))
    if len(summary["classes"]) > 1:
        rows += [row(name, summary["cases"], values) for name, values in summary["per_class"].items()]
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in [head, *rows]
    ]
    empty, raters = summary["empty"], summary["raters"]
    span = raters["per_case"]
    who = f"{span['min']}" if span["min"] == span["max"] else f"{span['min']} to {span['max']}"
    lines += [
        "",
        "Per cent; means over cases. Dice and ECE: against labelsTr. BDice and volume bias: against",
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
    return "\n".join([*lines, *(f"Note: {note}." for note in notes)])


def write(
    folder: Path, records: Sequence[CaseRecord], classes: Sequence[str], summary: dict[str, Any]
) -> None:
    """Write `cases.csv` and `summary.json`, each whole or not at all.

    Raises:
        InputError: If they cannot be written (no permission, a full disk).
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            atomic_file(folder / "summary.json") as summary_file,
            atomic_file(folder / "cases.csv") as cases_file,
        ):
            with cases_file.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow(COLUMNS)
                writer.writerows(rows_of(records, classes))
            text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
            summary_file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise InputError(
            problem(
                folder,
                expected="to write cases.csv and summary.json there",
                found=error.strerror or str(error),
                todo="Nothing of this run was left behind.",
            )
        ) from None


def check_writable(folder: Path) -> None:
    """Find out before the work that the results cannot be written.

    Raises:
        InputError: If the folder is a file, or neither it nor its nearest parent can be written to, or it holds a
            `summary.json` of another program, such as nnU-Net's own in a validation folder.
    """
    import tempfile

    theirs = folder / "summary.json"
    if theirs.is_file() and "source" not in read_json(theirs):
        todo = "Give another -o."
        expected, found = "a summary of `nnunet-dml evaluate` or none", "another program's"
        raise InputError(problem(theirs, expected=expected, found=found, todo=todo))
    existing = folder
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(
            problem(
                f"-o {folder}", expected="a folder that can be written", found=error.strerror or str(error)
            )
        ) from None


def rows_of(records: Sequence[CaseRecord], classes: Sequence[str]) -> list[list[str | float]]:
    """The rows of `cases.csv`: one per foreground class, then one for what has no class. Undefined: `nan`."""
    rows: list[list[str | float]] = []
    for r in records:
        for c, name in enumerate(classes[1:]):
            rows.append([r.case, r.fold, name, r.dice[c], r.bdice[c], "", r.volume_bias[c]])
        rows.append([r.case, r.fold, ALL_CLASSES, "", "", r.ece, ""])
    return rows


def versions() -> dict[str, str]:
    """Of everything that the figures depend on."""
    found = {"nnunet_dml": __version__, "python": platform.python_version()}
    for name in ("nnunetv2", "torch", "numpy", "SimpleITK"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _soft_reference(raters: Sequence[int]) -> str:
    if max(raters) == 0:
        return "labelsTr as it is, as there is no ratersTr"
    mean = "the raters' uniform mean"
    return mean if min(raters) > 0 else f"{mean}, and labelsTr as it is for cases without raters"


def _mean(values: Sequence[float]) -> float:
    return float(mean_of_defined(torch.tensor(list(values), dtype=torch.float64)))


def _number(value: float) -> float | None:
    return None if value != value else value


def _percent(value: float | str | None, *, signed: bool) -> str:
    if isinstance(value, str):
        return value
    return "undefined" if value is None else f"{100 * value:{'+' if signed else ''}.2f}"
