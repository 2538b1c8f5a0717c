"""The report's words for readers who know neither the options nor the files: units, and abbreviations once in full."""

import pytest

from nnunet_dml.evaluation.definitions import DEFINITIONS
from nnunet_dml.evaluation.folder import read_evaluation
from nnunet_dml.evaluation.options import Options
from nnunet_dml.report.about import OPTIONS, about_tables
from nnunet_dml.report.html import definitions
from nnunet_dml.report.reading import reading
from tests.report.evaluation_world import write_evaluation


@pytest.fixture
def model(tmp_path):
    options = {"bins": 10, "tolerance": 1.0, "surfaces": True, "of_tomorrow": 3}
    return read_evaluation(
        write_evaluation(tmp_path / "a", cases=2, options=options, definitions=DEFINITIONS)
    )


def test_options_are_in_words_with_their_units(model):
    facts = {row[0].text: row[1].text for row in about_tables([model])[0].rows}
    assert facts["Tolerance of surface Dice (mm)"] == "1.0"
    assert facts["Surface distances measured"] == "yes"
    assert facts["Option of_tomorrow"] == "3"
    assert {*OPTIONS} == {*Options.__dataclass_fields__}


def test_definitions_name_no_key_of_a_file(model):
    found = {name: text for _, name, text in definitions([model])}
    assert found["Soft reference"] == "the raters' uniform mean"
    assert not [name for name in found if "_" in name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("IoU", "intersection over union"),
        ("BDice", "binarised Dice"),
        ("ECE per image", "expected calibration error"),
    ],
)
def test_abbreviations_are_spelled_out(model, name, words):
    assert words in {term: text for _, term, text in definitions([model])}[name]


def test_the_hard_reference_of_the_figures_is_explained(model):
    assert "the hard reference" in " ".join(it.text for it in reading(model, set(), compared=False))
