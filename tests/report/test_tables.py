"""What the report's tables say."""

import numpy as np
import pytest

from nnunet_dml.evaluation.compare import compare
from nnunet_dml.evaluation.folder import read_evaluation
from nnunet_dml.evaluation.measures import MEASURES
from nnunet_dml.report.pooled import POOLED, curve
from nnunet_dml.report.tables import by_class, class_table, comparison_table, estimates, summary_table
from nnunet_dml.report.text import latex, markdown, plain
from tests.report.evaluation_world import change_records, write_evaluation


@pytest.fixture
def two(tmp_path):
    """Two models of two classes."""
    options = {"cases": 6, "classes": ("core", "rim")}
    return [
        read_evaluation(write_evaluation(tmp_path / name, quality=quality, gap=gap, **options))
        for name, quality, gap in (("a", 0.8, 0.1), ("b", 0.9, 0.02))
    ]


def test_means_are_over_the_cases_and_then_over_the_classes(tmp_path):
    write_evaluation(tmp_path / "a", cases=3, classes=("core", "rim"))
    values = {"case000": (0.5, 0.2), "case001": (0.7, None), "case002": (0.9, None)}

    def change(content):
        core, rim = values[content["case"]]
        content["per_class"]["core"]["dice"], content["per_class"]["rim"]["dice"] = core, rim

    change_records(tmp_path / "a", change)
    model = read_evaluation(tmp_path / "a")
    core, rim, mean = by_class(model, resamples=100)["dice"]
    np.testing.assert_allclose([core.value, rim.value, mean.value], [0.7, 0.2, 0.45])
    np.testing.assert_allclose([rim.low, rim.high], 0.2)
    assert core.low < 0.7 < core.high
    assert estimates(model, resamples=100)["dice"] == mean


def test_pooled_errors_are_of_all_voxels_together(two):
    counts = sum(record.array("reliability_boundary") for record in two[0].records)
    number, confidence, accuracy = counts
    expected = sum(abs(a - c) for a, c in zip(accuracy, confidence, strict=True)) / number.sum()
    found = estimates(two[0], resamples=200)["boundary_ece_pooled"]
    np.testing.assert_allclose(found.value, expected)
    assert found.low <= found.value <= found.high


def test_a_curve_has_only_the_bins_with_voxels():
    x, y, share = curve(np.array([[0.0, 4.0, 12.0], [0.0, 2.0, 9.0], [0.0, 1.0, 12.0]]))
    np.testing.assert_allclose([x, y, share], [[0.5, 0.75], [0.25, 1.0], [0.25, 0.75]])


def test_the_best_of_a_row_is_marked_by_the_measures_direction(two):
    table = summary_table(two, [estimates(it, resamples=50) for it in two], caption="x")
    rows = {row[0].measure: row for row in table.rows}
    assert [cell.best for cell in rows["dice"][1:]] == [False, True]
    assert [cell.best for cell in rows["ece"][1:]] == [False, True]
    assert not any(cell.best for cell in rows["volume_ml"])
    bias = [it.values("volume_bias").mean() for it in two]
    assert rows["volume_bias"][1 + int(np.argmin(np.abs(bias)))].best
    assert list(table.groups.values()) == [
        "Overlap",
        "Calibration against the hard reference",
        "Calibration against the soft reference",
        "Volume",
    ]
    alone = summary_table(two[:1], [estimates(two[0], resamples=50)], caption="x")
    assert not any(cell.best for row in alone.rows for cell in row)


def test_no_two_figures_have_one_title():
    titles = [it.title for it in (*MEASURES.values(), *POOLED.values())]
    assert sorted(set(titles)) == sorted(titles)
    assert MEASURES["ece"].heading == "ECE per image (%)"
    assert POOLED["ece_pooled"].heading == "ECE pooled (%)"
    assert MEASURES["soft_ace"].title == "Soft adaptive ECE"
    assert MEASURES["soft_brier"].title == "Soft Brier score"


def test_classes_have_a_column_each(two):
    table = class_table(two[0], by_class(two[0], resamples=50))
    assert table.columns == ["Measure", "core", "rim"]
    (dice,) = [row for row in table.rows if row[0].measure == "dice"]
    assert [cell.text for cell in dice[1:]] == [
        f"{100 * it:.2f}" for it in two[0].values("dice").mean(axis=0)
    ]


def test_the_tables_of_a_comparison_in_three_formats(two):
    table = comparison_table(
        compare([tuple(two)], measures=["dice", "volume_bias"], per_class=True, resamples=50)
    )
    assert table.columns[1] == "Class"
    assert table.groups == {0: "b against a"}
    assert [row[0].text for row in table.rows[2:]] == ["|Volume bias| (%)"] * 2
    text = plain(table).splitlines()
    assert text[0].split()[:2] == ["Measure", "Class"]
    assert "b against a" in text
    assert r"| \|Volume bias\| (%) |" in markdown(table)
    assert r"\textbar{}Volume bias\textbar{} (\%) & core" in latex(table)
    one = comparison_table(compare([tuple(two)], measures=["dice"], resamples=50))
    assert "Class" not in one.columns
