"""Tables of a grid: means, spread, intervals, and the paper's figures beside them."""

from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
import pytest

from nnunet_dml.benchmark import tables
from nnunet_dml.benchmark.grid import read_grid
from nnunet_dml.benchmark.training import cells
from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.evaluation.records import CaseRecord, Sources

from .conftest import GRID


def evaluation(dice, folds, reliability=None):
    """Cases with these Dice values of two classes, `(cases, 2)`."""
    records = [
        CaseRecord(
            case=f"case{i}",
            fold=str(fold),
            sources=Sources("p", "r"),
            spacing=(1, 1, 1),
            overall={"ece": 0.1},
            per_class={name: {"dice": value} for name, value in zip("ab", values, strict=True)},
            sums={"reliability": [[10.0], [8.0], [6.0]] if reliability is None else reliability[i]},
        )
        for i, (values, fold) in enumerate(zip(dice, folds, strict=True))
    ]
    return Evaluation(None, "x", {"classes": ["a", "b"]}, records)


def test_the_mean_is_over_cases_then_classes_and_its_spread_over_folds():
    it = tables.figure([evaluation([[0.9, 0.5], [0.7, math.nan], [0.8, 0.7]], [0, 0, 1])], "dice")
    # class a 0.8, class b 0.6; fold 0: 0.8 and 0.5, fold 1: 0.8 and 0.7
    assert it.value == pytest.approx(70)
    assert it.sd == pytest.approx(100 * np.std([0.65, 0.75], ddof=1))
    assert it.cases == 3
    assert it.low < it.value < it.high


def test_with_several_seeds_the_spread_is_over_them():
    seeds = [evaluation([[0.9, 0.9], [0.7, 0.7]], [0, 1]), evaluation([[0.8, 0.8], [0.4, 0.4]], [0, 1])]
    it = tables.figure(seeds, "dice")
    assert it.value == pytest.approx(70)
    assert it.sd == pytest.approx(100 * np.std([0.8, 0.6], ddof=1))
    assert (it.low, it.high) == (pytest.approx(55), pytest.approx(85)), "of the cases' means 85 and 55"


def test_pooled_figures_are_of_all_voxels_together():
    sums = [[[10.0, 0], [8.0, 0], [6.0, 0]], [[30.0, 0], [24.0, 0], [26.0, 0]]]
    it = tables.figure([evaluation([[1, 1], [1, 1]], [0, 1], sums)], "ece_pooled")
    assert it.value == pytest.approx(0), "32 of 40 in confidence and accuracy"
    assert it.sd == pytest.approx(100 * np.std([0.2, 2 / 30], ddof=1))
    assert it.high == pytest.approx(20)


def test_one_fold_has_no_spread_and_one_case_no_width():
    it = tables.figure([evaluation([[0.9, 0.9]], [0])], "dice")
    assert math.isnan(it.sd)
    assert it.low == pytest.approx(it.high)


@pytest.fixture
def long(world):
    name, grid = read_grid(str(world.grid))
    found = {
        ("one", "soft, dml"): [evaluation([[0.9, 0.9], [0.8, 0.8]], [0, 1])],
        ("one", "hard, jml"): [evaluation([[0.5, 0.5]], [0])],
    }
    return grid, tables.long_table(grid, found, cells(name, grid))


def test_the_long_table_has_a_line_per_row_and_metric(long):
    _, table = long
    assert len(table) == 4 * 2
    line = table[(table["row"] == "soft, dml") & (table["metric"] == "dice")].iloc[0]
    assert (line["value"], line["paper"], line["trainings"], line["of"]) == (pytest.approx(85), 91.5, 2, 2)
    missing = table[table["row"] == "hard, dml"]
    assert missing["value"].isna().all()
    assert (missing["trainings"] == 0).all()


def texts(made):
    return [
        {
            name: f"{it.text} ({it.interval})" if it.interval else it.text
            for name, it in zip(made.columns, row, strict=True)
        }
        for row in made.rows
    ]


def test_the_table_for_people(long):
    made = tables.table("A grid", long[1])
    assert made.groups == {0: "one"}
    rows = texts(made)
    assert [it["training"] for it in rows] == ["soft, dml", "soft, jml", "hard, dml", "hard, jml"]
    assert rows[0]["Dice (%)"] == "85.00 ± 7.07 (80.00 to 90.00)"
    assert rows[0]["Dice (%), paper"] == "91.50"
    assert rows[3]["Dice (%)"] == "50.00 (50.00 to 50.00)"
    assert rows[3]["Dice (%), paper"] == ""
    assert rows[3]["folds × seeds"] == "1 of 2"
    assert rows[2]["Dice (%)"] == "–"
    assert "ECE pooled (%), paper" not in made.columns, "the paper has none"


def test_hard_and_soft_figures_are_two_columns_and_scores_have_four_digits():
    found = [tables.heading(it) for it in ("ece", "soft_ece", "ece_pooled", "soft_ece_pooled")]
    assert found == [
        "ECE per image (%)",
        "Soft ECE per image (%)",
        "ECE pooled (%)",
        "Soft ECE pooled (%)",
    ]
    line = {"metric": "brier", "value": 0.01234, "sd": 0.001, "low": 0.01, "high": 0.02}
    assert tables._cell(line).text == "0.0123 ± 0.0010"


def test_several_data_sets_have_a_mean_where_all_have_the_row(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(
        GRID.replace(
            "  one: {id: 901, name: One}", "  one: {id: 901, name: One}\n  two: {id: 902, name: Two}"
        ).replace("paper: {one:", "paper: {all: {soft: {dice: 70.0}}, one:")
    )
    name, grid = read_grid(str(path))
    found = {
        ("one", "soft, dml"): [evaluation([[0.9, 0.9], [0.8, 0.8]], [0, 1])],
        ("two", "soft, dml"): [evaluation([[0.5, 0.5], [0.5, 0.5]], [0, 1])],
        ("one", "hard, dml"): [evaluation([[0.9, 0.9]], [0])],
    }
    long = tables.long_table(grid, found, cells(name, grid))
    whole = long[(long["dataset"] == "all") & (long["metric"] == "dice")].set_index("row")
    assert whole.loc["soft, dml", "value"] == pytest.approx(67.5)
    assert whole.loc["soft, dml", "paper"] == 70
    assert math.isnan(whole.loc["hard, dml", "value"])
    last = texts(tables.table("x", long))[-4]
    assert (last["Dice (%)"], last["cases"], last["folds × seeds"]) == ("67.50", "4", "4 of 4")


def test_it_is_written_in_four_formats(long, tmp_path):
    made = tables.table("A & B <grid>", long[1])
    paths = tables.write(tmp_path / "out", "grid", made, long[1], ["Not trained: a_x & y."])
    text = {it.suffix: it.read_text() for it in paths}
    again = pd.read_csv(io.StringIO(text[".csv"]))
    assert again["value"].tolist()[0] == pytest.approx(85)
    assert "| soft, dml | 2 of 2 | 2 | 85.00 ± 7.07 (80.00 to 90.00) | 91.50 |" in text[".md"]
    assert r"\caption{A \& B \textless{}grid\textgreater{}. Not trained: a\_x \& y.}" in text[".tex"]
    assert r"Dice (\%)" in text[".tex"]
    assert "A & B" not in text[".html"]
    assert "A &amp; B &lt;grid&gt;" in text[".html"]
    assert "Not trained: a_x & y." in text[".md"]
