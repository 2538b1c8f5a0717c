"""From the records of raters to the summary, the printed table and the files."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import atomic_file, atomic_folder, check_can_write, read_json
from nnunet_dml.evaluation.rater_masks import Raters
from nnunet_dml.evaluation.raters import CaseAgreement, Tables
from nnunet_dml.evaluation.summary import versions
from nnunet_dml.metrics.empty_cases import BOTH_EMPTY

KIND = "agreement of raters"
MEANS = ("dice_majority", "dice_others", "dice_pairs", "kappa", "disputed_of_all", "disputed_of_union")
PER_RATER = ("dice_majority", "dice_others", "dice_pairs", "volume_ml", "volume_bias")
PICTURES = "pictures"
FILES = ("cases.csv", "raters.csv", "pairs.csv", "summary.json")

DEFINITIONS = {
    "majority vote": "the label with the most votes of those who voted, ties to the lowest label",
    "dice_majority": "a rater against the majority vote of all raters, himself included",
    "dice_others": "a rater against the majority vote of the other raters",
    "dice_pairs": "a rater against another one",
    "kappa": "Fleiss' kappa of 'this class or not', over all voxels of a case",
    "disputed": "voxels to which some of the raters who voted gave the class, and not all",
    "tied": "voxels in which a label of the class and another one shared the most votes",
    "volume_ratio_pooled": "the raters' mean volume / the majority vote's, summed over the cases",
    "volume_bias": "(a rater's volume - the majority vote's) / the majority vote's",
    "mean": "over a case's raters, then over the cases in which the value is defined, then over the classes",
    "per rater": "mean over his cases in which the value is defined",
    "abstaining": "where a rater's mask has the ignore label; two masks are compared where both voted",
    "empty masks": f"Dice of two is {BOTH_EMPTY:g}; kappa is undefined where all votes are for one side",
}


def summarise(raters: Raters, records: Sequence[CaseAgreement], found: Tables) -> dict[str, Any]:
    """Means, pooled figures and counts of all cases.

    Args:
        raters: What cases, raters and classes there are.
        records: One per case with two raters or more.
        found: Their tables.

    Returns:
        What JSON can hold; undefined figures are None.
    """
    names = list(raters.classes.members)
    per_class = {
        name: _of_class(*(t[t["class"] == name] for t in (found.cases, found.raters))) for name in names
    }
    counts = Counter(len(case.masks) for case in raters.cases)
    return {
        "kind": KIND,
        "folder": str(raters.folder),
        "classes": {name: list(values) for name, values in raters.classes.members.items()},
        "ignore_label": raters.classes.ignore,
        "cases": len(raters.cases),
        "compared": len(records),
        "raters_per_case": {str(n): count for n, count in sorted(counts.items())},
        "cases_without_raters": [case.name for case in raters.cases if not case.masks],
        "cases_with_one_rater": [case.name for case in raters.cases if len(case.masks) == 1],
        "identical_raters": identical_raters(found),
        "mean": _numbers(found.cases.groupby("class")[list(MEANS)].mean().mean()),
        "per_class": per_class,
        "empty": {
            "dice_majority_values": len(found.raters),
            "dice_majority_decided_by_policy": sum(a.majority_both_empty for r in records for a in r.classes),
            "kappa_values": len(found.cases),
            "kappa_undefined": int(found.cases["kappa"].isna().sum()),
        },
        "definitions": DEFINITIONS,
        "versions": versions(),
    }


def identical_raters(found: Tables) -> list[list[str]]:
    """Pairs of raters whose masks are the same in every case that both annotated, and not all empty."""
    same = found.pairs.groupby(["rater", "other"])["dice"].min() == 1
    filled = found.raters.groupby("rater")["voxels"].sum() > 0
    return [[first, second] for first, second in same.index[same] if filled[first] and filled[second]]


def _of_class(cases: pd.DataFrame, raters: pd.DataFrame) -> dict[str, Any]:
    """The figures of one class from its rows."""
    total = cases.sum(numeric_only=True)
    with np.errstate(invalid="ignore", divide="ignore"):  # a class that is nowhere: undefined
        pooled = {
            "disputed_of_all_pooled": total["disputed_voxels"] / total["voxels"],
            "disputed_of_union_pooled": total["disputed_voxels"] / total["union_voxels"],
            "volume_ratio_pooled": total["raters_mean_voxels"] / total["majority_voxels"],
        }
    return {
        **_numbers(cases[list(MEANS)].mean()),
        **_numbers(pd.Series(pooled)),
        "tied_voxels": int(total["tied_voxels"]),
        "per_rater": {
            str(name): {
                "cases": len(rows),
                **_numbers(rows[list(PER_RATER)].mean()),
                "lowest_dice_majority": _number(rows["dice_majority"].min()),
            }
            for name, rows in raters.groupby("rater")
        },
    }


def table(summary: dict[str, Any]) -> str:
    """The summary for people, in per cent (kappa: as it is)."""
    head = ["class", "rater", "cases", "Dice/majority", "lowest", "Dice/others", "Dice/pairs", "volume bias"]
    rows = []
    for name, figures in summary["per_class"].items():
        for rater, own in figures["per_rater"].items():
            keys = ("dice_majority", "lowest_dice_majority", "dice_others", "dice_pairs")
            values = [percent(own[key]) for key in keys]
            rows.append([name, rater, str(own["cases"]), *values, percent(own["volume_bias"], signed=True)])
        means = [percent(figures[key]) for key in ("dice_majority", "dice_others", "dice_pairs")]
        ratio = figures["volume_ratio_pooled"]
        bias = percent(None if ratio is None else ratio - 1, signed=True)
        rows.append([name, "all", str(summary["compared"]), means[0], "", *means[1:], bias])
    overall, empty = summary["mean"], summary["empty"]
    lines = [
        *columns([head, *rows], left=2),
        "",
        *columns(
            [
                ["class", "kappa", "disputed, of union", "of all voxels", "tied voxels"],
                *(
                    [
                        name,
                        "undefined" if figures["kappa"] is None else f"{figures['kappa']:.3f}",
                        percent(figures["disputed_of_union_pooled"]),
                        percent(figures["disputed_of_all_pooled"]),
                        str(figures["tied_voxels"]),
                    ]
                    for name, figures in summary["per_class"].items()
                ),
            ],
            left=1,
        ),
        "",
        f"A rater's Dice against the majority vote, mean: {percent(overall['dice_majority'])}",
        "",
        "Per cent, but for kappa and counts; means over cases, shares of voxels pooled. The vote includes the rater;",
        "'others' leaves him out. Volume bias: against the majority vote's; in the rows 'all' of all voxels together.",
        f"Empty masks decided {empty['dice_majority_decided_by_policy']} of {empty['dice_majority_values']} Dice values "
        f"(both empty: {BOTH_EMPTY:g}); kappa undefined {empty['kappa_undefined']} of {empty['kappa_values']} times.",
    ]
    for key, text in (("cases_without_raters", "without raters"), ("cases_with_one_rater", "with one rater")):
        if names := summary[key]:
            lines.append(f"Cases {text}, left out of everything: {len(names)} ({some(names, 8)})")
    lines += [
        f"Note: {a} and {b} gave the same masks everywhere. One of them may be a copy."
        for a, b in summary["identical_raters"]
    ]
    return "\n".join(lines)


def columns(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Lines of aligned cells: the first `left` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def percent(value: float | None, *, signed: bool = False) -> str:
    """A fraction in per cent, or `undefined`."""
    return "undefined" if value is None else f"{100 * value:{'+' if signed else ''}.2f}"


def check_output(folder: Path) -> None:
    """Find out before the work that the results cannot be written, or would replace something else.

    Raises:
        InputError: It is a file or cannot be written to, or it holds files that would be replaced and are not of an
            earlier run.
    """
    mark = folder / "summary.json"
    ours = mark.is_file() and read_json(mark).get("kind") == KIND
    taken = [name for name in (*FILES, PICTURES) if (folder / name).exists()]
    if taken and not ours:
        expected, found = "an empty folder or one of an earlier run of `nnunet-dml raters`", some(taken)
        raise InputError(problem(f"-o {folder}", expected=expected, found=found, todo="Give another -o."))
    check_can_write(f"-o {folder}", folder)


def write(
    folder: Path, found: Tables, summary: dict[str, Any], *, draw: Callable[[Path], object] | None = None
) -> None:
    """Write `cases.csv`, `raters.csv`, `pairs.csv`, `summary.json` and the folder `pictures`, all of them or none.

    Args:
        folder: Where to; what an earlier run left there is replaced, its pictures too.
        found: The tables.
        summary: What `summarise` made of them.
        draw: Makes the pictures in the folder that it is given; None makes none.

    Raises:
        OSError: They could not be written.
        InputError: As `draw` does.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            if draw is not None:
                draw(stack.enter_context(atomic_folder(folder / PICTURES, replace=True)))
            paths = {name: stack.enter_context(atomic_file(folder / name)) for name in FILES}
            for name in ("cases", "raters", "pairs"):
                rows: pd.DataFrame = getattr(found, name)
                rows.to_csv(paths[f"{name}.csv"], index=False, na_rep="nan", lineterminator="\n")
            text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
            paths["summary.json"].write_text(text + "\n", encoding="utf-8")
        if draw is None:
            shutil.rmtree(folder / PICTURES, ignore_errors=True)  # an earlier run's, of other figures
    except BaseException:
        if made and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _numbers(values: pd.Series[Any]) -> dict[str, float | None]:
    return {str(key): _number(value) for key, value in values.items()}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
