"""`nnunet-dml configure`: a plans file of its own, the same preprocessed data."""

from __future__ import annotations

import json

import pytest

from nnunet_dml.cli.main import main
from tests.cli.configure.calls import PLANS, configure


def test_options_go_into_new_plans_and_nothing_else_changes(folder):
    assert (
        configure(
            "-o",
            "mine",
            "--set",
            "labels.source=uniform",
            "training.epochs=3",
            "--set",
            "loss.weight_ce=0.25",
        )
        == 0
    )
    written = json.loads((folder / "mine.json").read_text())
    assert written.pop("nnunet_dml") == {
        "labels": {"source": "uniform"},
        "training": {"epochs": 3},
        "loss": {"weight_ce": 0.25},
    }
    assert written.pop("plans_name") == "mine"
    assert written["configurations"] == PLANS["configurations"]
    assert json.loads((folder / "nnUNetPlans.json").read_text()) == PLANS


def test_options_add_up_over_plans(folder):
    assert configure("-o", "first", "--set", "training.epochs=3", "labels.source=uniform") == 0
    assert configure("-p", "first", "-o", "second", "--set", "training.epochs=4") == 0
    options = json.loads((folder / "second.json").read_text())["nnunet_dml"]
    assert options == {"labels": {"source": "uniform"}, "training": {"epochs": 4}}


def test_width_and_batch_size(folder):
    assert configure("-o", "narrow", "--scale-features", "0.5", "--batch-size", "8", "-c", "2d") == 0
    changed = json.loads((folder / "narrow.json").read_text())["configurations"]
    assert changed["2d"]["batch_size"] == 8
    assert changed["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] == [16, 32, 64]
    assert changed["2d"]["data_identifier"] == "nnUNetPlans_2d"
    assert changed["3d_lowres"] == PLANS["configurations"]["3d_lowres"]
    assert configure("-o", "all", "--scale-features", "0.01") == 0
    changed = json.loads((folder / "all.json").read_text())["configurations"]
    assert changed["3d_lowres"]["architecture"]["arch_kwargs"]["features_per_stage"] == [1, 1]
    assert changed["3d_cascade_fullres"] == PLANS["configurations"]["3d_cascade_fullres"]


def test_the_same_command_twice_is_fine_and_other_plans_are_not_replaced(folder, capsys):
    assert configure("-o", "mine", "--set", "training.epochs=3") == 0
    assert configure("-o", "mine", "--set", "training.epochs=3") == 0
    assert configure("-o", "mine", "--set", "training.epochs=4") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert configure("-o", "mine", "--set", "training.epochs=4", "--overwrite") == 0
    assert json.loads((folder / "mine.json").read_text())["nnunet_dml"] == {"training": {"epochs": 4}}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "training.epochs=3"], "expected -o"),
        (["-o", "nnUNetPlans"], "another name"),
        (["-o", "x", "-p", "missing"], "there: nnUNetPlans"),
        (["-o", "x", "-c", "3d_fullres", "--batch-size", "2"], "expected a configuration 3d_fullres"),
        (["-o", "x", "--batch-size", "0"], "at least 1"),
        (["-o", "x", "--scale-features", "0"], "a factor from 0.01 to 16"),
        (["-o", "x", "--scale-features", "nan"], "a factor from 0.01 to 16"),
        (["-o", "x", "--features", "16", "32"], "3 channels for 2d"),
        (["-o", "x", "--features", "0", "1", "2", "-c", "2d"], "--features: expected at least 1 channel"),
        (["-o", "x", "--scale-features", "inf"], "a factor from 0.01 to 16"),
        (
            ["-o", "x", "-c", "2d", "3d_cascade_fullres", "--batch-size", "4"],
            "expected 'batch_size' in 3d_cascade_fullres for --batch-size, found none of its own; "
            "it inherits from 3d_fullres. Choose 3d_fullres with -c.",
        ),
        (
            ["-o", "x", "-c", "3d_cascade_fullres", "--scale-features", "0.5"],
            "expected 'architecture' in 3d_cascade_fullres for --scale-features, found none of its own",
        ),
        (
            ["-o", "x", "-c", "2d"],
            "-c: expected --batch-size, --scale-features, --features, --network or --recipe beside it",
        ),
        (["-o", "x/y"], "a plain name"),
        (["-o", "x", "--set", "loss.overlap=dice"], "loss.overlap"),
    ],
)
def test_bad_input(folder, capsys, arguments, words):
    before = sorted(path.name for path in folder.iterdir())
    assert configure(*arguments) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before


