"""Trainings in three dimensions: of one rater's hard labels, and of fractions."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.conftest import TINY, nnunet_dml, plan_and_preprocess, run, set_folders, train_tiny
from tests.nnunet.trainer_helpers import build, check_equal_losses

pytestmark = pytest.mark.filterwarnings("ignore")  # training runs nnU-Net's code, which warns


@pytest.mark.slow
@pytest.mark.data
def test_hippocampus_trains_on_its_hard_labels_with_nnunets_loss(real_data, tmp_path, monkeypatch):
    """3d_fullres, three classes, one rater: two epochs; the loss with weights 1/1 equals nnU-Net's own."""
    folders = set_folders(monkeypatch, tmp_path)
    dataset = "Dataset004_Hippocampus"
    (folders.raw / dataset).mkdir()
    for folder in ("imagesTr", "labelsTr"):
        (folders.raw / dataset / folder).mkdir()
        for path in sorted((real_data / dataset / folder).iterdir())[:10]:
            shutil.copy(path, folders.raw / dataset / folder)
    described = json.loads((real_data / dataset / "dataset.json").read_text())
    (folders.raw / dataset / "dataset.json").write_text(json.dumps({**described, "numTraining": 10}))
    plan_and_preprocess("4", "3d_fullres")
    tiny = [f"training.{key}={value}" for key, value in TINY["training"].items()]
    nnunet_dml(
        "configure", "-d", "4", "-o", "tiny", "--scale-features", "0.125", "--batch-size", "2", "--set", *tiny
    )

    ours = build(
        "nnUNetTrainerDML",
        folders,
        dataset,
        configuration="3d_fullres",
        loss={"weight_ce": 1, "weight_overlap": 1},
    )
    assert ours.source == "hard"
    check_equal_losses(
        ours, build("nnUNetTrainerConfigured", folders, dataset, configuration="3d_fullres"), batch_dice=False
    )

    log = run(
        "nnUNetv2_train", "4", "3d_fullres", "0", "-tr", "nnUNetTrainerDML", "-p", "tiny", "-device", "cpu"
    ).stdout
    assert "Training on nnU-Net's hard labels." in log
    assert "Mean Validation Dice" in log


@pytest.mark.slow
def test_three_dimensions_train_on_fractions(make_phantom, tmp_path, monkeypatch):
    """3d_fullres with resampling: fractions from three raters reach the loss at every resolution."""
    folders = set_folders(monkeypatch, tmp_path)
    make_phantom(tmp_path / "source", cases=5, raters=3, size=40, depth=16)
    nnunet_dml("convert", "raters", tmp_path / "source", "--dataset", "902_Volume", "--layout", "qubiq")
    plan_and_preprocess("902", "3d_fullres")
    nnunet_dml("preprocess", "-d", "902")
    tiny = [f"training.{key}={value}" for key, value in TINY["training"].items()]
    nnunet_dml("configure", "-d", "902", "-o", "tiny", "--scale-features", "0.125", "--set", *tiny)
    trainer = build("nnUNetTrainerDML", folders, "Dataset902_Volume", configuration="3d_fullres")
    trainer.initialize()
    train, _ = trainer.get_dataloaders()
    batch = next(train)
    target, labels = trainer.layout.soft(batch["target"])[0], trainer.layout.hard_of_packed(batch["target"])
    assert batch["data"].ndim == 5
    assert ((target > 0.01) & (target < 0.99)).float().mean() > 0.005
    agreement = ((target[:, 1] > 0.5) == (labels[:, 0] == 1)).float().mean()
    assert agreement > 0.99
    log = train_tiny("902", "3d_fullres")
    assert "Training on soft labels (weighted): " in log.stdout
    out = nnunet_dml(
        "evaluate", "-d", "902", "--model", "nnUNetTrainerDML__tiny__3d_fullres", "-o", tmp_path / "out"
    ).stdout
    assert "BDice" in out
