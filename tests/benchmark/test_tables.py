"""Tables of a grid: means, spread, intervals, and the paper's figures beside them."""

from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.benchmark import tables
from nnunet_dml.benchmark.grid import cells, read_grid
from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.evaluation.records import CaseRecord, Sources


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


def test_the_table_for_people(long):
    wide = tables.wide_table(long[1])
    assert list(wide["training"]) == ["soft, dml", "soft, jml", "hard, dml", "hard, jml"]
    first, last = wide.iloc[0], wide.iloc[3]
    assert first["Dice (%)"] == "85.00 ± 7.07 (80.00 to 90.00)"
    assert first["Dice (%), paper"] == "91.50"
    assert last["Dice (%)"] == "50.00 (50.00 to 50.00)"
    assert last["Dice (%), paper"] == ""
    assert last["folds × seeds"] == "1 of 2"
    assert wide.iloc[2]["Dice (%)"] == "–"
    assert "ECE pooled (%), paper" not in wide, "the paper has none"


def test_it_is_written_in_four_formats(long, tmp_path):
    _, table = long
    paths = tables.write(tmp_path / "out", "grid", "A & B <grid>", table, ["Not trained: x."])
    text = {it.suffix: it.read_text() for it in paths}
    again = pd.read_csv(io.StringIO(text[".csv"]))
    assert again["value"].tolist()[0] == pytest.approx(85)
    assert "| one | soft, dml | 2 of 2 | 2 | 85.00 ± 7.07 (80.00 to 90.00) | 91.50 |" in text[".md"]
    assert r"Dice (\%)" in text[".tex"]
    assert "A & B" not in text[".html"]
    assert "A &amp; B &lt;grid&gt;" in text[".html"]
    assert all("Not trained: x." in text[it] for it in (".md", ".html"))


def test_unknown_metrics_are_refused(world):
    _, grid = read_grid(str(world.grid))
    tables.check_metrics(grid)
    other = grid.model_copy(update={"table": grid.table.model_copy(update={"metrics": ["dice", "acc"]})})
    with pytest.raises(InputError, match=r"table.metrics: expected some of .*bdice.*, found acc"):
        tables.check_metrics(other)
