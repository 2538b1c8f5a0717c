"""A grid's results as a table: mean ± standard deviation, confidence intervals, the paper's figures beside them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nnunet_dml._files import atomic_file
from nnunet_dml.benchmark.grid import ALL, Grid
from nnunet_dml.benchmark.training import Cell as Training
from nnunet_dml.benchmark.training import paper_keys
from nnunet_dml.evaluation.bootstrap import percentile_interval, weighted_means
from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.evaluation.measures import MEASURES
from nnunet_dml.report.tables import Cell, Table
from nnunet_dml.report.text import latex, markdown


@dataclass(frozen=True)
class Pooled:
    """A calibration error of all cases' voxels together."""

    heading: str
    sums: str
    """The reliability sums of a case that it is made of."""


POOLED = {
    "ece_pooled": Pooled("ECE pooled (%)", "reliability"),
    "foreground_ece_pooled": Pooled("ECE pooled, foreground (%)", "reliability_foreground"),
    "soft_ece_pooled": Pooled("Soft ECE pooled (%)", "soft_reliability"),
}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A figure of the table, in the unit that it is printed in."""

    value: float
    sd: float
    """Over the folds, or over the seeds where there are several; NaN where there is one of them."""
    low: float
    high: float
    """Of the 95 % bootstrap interval over the cases."""
    cases: int


EXPLAINED = (
    "Mean ± standard deviation over the folds (the seeds, where there are several), in brackets the 95 % bootstrap "
    "interval over the cases; means over cases, then classes."
)
NOTHING = Figure(math.nan, math.nan, math.nan, math.nan, 0)


def figure(seeds: Sequence[Evaluation], metric: str) -> Figure:
    """A figure of a model that was trained with one seed or several.

    Args:
        seeds: The evaluation of each.
        metric: Name of one of `MEASURES` or `POOLED`.

    Returns:
        Means over the cases in which the value is defined, then over the classes, then over the seeds.
    """
    common = sorted(set.intersection(*(set(it.cases) for it in seeds)))
    seeds = [it.only(common) for it in seeds]
    percent = metric in POOLED or MEASURES[metric].unit == "%"

    def of(weights: Floats) -> Floats:
        """`(R, cases)` → `(R, seeds)`."""
        return np.stack([_of_weights(it, metric, weights) for it in seeds], axis=1)

    values = of(np.ones((1, len(common))))[0]
    if len(seeds) > 1:
        groups = values
    else:
        folds = [it.fold for it in seeds[0].records]
        groups = np.array(
            [of(np.array([[f == fold for f in folds]], float))[0, 0] for fold in sorted(set(folds))]
        )
    low, high = percentile_interval(lambda weights: of(weights).mean(1), len(common))
    sd = float(np.std(groups, ddof=1)) if len(groups) > 1 else float("nan")
    scale = 100.0 if percent else 1.0
    value = float(values.mean())
    return Figure(scale * value, scale * sd, scale * float(low), scale * float(high), len(common))


def _of_weights(evaluation: Evaluation, metric: str, weights: Floats) -> Floats:
    """A figure of cases that count as often as is said: `(R, cases)` → `(R,)`."""
    if metric in POOLED:
        sums = np.stack([it.array(POOLED[metric].sums) for it in evaluation.records])
        voxels, confidence, accuracy = np.moveaxis(np.tensordot(weights, sums, 1), 1, 0)
        return np.abs(confidence - accuracy).sum(1) / voxels.sum(1)
    return np.nanmean(weighted_means(weights, evaluation.values(metric)), axis=1)


def long_table(
    grid: Grid, found: Mapping[tuple[str, str], Sequence[Evaluation]], cells: Sequence[Training]
) -> pd.DataFrame:
    """A line per data set, row and metric; with several data sets also the mean over them, where all have the row.

    Args:
        grid: What was asked for.
        found: The evaluations of (data set, row), one per seed; those that there are.
        cells: All cells of the grid.
    """
    rows: dict[tuple[str, str], list[Training]] = {}
    for cell in cells:
        rows.setdefault((cell.dataset_name, cell.row), []).append(cell)
    lines = []
    for (dataset, row), own in rows.items():
        evaluations = found.get((dataset, row), [])
        done = sum(len({it.fold for it in one.records}) for one in evaluations)
        for metric in grid.table.metrics:
            it = figure(evaluations, metric) if evaluations else NOTHING
            lines.append(_line(grid, dataset, own[0], metric, it, done, len(own)))
    for row in dict.fromkeys(row for _, row in rows) if len(grid.datasets) > 1 else ():
        example = next(its[0] for (_, name), its in rows.items() if name == row)
        for metric in grid.table.metrics:
            parts = [it for it in lines if (it["row"], it["metric"]) == (row, metric)]
            mean = math.nan
            if len(parts) == len(grid.datasets):
                mean = sum(it["value"] for it in parts) / len(parts)
            it = Figure(mean, math.nan, math.nan, math.nan, sum(it["cases"] for it in parts))
            done, of = (sum(it[key] for it in parts) for key in ("trainings", "of"))
            lines.append(_line(grid, ALL, example, metric, it, done, of))
    return pd.DataFrame(lines)


def _line(
    grid: Grid, dataset: str, cell: Training, metric: str, it: Figure, done: int, of: int
) -> dict[str, Any]:
    paper = grid.table.paper.get(dataset, {})
    rows = [paper[key] for key in paper_keys(cell) if key in paper]
    return {
        "dataset": dataset,
        "row": cell.row,
        "metric": metric,
        "value": it.value,
        "sd": it.sd,
        "low": it.low,
        "high": it.high,
        "paper": rows[0].get(metric, math.nan) if rows else math.nan,
        "cases": it.cases,
        "trainings": done,
        "of": of,
    }


def table(title: str, long: pd.DataFrame) -> Table:
    """The same for people: a group of rows per data set, a column per metric and one for the paper's figure."""
    in_paper = set(long.loc[long["paper"].notna(), "metric"])
    columns = ["training", "folds × seeds", "cases"]
    for metric in dict.fromkeys(long["metric"]):
        columns += [heading(metric), *([f"{heading(metric)}, paper"] if metric in in_paper else [])]
    made = Table(title, columns)
    rows: dict[tuple[str, str], list[Cell]] = {}
    for it in long.to_dict("records"):
        key = (it["dataset"], it["row"])
        if key not in rows:
            if not rows or next(reversed(rows))[0] != it["dataset"]:
                made.groups[len(rows)] = it["dataset"]
            rows[key] = [Cell(it["row"]), Cell(f"{it['trainings']} of {it['of']}"), Cell(str(it["cases"]))]
        rows[key].append(_cell(it))
        if it["metric"] in in_paper:
            rows[key].append(Cell("" if math.isnan(it["paper"]) else f"{it['paper']:.2f}"))
    made.rows = list(rows.values())
    return made


