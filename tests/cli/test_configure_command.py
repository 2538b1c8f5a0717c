"""`nnunet-dml configure`: a plans file of its own, the same preprocessed data."""

from __future__ import annotations

import json

import pytest

from nnunet_dml.cli.main import main

PLANS = {
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "batch_size": 12,
            "architecture": {"arch_kwargs": {"features_per_stage": [32, 64, 128]}},
        },
        "3d_lowres": {
            "data_identifier": "nnUNetPlans_3d_lowres",
            "batch_size": 2,
            "architecture": {"arch_kwargs": {"features_per_stage": [32, 64]}},
        },
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    },
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "Dataset501_Name"
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(PLANS))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    return folder


def configure(*arguments):
    return main(["configure", "-d", "501", *arguments])


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
    assert configure("-o", "all", "--scale-features", "0.001") == 0
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
        (["-o", "x", "--scale-features", "0"], "above 0"),
        (["-o", "x", "--scale-features", "nan"], "above 0"),
        (["-o", "x", "--features", "16", "32"], "3 channels for 2d"),
        (["-o", "x", "--features", "0", "1", "2", "-c", "2d"], "--features: expected at least 1 channel"),
        (["-o", "x", "--scale-features", "inf"], "above 0"),
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


class TestTeacher:
    """`--teacher` and its like are short for --set teacher.…"""

    NAME = "nnUNetTrainer__nnUNetPlans__2d"

    @pytest.fixture
    def model(self, folder, tmp_path, monkeypatch):
        results = tmp_path / "results"
        model = results / folder.name / self.NAME
        for fold in ("0", "1", "all"):
            (model / f"fold_{fold}").mkdir(parents=True)
            (model / f"fold_{fold}" / "checkpoint_final.pth").touch()
        monkeypatch.setenv("nnUNet_results", str(results))
        return model

    def options(self, folder, name="mine"):
        return json.loads((folder / f"{name}.json").read_text())["nnunet_dml"]["teacher"]

    def test_the_path_is_stored_from_the_results_folder_on(self, folder, model, capsys):
        for number, named in enumerate((self.NAME, f"{folder.name}/{self.NAME}", str(model))):
            assert configure("-o", f"mine{number}", "--teacher", named) == 0
            assert self.options(folder, f"mine{number}") == {"model": f"{folder.name}/{self.NAME}"}
        assert "-tr nnUNetTrainerDML_KD -p mine2" in capsys.readouterr().out

    def test_elsewhere_it_is_absolute(self, folder, model, tmp_path, monkeypatch):
        model.parent.rename(tmp_path / "elsewhere")
        monkeypatch.chdir(tmp_path)
        assert configure("-o", "mine", "--teacher", f"elsewhere/{self.NAME}") == 0
        assert self.options(folder) == {"model": str(tmp_path / "elsewhere" / self.NAME)}

    def test_all_of_it(self, folder, model):
        more = [
            "--calibration",
            "kde",
            "--bandwidth",
            "auto",
            "--teacher-folds",
            "0",
            "1",
            "--scale-features",
            "0.25",
        ]
        assert configure("-o", "mine", "--teacher", self.NAME, *more) == 0
        expected = {
            "model": f"{folder.name}/{self.NAME}",
            "bandwidth": "auto",
            "folds": [0, 1],
            "calibration": "kde",
        }
        assert self.options(folder) == expected
        assert configure("-p", "mine", "-o", "next", "--bandwidth", "1e-4", "--teacher-folds", "all") == 0
        assert self.options(folder, "next") == {**expected, "bandwidth": 1e-4, "folds": ["all"]}
        assert configure("-p", "mine", "-o", "none", "--calibration", "none", "--teacher-folds", "same") == 0
        del expected["bandwidth"]  # which nothing would read
        assert self.options(folder, "none") == {**expected, "calibration": "none", "folds": "same"}
        width = json.loads((folder / "mine.json").read_text())["configurations"]["2d"]["architecture"]
        assert width["arch_kwargs"]["features_per_stage"] == [8, 16, 32]

    def test_a_model_or_maps(self, folder, model):
        """What is chosen now takes the place of what the plans had."""
        assert configure("-o", "mine", "--teacher", self.NAME, "--bandwidth", "0.1") == 0
        assert configure("-p", "mine", "-o", "maps", "--set", "teacher.maps=big", "teacher.active=all") == 0
        assert self.options(folder, "maps") == {"maps": "big", "active": "all"}
        assert configure("-p", "maps", "-o", "back", "--teacher", self.NAME) == 0
        assert self.options(folder, "back") == {"model": f"{folder.name}/{self.NAME}", "active": "all"}

    def test_folds_that_are_not_trained(self, folder, model, capsys):
        assert configure("-o", "mine", "--teacher", self.NAME, "--teacher-folds", "0", "7") == 2
        said = capsys.readouterr().err
        assert f"{self.NAME}: expected fold 7 of the teacher, found folds 0, 1, all. Train it, or" in said
        assert not (folder / "mine.json").exists()

    def test_a_teacher_of_another_data_set(self, folder, model, capsys):
        (model / "plans.json").write_text('{"dataset_name": "Dataset777_Other"}')
        assert configure("-o", "mine", "--teacher", self.NAME) == 2
        assert (
            f"expected a teacher of {folder.name}, found one of Dataset777_Other." in capsys.readouterr().err
        )
        (model / "plans.json").write_text(json.dumps({"dataset_name": folder.name}))
        assert configure("-o", "mine", "--teacher", self.NAME) == 0

    @pytest.mark.parametrize(
        ("given", "flag"),
        [
            (["--bandwidth", "0"], "--bandwidth: bad value 0"),
            (["--set", "teacher.bandwidth=0"], "--set: bad value 0"),
        ],
    )
    def test_a_bad_value_is_that_of_its_flag(self, folder, model, capsys, given, flag):
        assert configure("-o", "mine", "--teacher", self.NAME, *given) == 2
        assert flag in capsys.readouterr().err

    def test_a_flag_and_what_it_is_short_for(self, folder, model, capsys):
        assert configure("-o", "mine", "--teacher", self.NAME, "--set", "teacher.model=x") == 2
        assert (
            "--set and --teacher: expected each option once, found teacher.model twice"
            in capsys.readouterr().err
        )

    @pytest.mark.parametrize(
        ("given", "trainer"),
        [
            (["teacher.maps=big"], "…` -tr nnUNetTrainerDML_KD -p"),
            (["unlabelled.start_epoch=2"], "… -tr nnUNetTrainerDML_SSL -p"),
            (["training.epochs=2"], "… -p"),
        ],
    )
    def test_the_hint_names_the_trainer_that_reads_the_options(self, folder, capsys, given, trainer):
        assert configure("-o", "mine", "--set", *given) == 0
        assert trainer.replace("`", "") in capsys.readouterr().out

    def test_of_the_students_configuration(self, folder, model, capsys):
        anyone = self.NAME.replace("2d", "{configuration}")
        assert configure("-o", "mine", "--teacher", anyone) == 0
        assert self.options(folder) == {"model": f"{folder.name}/{anyone}"}
        model.with_name(self.NAME.replace("2d", "3d_lowres")).mkdir()
        assert configure("-o", "two", "--teacher", anyone) == 2
        assert "__3d_lowres: expected a fold with checkpoint_final.pth, found none" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--teacher", "missing"], "--teacher missing: expected a model's folder"),
            (["--teacher", NAME, "--bandwidth", "0"], "bad value 0 of teacher.bandwidth. Set a number above 0, or auto."),
            (["--calibration", "temperature", "--bandwidth", "0.1"], "-o mine: teacher.bandwidth is read with teacher.calibration=kde only"),
            (["--teacher", NAME, "--set", "teacher.maps=big"], "teacher.maps is set, and teacher.model"),
            (["--bandwidth=-1e-3"], "bad value -0.001 of teacher.bandwidth"),
            (["--bandwidth", "wide"], "bad value 'wide' of teacher.bandwidth"),
            (["--teacher-folds", "first"], "bad value ['first'] of teacher.folds"),
            (["--teacher", NAME, "--set", "teacher.model=x"], "expected each option once, found teacher.model twice"),
            (["--set", "teacher.model=Dataset501_Name/x"], "expected a teacher's folder, found none"),
            (["--teacher", NAME, "--set", "teacher.checkpoint=checkpoint_best.pth"], "found only checkpoint_final.pth"),
        ],
    )  # fmt: skip
    def test_bad_input(self, folder, model, capsys, arguments, words):
        assert configure("-o", "mine", *arguments) == 2
        assert words in capsys.readouterr().err
        assert not (folder / "mine.json").exists()
