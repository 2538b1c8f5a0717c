"""A grid's results as a table: mean ± standard deviation, confidence intervals, the paper's figures beside them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file
from nnunet_dml.benchmark.grid import Cell, Grid
from nnunet_dml.evaluation.bootstrap import percentile_interval, weighted_means
from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.evaluation.measures import MEASURES


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


NOTHING = Figure(math.nan, math.nan, math.nan, math.nan, 0)


def check_metrics(grid: Grid) -> None:
    """Refuse a table with unknown figures.

    Raises:
        InputError: With the valid names.
    """
    valid = [*MEASURES, *POOLED]
    unknown = [it for it in grid.table.metrics if it not in valid]
    if unknown:
        raise InputError(
            problem("table.metrics", expected=f"some of {', '.join(valid)}", found=", ".join(unknown))
        )


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
    grid: Grid, found: Mapping[tuple[str, str], Sequence[Evaluation]], cells: Sequence[Cell]
) -> pd.DataFrame:
    """A line per data set, row and metric.

    Args:
        grid: What was asked for.
        found: The evaluations of (data set, row), one per seed; those that there are.
        cells: All cells of the grid.
    """
    lines = []
    names = {dataset.id: name for name, dataset in grid.datasets.items()}
    for dataset, row in dict.fromkeys((names[it.dataset.id], it.row) for it in cells):
        folds = [it for it in cells if (names[it.dataset.id], it.row) == (dataset, row)]
        evaluations = found.get((dataset, row), [])
        done = sum(len({it.fold for it in one.records}) for one in evaluations)
        for metric in grid.table.metrics:
            paper = grid.table.paper.get(dataset, {}).get(row, {}).get(metric, float("nan"))
            it = figure(evaluations, metric) if evaluations else NOTHING
            lines.append(
                {
                    "dataset": dataset, "row": row, "metric": metric, "value": it.value, "sd": it.sd,
                    "low": it.low, "high": it.high, "paper": paper, "cases": it.cases,
                    "trainings": done, "of": len(folds),
                }
            )  # fmt: skip
    return pd.DataFrame(lines)


def wide_table(long: pd.DataFrame) -> pd.DataFrame:
    """The same for people: a line per data set and row, a column per metric and one for the paper's figure."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    in_paper = set(long.loc[long["paper"].notna(), "metric"])
    for it in long.to_dict("records"):
        row = lines.setdefault(
            (it["dataset"], it["row"]),
            {
                "data set": it["dataset"],
                "training": it["row"],
                "folds × seeds": f"{it['trainings']} of {it['of']}",
                "cases": str(it["cases"]),
            },
        )
        metric = str(it["metric"])
        title = POOLED[metric].heading if metric in POOLED else MEASURES[metric].heading
        row[title] = _text(it)
        if metric in in_paper:
            row[f"{title}, paper"] = "" if math.isnan(it["paper"]) else f"{it['paper']:.2f}"
    return pd.DataFrame(lines.values())


def write(folder: Path, name: str, title: str, long: pd.DataFrame, notes: Sequence[str]) -> list[Path]:
    """Write `name.csv`, `.md`, `.tex` and `.html`; their paths."""
    wide = wide_table(long)
    texts = {
        "csv": long.to_csv(index=False, lineterminator="\n"),
        "md": "\n".join([f"# {title}", "", markdown(wide), "", *notes, ""]),
        "tex": wide.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1).to_latex(
            hrules=True, caption=title
        ),
        "html": _html(title, wide, notes),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def markdown(table: pd.DataFrame) -> str:
    """A table of texts as Markdown."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(it).replace("|", "\\|") for it in line) + " |" for line in lines)


def _text(it: Mapping[Hashable, Any]) -> str:
    if math.isnan(it["value"]):
        return "–"
    spread = "" if math.isnan(it["sd"]) else f" ± {it['sd']:.2f}"
    return f"{it['value']:.2f}{spread} ({it['low']:.2f} to {it['high']:.2f})"


def _html(title: str, wide: pd.DataFrame, notes: Sequence[str]) -> str:
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;margin:2rem;color-scheme:light dark}"
        "div{overflow-x:auto}table{border-collapse:collapse}"
        "td,th{padding:.3em .8em;border-bottom:1px solid #8888;text-align:left;white-space:nowrap}"
    )
    body = wide.to_html(index=False, border=0)
    told = "".join(f"<p>{escape(it)}</p>" for it in notes)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{style}</style></head>'
        f"<body><h1>{escape(title)}</h1><div>{body}</div>{told}</body></html>\n"
    )