def write(folder: Path, name: str, made: Table, long: pd.DataFrame, notes: Sequence[str]) -> list[Path]:
    """Write `name.csv`, `.md`, `.tex` and `.html`; their paths."""
    noted = dataclasses.replace(made, caption=" ".join([f"{made.caption}.", *notes]))
    texts = {
        "csv": long.to_csv(index=False, lineterminator="\n"),
        "md": "\n\n".join([f"# {made.caption}", markdown(made), *notes]) + "\n",
        "tex": latex(noted) + "\n",
        "html": _html(made, notes),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def heading(metric: str) -> str:
    """What a column is called."""
    return POOLED[metric].heading if metric in POOLED else MEASURES[metric].heading


def _cell(it: Mapping[Hashable, Any]) -> Cell:
    metric = str(it["metric"])
    if math.isnan(it["value"]):
        return Cell("–")
    digits = 4 if metric not in POOLED and MEASURES[metric].unit == "" else 2
    value, sd, low, high = (f"{it[key]:.{digits}f}" for key in ("value", "sd", "low", "high"))
    spread = "" if math.isnan(it["sd"]) else f" ± {sd}"
    return Cell(f"{value}{spread}", "" if math.isnan(it["low"]) else f"{low} to {high}")


def _html(made: Table, notes: Sequence[str]) -> str:
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;margin:2rem;color-scheme:light dark}"
        "div{overflow-x:auto}table{border-collapse:collapse}"
        "td,th{padding:.3em .8em;border-bottom:1px solid #8888;text-align:left;white-space:nowrap}"
    )
    head = "".join(f"<th scope='col'>{escape(it)}</th>" for it in made.columns)
    body = ""
    for k, row in enumerate(made.rows):
        if k in made.groups:
            body += (
                f"<tr><th colspan='{len(made.columns)}' scope='rowgroup'>{escape(made.groups[k])}</th></tr>"
            )
        texts = [f"{it.text} ({it.interval})" if it.interval else it.text for it in row]
        body += "<tr>" + "".join(f"<td>{escape(it)}</td>" for it in texts) + "</tr>"
    told = "".join(f"<p>{escape(it)}</p>" for it in notes)
    title = escape(made.caption)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{style}</style></head><body><h1>{title}</h1>'
        f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{told}</body></html>\n"
    )
