"""The options of `configure` that are about a teacher."""

from __future__ import annotations

import json

import pytest

from tests.cli.configure.calls import configure


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
