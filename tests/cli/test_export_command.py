"""`nnunet-dml export`: what it says, and what it refuses in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_dml.cli.main import main
from tests.nnunet.export_helpers import DATASET, make_model, names

MODEL = "nnUNetTrainerDML__toy__2d"


@pytest.fixture
def results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    make_model(folder, folds=(0, 1))
    monkeypatch.setenv("nnUNet_results", str(folder))
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


def refuses(capsys, *arguments, words=(), output="model.zip"):
    """Status 2, one line per problem, nothing written beside what was there."""
    before = sorted(str(path) for path in Path().rglob("*"))
    assert main(["export", *map(str, arguments), "-o", str(output)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(words)
    for line, part in zip(lines, words, strict=True):
        assert line.startswith("nnunet-dml export: ")
        assert "--model" not in line  # as `evaluate` calls it
        assert part in line
    assert sorted(str(path) for path in Path().rglob("*")) == before


@pytest.mark.parametrize("named", [True, False], ids=["by name", "by path"])
def test_it_says_how_to_predict(results, capsys, named):
    model = [MODEL, "-d", "907"] if named else [str(results / DATASET / MODEL)]
    assert main(["export", *model, "-o", "model.zip", "-f", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Written: model.zip (0.0 MB)")
    assert f"{DATASET}, 2d, folds 1: nnUNetTrainerDML as nnUNetTrainer; checkpoints 0.0 → 0.0 MB" in said
    assert "nnUNetv2_install_pretrained_model_from_zip model.zip" in said
    predict = f"nnUNetv2_predict -i IN -o OUT -d {DATASET} -tr nnUNetTrainer -p toy -c 2d -f 1"
    assert said.splitlines()[-1].strip() == predict
    assert f"{DATASET}/nnUNetTrainer__toy__2d/fold_1/checkpoint_final.pth" in names("model.zip")


def test_the_previous_stage_is_found_from_inside_the_model(results, monkeypatch):
    make_model(results, configuration="low")
    monkeypatch.chdir(make_model(results, configuration="cascade"))
    assert main(["export", ".", "-o", "../model.zip"]) == 0
    assert f"{DATASET}/nnUNetTrainer__toy__low/plans.json" in names("../model.zip")


def test_a_cascade_is_predicted_in_two_steps(results, capsys):
    for configuration in ("low", "cascade"):
        make_model(results, configuration=configuration)
    best = results / DATASET / "nnUNetTrainerDML__toy__low" / "fold_0" / "checkpoint_best.pth"
    for configuration in ("low", "cascade"):
        fold = results / DATASET / f"nnUNetTrainerDML__toy__{configuration}" / "fold_0"
        (fold / "checkpoint_final.pth").rename(fold / "checkpoint_best.pth")
    assert best.is_file()
    assert (
        main(["export", "nnUNetTrainerDML__toy__cascade", "-d", "907", "-o", "m.zip", "-chk", best.name]) == 0
    )
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.endswith(
        "-o OUT_low -d Dataset907_Toy -tr nnUNetTrainer -p toy -c low -f 0 -chk checkpoint_best.pth"
    )
    assert "-o OUT_cascade" in second
    assert second.endswith("-c cascade -f 0 -chk checkpoint_best.pth -prev_stage_predictions OUT_low")


def test_no_such_model(results, capsys):
    refuses(
        capsys, "nowhere", words=["nowhere: expected a trained model's folder, found none. Give its path, or"]
    )
    refuses(capsys, "x__y__2d", "-d", "907", words=[f"x__y__2d: expected a model in {results / DATASET}, found none. There are: {MODEL}."])  # fmt: skip
    refuses(capsys, MODEL, "-d", "908", words=[f"{results}: expected a data set 908, found {DATASET}."])
    refuses(
        capsys, results, words=["plans.json: expected a file, found none. Give the folder TRAINER__PLANS__"]
    )


def test_folds_without_the_checkpoint(results, capsys):
    model = results / DATASET / MODEL
    final = model / "fold_1" / "checkpoint_final.pth"
    final.rename(final.with_name("checkpoint_latest.pth"))
    (model / "fold_2").mkdir()
    refuses(
        capsys,
        model,
        "-f",
        "0",
        "1",
        "2",
        "7",
        words=[
            f"{final}: expected this checkpoint, found checkpoint_latest.pth; the training is not finished. "
            "Finish it (nnUNetv2_train … --c), choose another with -chk, or leave the fold out (-f).",
            "fold_2/checkpoint_final.pth: expected this checkpoint, found none; the training is not finished.",
            f"-f 7: expected a fold of {model}, found 0, 1, 2.",
        ],
    )
    refuses(
        capsys,
        model,
        "-f",
        "0",
        "-chk",
        "best.pth",
        words=[
            "best.pth: expected this checkpoint, found checkpoint_final.pth. Choose another with -chk, or"
        ],
    )
    assert main(["export", str(model), "-o", "m.zip", "-f", "1", "-chk", "checkpoint_latest.pth"]) == 0


def test_a_model_without_folds(results, capsys):
    model = make_model(results, folds=(), configuration="low")
    refuses(
        capsys, model, words=[f"{model}: expected fold_0, fold_1, …, found no fold. Train the model first."]
    )


def test_the_output(results, capsys, tmp_path):
    model = results / DATASET / MODEL
    refuses(
        capsys,
        model,
        output="no/model.zip",
        words=["expected a folder no to write to, found none. Make it first."],
    )
    refuses(capsys, model, output=results, words=["expected a file to write, found a folder."])
    (tmp_path / "model.zip").write_text("mine")
    refuses(
        capsys,
        model,
        words=["-o model.zip: expected a new file, found an existing one. Give another -o, or --over"],
    )
    assert (tmp_path / "model.zip").read_text() == "mine"
    assert main(["export", str(model), "-o", "model.zip", "--overwrite"]) == 0
    assert names("model.zip")


def test_damaged_plans(results, capsys):
    model = results / DATASET / MODEL
    (model / "plans.json").write_text("{")
    refuses(capsys, model, words=[f"{model / 'plans.json'}: expected JSON, found"])
    (model / "plans.json").write_text("{}")
    refuses(
        capsys, model, words=["found another configurations in plans.json, dataset_name in plans.json,"] * 2
    )
