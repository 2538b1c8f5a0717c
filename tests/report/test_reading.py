"""What the report tells a first reader."""

import pytest

from nnunet_dml.cli.main import main
from nnunet_dml.evaluation.folder import read_evaluation
from nnunet_dml.evaluation.measures import MEASURES
from nnunet_dml.report.pooled import POOLED
from nnunet_dml.report.reading import MEASURES_READ, reading
from tests.report.evaluation_world import write_evaluation
from tests.report.test_html import Page


@pytest.fixture
def model(tmp_path):
    return read_evaluation(write_evaluation(tmp_path / "a", cases=2))


def test_lines_are_few_and_in_the_words_of_the_table_of_measures(model):
    lines = reading(model, MEASURES_READ, compared=False)
    assert 8 <= len(lines) <= 12
    for name, line in zip(MEASURES_READ, lines, strict=False):
        measure = {**MEASURES, **POOLED}[name]
        assert (line.measure, line.term, line.text) == (
            name,
            measure.title,
            measure.plain or measure.definition,
        )
        assert not set("ΣΦ∩∪|√∫") & set(line.text), "plain words"
    better = {line.measure: line.better for line in lines}
    assert better["bdice"] == "higher is better"
    assert better["ece_pooled"] == better["hd95_mm"] == "lower is better"
    assert better["volume_bias"] == "best near 0"


def test_only_what_is_shown_is_explained(model):
    named = [it.measure for it in reading(model, {"dice", "brier"}, compared=False) if it.measure]
    assert named == ["dice"]
    text = " ".join(it.text for it in reading(model, set(), compared=False))
    assert "the raters' uniform mean" in text
    assert "read in the comparison" not in text
    assert "read in the comparison" in " ".join(it.text for it in reading(model, set(), compared=True))


def test_it_stands_collapsed_above_the_tables(model, tmp_path):
    page = tmp_path / "r.html"
    assert main(["report", str(model.folder), "-o", str(page), "--resamples", "10"]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.index('<details id="reading"><summary>How to read this') < text.index("<table")
    parsed = Page(text)
    assert {"#def-bdice", "#def-ece_pooled"} <= set(parsed.links)
    assert f"{MEASURES['bdice'].plain}." in parsed.texts
    assert "(best near 0)" in parsed.texts
    assert not any(it.endswith("..") for it in parsed.texts)
