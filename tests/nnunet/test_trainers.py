"""The trainers: found by nnU-Net, trained on the right labels with the right loss, refusing what they cannot do."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import random
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_dml._checks import InputError
from nnunet_dml.cli.main import main
from nnunet_dml.labels.storage import quantise
from nnunet_dml.losses import average_down, deep_supervision_weights, dice_semimetric_loss
from nnunet_dml.nnunet import trainers
from nnunet_dml.nnunet.online import batch_statistics
from nnunet_dml.nnunet.option_groups import Options, TrainingOptions
from nnunet_dml.nnunet.soft_maps import SCALE
from nnunet_dml.nnunet.targets import TargetLayout
from nnunet_dml.nnunet.trainers.configured import _ATTRIBUTES
from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer
from tests.conftest import DATASET, TINY, nnunet_dml, run, train_tiny
from tests.nnunet.trainer_helpers import build, check_equal_losses

NAMES = trainers.__all__
SOFT = ["nnUNetTrainerDML", "nnUNetTrainerJML", "nnUNetTrainerCTL"]
pytestmark = pytest.mark.filterwarnings("ignore")  # training runs nnU-Net's code, which warns


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_is_upstreams(name):
    assert str(inspect.signature(getattr(trainers, name).__init__).parameters.keys()) == str(
        inspect.signature(nnUNetTrainer.__init__).parameters.keys()
    )


@pytest.mark.slow
def test_nnunet_finds_every_trainer_from_another_folder(tmp_path):
    line = nnunet_dml("env").stdout.strip()
    assert line.startswith("export nnUNet_extTrainer=")
    code = (
        "import pickle; from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        f"for name in {NAMES!r}: assert pickle.loads(pickle.dumps(find(name))) is find(name)"
    )
    run("bash", "-c", f'cd "{tmp_path}" && {line} && "{sys.executable}" -c "$CODE"', CODE=code)


def test_the_plugin_keeps_the_users_own_folders():
    command = (sys.executable, "-m", "nnunet_dml.cli.main", "env")
    line = run(*command, nnUNet_extTrainer="/my/trainers").stdout.strip()
    assert line.endswith("/nnunet_dml/plugin:/my/trainers")


@pytest.mark.parametrize("arguments", [["501", "2d", "0", "--npz"], ["-tr", "X", "501", "2d", "0"], ["-h"]])
def test_train_hands_everything_on(monkeypatch, arguments):
    monkeypatch.setenv("nnUNet_extTrainer", "")
    got = []
    monkeypatch.setattr("nnunet_dml.nnunet.stock_commands.nnunetv2_train", got.append)
    assert main(["train", *arguments]) == 0
    assert got == [arguments]
    assert os.environ["nnUNet_extTrainer"].endswith("plugin")


def test_online_figures_see_every_level_of_ten_raters():
    """3 of 10 raters are 76/255 on disk, just below the threshold 0.3 that they reach."""
    votes = torch.arange(11).repeat(3)[None, None]
    stored = torch.from_numpy(quantise((votes[0] / 10).numpy()))[None].float() / SCALE
    logits = torch.logit(torch.cat((1 - votes / 10, votes / 10), 1).clamp(1e-6, 1 - 1e-6).double())
    logits[:, 0] = 0
    logits[:, 1] = torch.logit((votes[:, 0] / 10).clamp(1e-6, 1 - 1e-6).double())
    layout = TargetLayout(foreground=1, regions=None, ignore_label=None)
    statistics = batch_statistics(logits, torch.cat((stored, (votes > 5).float()), 1), layout)
    intersection, predicted, reference = statistics["bdice"][:, :, 0]
    assert reference.tolist() == [3 * (11 - level) for level in range(1, 10)]
    assert predicted.tolist() == reference.tolist() == intersection.tolist()


def test_trainers_can_be_pickled():
    assert [pickle.loads(pickle.dumps(getattr(trainers, name))).__name__ for name in NAMES] == NAMES


def test_no_rank_draws_what_another_one_draws_in_any_epoch(monkeypatch):
    monkeypatch.setattr(nnUNetTrainer, "on_train_epoch_start", lambda self: None)
    trainer = object.__new__(trainers.nnUNetTrainerConfigured)
    trainer.options = Options.model_validate({"training": {"seed": 3}})
    drawn = []
    for trainer.local_rank in range(3):
        for trainer.current_epoch in range(4):
            trainer.on_train_epoch_start()
            drawn.append((random.random(), np.random.random(), torch.rand(()).item()))
    for numbers in zip(*drawn, strict=True):
        assert len(set(numbers)) == 12


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("raw/D/ratersTr", "weighted"),
        ("raw/D/softlabelsTr", "file"),
        ("preprocessed/arrays_soft/uniform", "uniform"),
    ],
)
def test_labels_that_auto_would_pass_over_stop_it(tmp_path, monkeypatch, folder, source):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    (tmp_path / "raw/D/imagesTr").mkdir(parents=True)
    trainer = SimpleNamespace(
        plans_manager=SimpleNamespace(dataset_name="D"),
        preprocessed_dataset_folder=str(tmp_path / "preprocessed/arrays"),
    )
    SoftLabelTrainer._check_that_nothing_is_soft(trainer)
    (tmp_path / folder).mkdir(parents=True)
    SoftLabelTrainer._check_that_nothing_is_soft(trainer)
    (tmp_path / folder / "a.nii.gz").touch()
    with pytest.raises(InputError, match=f"--set labels.source={source} "):
        SoftLabelTrainer._check_that_nothing_is_soft(trainer)


@pytest.mark.slow
class TestPhantom:
    @pytest.mark.parametrize("name", SOFT)
    def test_a_step_of_training_and_validation_on_soft_labels(self, phantom, name):
        trainer = build(name, phantom)
        assert trainer.source == "weighted"
        trainer.initialize()
        train, val = trainer.get_dataloaders()
        trainer.network.train()
        losses = [float(trainer.train_step(next(train))["loss"]) for _ in range(3)]
        assert np.isfinite(losses).all()
        with torch.no_grad():
            output = trainer.validation_step(next(val))
        assert output["tp_hard"].shape == (1,)
        assert output["reliability"][0].sum() == 2 * np.prod(trainer.configuration_manager.patch_size)

    def test_the_target_is_the_soft_map(self, phantom):
        """A validation batch holds only fractions that three raters can give, and the raters' labels."""
        trainer = build("nnUNetTrainerDML", phantom, plans="tiny_uniform")
        trainer.initialize()
        batch = next(trainer.get_dataloaders()[1])
        soft, labels = batch["target"][:, 0], batch["target"][:, 1]
        thirds = torch.tensor([0, 85, 170, 255]) / 255
        assert (soft[..., None] - thirds).abs().min(-1).values.max() < 1e-6
        assert ((soft > 0) & (soft < 1)).any()
        assert torch.equal(labels == 1, soft > 0.5)

    def test_the_loss_is_what_the_options_say(self, phantom):
        trainer = build("nnUNetTrainerDML", phantom, loss={"weight_ce": 0.25, "weight_overlap": 0.75})
        trainer.initialize()
        batch = next(trainer.get_dataloaders()[1])
        outputs = trainer.network(batch["data"])
        target, _ = trainer.layout.soft(batch["target"])
        weights = deep_supervision_weights(len(outputs))
        expected = 0.0
        for weight, logits in zip(weights, outputs, strict=True):
            if weight:
                fractions = average_down(target, logits.shape[2:])
                cross_entropy = -(fractions * logits.log_softmax(1)).sum(1).mean()
                overlap = dice_semimetric_loss(logits.softmax(1)[:, 1:], fractions[:, 1:])
                expected = expected + weight * (0.25 * cross_entropy + 0.75 * (overlap - 1))
        torch.testing.assert_close(trainer.loss(outputs, batch["target"]), expected)

    def test_without_deep_supervision_one_output_is_trained(self, phantom):
        trainer = build("nnUNetTrainerDML", phantom, loss={"deep_supervision": False})
        trainer.initialize()
        train, val = trainer.get_dataloaders()
        trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
        assert isinstance(trainer.network(next(val)["data"]), torch.Tensor)
        assert np.isfinite(trainer.train_step(next(train))["loss"])

    @pytest.mark.parametrize("batch_dice", [True, False])
    def test_on_hard_labels_with_equal_weights_the_loss_is_nnunets_own(self, phantom, batch_dice):
        ours = build(
            "nnUNetTrainerDML", phantom, plans="tiny_hard", loss={"weight_ce": 1, "weight_overlap": 1}
        )
        stock = build("nnUNetTrainerConfigured", phantom)
        check_equal_losses(ours, stock, batch_dice)

    def test_missing_soft_maps_stop_it_with_the_command_that_makes_them(self, phantom, capsys):
        trainer = build("nnUNetTrainerDML", phantom, labels={"source": "majority"})
        with pytest.raises(SystemExit) as stop:
            trainer.on_train_start()
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert f"nnunet-dml preprocess -d {DATASET} -c 2d -p tiny --fusion majority" in message
        assert "case01 (missing)" in message

    def test_stale_soft_maps_stop_it(self, phantom, tmp_path, monkeypatch, capsys):
        shutil.copytree(phantom.raw / DATASET, tmp_path / DATASET)
        monkeypatch.setenv("nnUNet_raw", str(tmp_path))
        rater = next((tmp_path / DATASET / "ratersTr" / "case03").iterdir())
        shutil.copy(next((tmp_path / DATASET / "ratersTr" / "case04").iterdir()), rater)
        with pytest.raises(SystemExit):
            build("nnUNetTrainerDML", phantom).on_train_start()
        assert "case03 (stale: sources changed)" in capsys.readouterr().err

    def test_raters_that_dataset_json_does_not_list_are_not_ignored(
        self, phantom, tmp_path, monkeypatch, capsys
    ):
        shutil.copytree(phantom.preprocessed / DATASET, tmp_path / DATASET)
        monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
        described = json.loads((tmp_path / DATASET / "dataset.json").read_text())
        (tmp_path / DATASET / "dataset.json").write_text(json.dumps({**described, "nnunet_dml": {}}))
        here = SimpleNamespace(preprocessed=tmp_path)
        with pytest.raises(SystemExit):
            build("nnUNetTrainerDML", here).on_train_start()
        assert "labels.source=weighted (or hard)" in capsys.readouterr().err
        assert not build("nnUNetTrainerDML", here, plans="tiny_hard").soft

    @pytest.mark.parametrize("name", ["nnUNetTrainerConfigured", "nnUNetTrainerDML"])
    def test_a_fold_without_training_cases_stops_it(self, phantom, tmp_path, monkeypatch, capsys, name):
        shutil.copytree(phantom.preprocessed / DATASET, tmp_path / DATASET)
        monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
        trainer = build(name, phantom)
        splits = [{"train": [], "val": ["case01"]}]
        (tmp_path / DATASET / "splits_final.json").write_text(json.dumps(splits))
        trainer.preprocessed_dataset_folder_base = str(tmp_path / DATASET)
        with pytest.raises(SystemExit) as stop:
            trainer.on_train_start()
        assert stop.value.code == 2
        message = "splits_final.json: expected training cases in fold 0, found none."
        assert message in capsys.readouterr().err

    def test_what_auto_means_is_saved(self, phantom):
        trainer = build("nnUNetTrainerDML", phantom)
        assert trainer.plans_manager.plans["nnunet_dml"]["labels"]["source"] == "weighted"
        assert trainer.my_init_kwargs["plans"]["nnunet_dml"]["labels"]["source"] == "weighted"

    def test_without_the_raw_data_it_still_trains(self, phantom, monkeypatch):
        monkeypatch.delenv("nnUNet_raw")
        trainer = build("nnUNetTrainerDML", phantom)
        trainer.initialize()
        trainer.on_train_start()
        assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])

    def test_the_log_says_what_it_is_trained_on(self, phantom, capsys):
        trainer = build("nnUNetTrainerDML_BLS", phantom)
        trainer.initialize()
        trainer.on_train_start()
        expected = "Training on nnU-Net's hard labels. Smoothed in the loss: labels.smoothing=boundary."
        assert expected in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("name", "changes", "words"),
        [
            ("nnUNetTrainerConfigured", {"loss": {"overlap": "jml"}}, "reads the options training only"),
            ("nnUNetTrainerDML", {"loss": {"overlap": "dice"}}, "bad value 'dice' of loss.overlap"),
            ("nnUNetTrainerDML", {"los": {}}, "unknown option 'los'"),
        ],
    )
    def test_bad_options_stop_it(self, phantom, capsys, name, changes, words):
        with pytest.raises(SystemExit) as stop:
            build(name, phantom, **changes)
        assert stop.value.code == 2
        assert words in capsys.readouterr().err

    def test_the_documented_defaults_of_the_schedule_are_upstreams(self, phantom):
        trainer, defaults = build("nnUNetTrainerConfigured", phantom, training={}), TrainingOptions()
        for option, attribute in _ATTRIBUTES.items():
            assert getattr(trainer, attribute) == getattr(defaults, option), option

    def test_two_runs_of_one_seed_are_the_same_run(self, phantom):
        losses = []
        for _ in range(2):
            trainer = build("nnUNetTrainerDML", phantom)
            trainer.initialize()
            trainer.on_train_start()
            trainer.network.train()
            losses.append(
                [float(trainer.train_step(next(trainer.dataloader_train))["loss"]) for _ in range(3)]
            )
        assert losses[0] == losses[1]

    @pytest.mark.parametrize("name", ["nnUNetTrainerConfigured", "nnUNetTrainerDML"])
    def test_bfloat16_is_for_training_alone(self, phantom, name):
        losses, outputs = [], []
        for mode in ("off", "on"):
            trainer = build(name, phantom, training={"seed": 1, "bfloat16": mode})
            trainer.initialize()
            trainer.on_train_start()
            batch = next(trainer.dataloader_train)
            outputs.append(trainer.network.eval()(batch["data"])[0])
            trainer.network.train()
            losses.append(float(trainer.train_step(batch)["loss"]))
        assert torch.equal(*outputs)
        assert losses[0] == pytest.approx(losses[1], abs=0.02)
        assert losses[0] != losses[1]

    def test_from_training_to_evaluation_with_stock_commands(self, phantom, tmp_path):
        log = train_tiny("901", "2d").stdout
        assert "Training on soft labels (weighted): " in log
        assert log.count(": BDice") == TINY["training"]["epochs"]
        assert log.count(": ECE") == TINY["training"]["epochs"]
        model = phantom.results / DATASET / "nnUNetTrainerDML__tiny__2d"
        assert json.loads((model / "plans.json").read_text())["nnunet_dml"]["training"]["epochs"] == 2
        out = nnunet_dml(
            "evaluate", "-d", "901", "--model", model.name, "-o", tmp_path / "evaluation", "-np", "1"
        ).stdout
        assert "BDice" in out
        rows = (tmp_path / "evaluation" / "cases.csv").read_text().splitlines()
        assert rows[0].startswith("case,fold,class,dice,bdice,ece,volume_bias")
        assert len(rows) == 1 + 2 * 2  # two validation cases: a row per class and one for all

        # a training without its last checkpoint goes on from its best one, with its own options …
        (model / "fold_0" / "checkpoint_final.pth").unlink()
        again = train_tiny("901", "2d", "--c")
        assert "Validation complete" in again.stdout
        assert (model / "fold_0" / "checkpoint_final.pth").is_file()
        assert "Epoch 0\n" not in again.stdout
        # … and not with others
        changed = phantom.preprocessed / DATASET / "tiny.json"
        before = changed.read_text()
        try:
            changed.write_text(before.replace('"epochs": 2', '"epochs": 3'))
            refused = train_tiny("901", "2d", "--c", check=False)
        finally:
            changed.write_text(before)
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr
        assert "expected the options" in refused.stderr
        try:
            changed.write_text(before.replace('"batch_size": 2', '"batch_size": 3'))
            refused = train_tiny("901", "2d", "--c", check=False)
        finally:
            changed.write_text(before)
        assert refused.returncode == 2
        assert "one with another batch_size" in refused.stderr

        # what was trained predicts with nnU-Net's own command
        run("nnUNetv2_predict", "-i", phantom.raw / DATASET / "imagesTr", "-o", tmp_path / "predicted", "-d", "901", "-c", "2d",
            "-tr", "nnUNetTrainerDML", "-p", "tiny", "-f", "0", "-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1")  # fmt: skip
        assert len(list((tmp_path / "predicted").glob("*.nii.gz"))) == 10
