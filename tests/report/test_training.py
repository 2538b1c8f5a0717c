"""How the models were trained, as the report says it; and what it calls them."""

import pytest

from nnunet_dml.cli.main import main
from nnunet_dml.evaluation.folder import read_evaluation, read_evaluations
from nnunet_dml.report.figures import LONGEST, legend_names
from nnunet_dml.report.text import plain
from nnunet_dml.report.training import training_table
from tests.report.evaluation_world import write_evaluation

FOLD = {"labels": "weighted", "loss": "0.5 × cross-entropy + 1.5 × dml", "epochs": 8, "iterations": 25}
TRAINING = {
    "model": "nnUNetTrainerDML__short__2d",
    "trainer": "nnUNetTrainerDML",
    "plans": "short",
    "configuration": "2d",
    "options": {},
    "folds": {"0": {**FOLD, "seed": 1234, "finished": True}, "1": {**FOLD, "seed": None, "finished": False}},
}


def rows(*models):
    return {row[0].text: [cell.text for cell in row[1:]] for row in training_table(models).rows}


@pytest.fixture
def model(tmp_path):
    return read_evaluation(write_evaluation(tmp_path / "a", cases=2, training=TRAINING))


def test_every_fact_has_a_row_and_folds_that_differ_are_named(model):
    assert rows(model) == {
        "Model": ["nnUNetTrainerDML__short__2d"],
        "Trainer": ["nnUNetTrainerDML"],
        "Plans": ["short"],
        "Configuration": ["2d"],
        "Folds": ["0, 1 (not trained to the end)"],
        "Labels": ["weighted"],
        "Loss": ["0.5 × cross-entropy + 1.5 × dml"],
        "Epochs × iterations": ["8 × 25"],
        "Seed": ["fold 0: 1234; fold 1: none set"],
    }


def test_models_that_nobody_knows_stand_beside_those_that_are_known(model, tmp_path):
    old = read_evaluation(write_evaluation(tmp_path / "old", cases=2))
    stock = {**TRAINING, "model": "a__b__c", "calibrated": True, "folds": {"0": {"teacher": "t"}}}
    other = read_evaluation(write_evaluation(tmp_path / "other", cases=2, training=stock))
    found = rows(model, old, other)
    assert found["Model"] == ["nnUNetTrainerDML__short__2d", "not known", "a__b__c"]
    assert found["Labels"] == ["weighted", "–", "not known"]
    assert found["Seed"][2] == "not known"
    assert found["Teacher"] == ["–", "–", "t"]
    assert found["Calibrated afterwards"] == ["–", "–", "yes"]
    assert plain(training_table([model, old])).splitlines()[0].split() == ["Fact", "a", "old"]
    assert training_table([old]) is None


@pytest.mark.parametrize("training", [{"model": "m"}, {"folds": [1]}, {"model": "m", "folds": {"0": 1}}])
def test_a_block_that_lacks_things_is_shown_as_far_as_it_goes(tmp_path, training):
    folder = write_evaluation(tmp_path / "a", cases=2, training=training)
    model = read_evaluation(folder)
    assert training_table([model]) is None or rows(model)["Model"] == ["m"]


def test_the_page_has_the_table_or_says_why_not(tmp_path, capsys):
    said = "Not known: predictions were evaluated without their model"
    for training, there in (({"training": TRAINING}, True), ({}, False)):
        folder = write_evaluation(tmp_path / "evaluation", cases=2, **training)
        page = tmp_path / "r.html"
        assert main(["report", str(folder), "-o", str(page), "--resamples", "10"]) == 0
        text = page.read_text(encoding="utf-8")
        assert ("How the models were trained" in text) == there
        assert (said in text) != there
        lead = text[text.index('class="lead"') :].split("</p>")[0]
        assert ("nnUNetTrainerDML__short__2d" in lead) == there
    folder = write_evaluation(tmp_path / "evaluation", cases=2, training=[])
    assert main(["report", str(folder), "-o", str(page)]) == 2
    assert "training of another kind" in capsys.readouterr().err


def test_folders_of_one_name_are_told_apart(tmp_path):
    folders = [write_evaluation(tmp_path / name / "eval", cases=2) for name in ("a", "b")]
    found = read_evaluations([*folders, write_evaluation(tmp_path / "c", cases=2)])
    assert [it.name for it in found] == ["a/eval", "b/eval", f"{tmp_path.name}/c"]
    page = tmp_path / "r.html"
    assert main(["report", *map(str, folders), "-o", str(page), "--resamples", "10"]) == 0
    text = page.read_text(encoding="utf-8")
    assert '<th scope="col">a/eval</th><th scope="col">b/eval</th>' in text


def test_a_calibrated_model_is_not_called_as_another(tmp_path, capsys):
    a, b, c, d = (str(write_evaluation(tmp_path / name, cases=2)) for name in "abcd")
    arguments = ["report", a, b, "--calibrated", c, d, "-o", str(tmp_path / "r.html"), "--names", "x"]
    assert main([*arguments, "x, calibrated"]) == 2
    err = capsys.readouterr().err
    assert "--names: expected names that stay different" in err
    assert err.count("\n") == 1


def test_legends_keep_names_apart():
    names = ["nnUNetTrainerDML/evaluation", "nnUNetTrainerJML/evaluation"]
    both = [*names, *(f"{it}, calibrated" for it in names)]
    found = legend_names(both)
    assert len(set(found)) == 4
    assert max(map(len, found)) <= LONGEST
    assert legend_names(["a" * 30 + letter + "b" * 30 for letter in "xy"])[1].startswith("2: aaa")
    assert legend_names(["_hidden", "short"]) == [" _hidden", "short"]