def rewrite(folder, change):
    plans = json.loads(json.dumps(PLANS))
    change(plans)
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))


def test_old_plans_without_an_architecture(folder, capsys):
    rewrite(folder, lambda plans: [it.pop("architecture", None) for it in plans["configurations"].values()])
    assert configure("-o", "x", "--scale-features", "0.5") == 2
    error = capsys.readouterr().err
    assert "expected 'architecture' in 2d for --scale-features, found none. Plan again" in error
    assert not (folder / "x.json").exists()


def test_an_architecture_of_another_kind(folder, capsys):
    rewrite(folder, lambda plans: plans["configurations"]["2d"].update(architecture={"arch_kwargs": {}}))
    assert configure("-o", "x", "--scale-features", "0.5") == 2
    assert (
        "expected 'features_per_stage', a list of channels, in the architecture of 2d"
        in capsys.readouterr().err
    )


def test_a_configuration_named_twice_is_changed_once(folder):
    assert configure("-o", "x", "-c", "2d", "2d", "--scale-features", "0.5") == 0
    changed = json.loads((folder / "x.json").read_text())["configurations"]["2d"]
    assert changed["architecture"]["arch_kwargs"]["features_per_stage"] == [16, 32, 64]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (3, "expected an object of options as 'nnunet_dml', found int"),
        ({"training": {"epoch": 3}}, "found nnunet_dml.training.epoch = 3. Extra inputs"),
        ({"loss": {"weight_overlap": 0}}, "loss.weight_ce and loss.weight_overlap are both 0"),
        ({"labels": 3}, "found nnunet_dml.labels = 3"),
    ],
)
def test_options_of_the_source_are_checked_with_the_new_ones(folder, capsys, own, words):
    rewrite(folder, lambda plans: plans.update(nnunet_dml=own))
    assert configure("-o", "x", "--set", "loss.weight_ce=0") == 2
    assert words in capsys.readouterr().err
    assert not (folder / "x.json").exists()


def test_options_that_one_trainer_alone_reads_are_left_to_it(folder):
    assert configure("-o", "x", "--set", "loss.gamma=2") == 0


@pytest.mark.parametrize("text", ['{"configurations": 3}', "{}", '{"configurations": {"2d": 3}}'])
def test_damaged_plans(folder, capsys, text):
    (folder / "nnUNetPlans.json").write_text(text)
    assert configure("-o", "x") == 2
    error = capsys.readouterr().err
    assert "nnUNetPlans.json: expected nnU-Net's plans" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_plans_that_are_no_json(folder, capsys, text):
    (folder / "nnUNetPlans.json").write_text(text)
    assert configure("-o", "x") == 2
    error = capsys.readouterr().err
    assert "nnUNetPlans.json: expected" in error
    assert "Plan data set 501 again" in error


def test_a_folder_that_cannot_be_written(folder, capsys, monkeypatch):
    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr("pathlib.Path.write_text", full)
    assert configure("-o", "x") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["nnUNetPlans.json"]


def test_unset_and_unknown_folders(folder, capsys, monkeypatch):
    assert main(["configure", "-d", "777", "-o", "x"]) == 2
    assert "Dataset501_Name" in capsys.readouterr().err
    monkeypatch.delenv("nnUNet_preprocessed")
    assert configure("-o", "x") == 2
    assert "nnUNet_preprocessed" in capsys.readouterr().err


def test_list_prints_every_option(capsys):
    assert main(["configure", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("labels.source", "loss.weight_overlap", "training.seed"))


@pytest.mark.parametrize(
    ("labels", "assignments", "words"),
    [
        ({"background": 0, "a": 1}, ["loss.class_weights=[1,2,3]"], "expected 2 loss.class_weights"),
        ({"background": 0, "a": 1}, ["loss.overlap=lovasz", "labels.source=uniform"], "hard labels with loss.overlap=lovasz"),
        ({"background": 0, "whole": [1, 2], "b": 2}, ["loss.background=true"], "loss.background=false with region-based"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_the_labels_are_refused(folder, capsys, labels, assignments, words):
    described = {"labels": labels, "regions_class_order": [1, 2], "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(described))
    assert configure("-o", "mine", "--set", *assignments) == 2
    captured = capsys.readouterr()
    assert "nnunet-dml configure: -o mine: expected" in captured.err
    assert words in captured.err
    assert captured.out == ""
    assert not (folder / "mine.json").exists()
    assert configure("-o", "mine", "--set", "loss.class_weights=[1,2]") == 0
