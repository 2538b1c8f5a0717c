"""Exports that are refused, and one that fails in the middle."""

from __future__ import annotations

import json
import zipfile

import pytest
import torch

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet import export as module
from nnunet_dml.nnunet.export import export
from tests.nnunet.export_helpers import change_checkpoint, make_model

EXTERNAL = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class nnUNetTrainerSame(nnUNetTrainer):
    pass

class nnUNetTrainerOther(nnUNetTrainer):
    @staticmethod
    def build_network_architecture(*args, **kwargs):
        return nnUNetTrainer.build_network_architecture(*args, **kwargs)
"""


@pytest.fixture(autouse=True)
def no_external_trainers(monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)


def test_other_trainers_need_nnunets_network(tmp_path, monkeypatch):
    same = make_model(tmp_path, trainer="nnUNetTrainerSame")
    with pytest.raises(InputError, match=r"nnUNetTrainerSame\. Export nnUNet_extTrainer as at training"):
        export(same, tmp_path / "same.zip")
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "export_external_trainers.py").write_text(EXTERNAL)
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "trainers"))
    (exported,) = export(same, tmp_path / "same.zip")
    assert (exported.record["trainer"], exported.record["stock_trainer"]) == (
        "nnUNetTrainerSame",
        "nnUNetTrainer",
    )
    other = make_model(tmp_path, trainer="nnUNetTrainerOther")
    with pytest.raises(InputError, match="nnUNetTrainerOther, which builds its own"):
        export(other, tmp_path / "other.zip")


def test_folds_that_do_not_belong_together_are_refused(tmp_path):
    model = make_model(tmp_path, folds=range(6))
    plans = json.loads((model / "plans.json").read_text())
    change_checkpoint(model, 1, trainer_name="nnUNetTrainerJML")
    change_checkpoint(
        model, 2, init_args=lambda it: {**it, "plans": {**plans, "nnunet_dml": {"training": {"epochs": 9}}}}
    )
    change_checkpoint(model, 3, init_args=lambda it: {**it, "dataset_json": {**it["dataset_json"], "labels": {"background": 0, "b": 1, "a": 2}}})  # fmt: skip
    change_checkpoint(model, 4, init_args=lambda it: {**it, "configuration": "low"})
    with pytest.raises(InputError) as caught:
        export(model, tmp_path / "model.zip")
    words = [
        "fold_1/checkpoint_final.pth: expected the trainer and configuration of the first fold (nnUNetTrainerDML, 2d), "
        "found nnUNetTrainerJML, 2d.",
        "fold_2/checkpoint_final.pth: expected a training with the plans and labels of nnUNetTrainerDML__toy__2d, found "
        "another nnunet_dml in plans.json.",
        "another labels in dataset.json",
        "found nnUNetTrainerDML, low.",
    ]
    assert len(caught.value.problems) == len(words)
    for line, part in zip(caught.value.problems, words, strict=True):
        assert part in line
    assert list(export(model, tmp_path / "model.zip", folds=["0", "5"])[0].record["folds"]) == ["0", "5"]


def test_damaged_checkpoints_are_named_together(tmp_path):
    model = make_model(tmp_path, folds=range(7))
    paths = [model / f"fold_{fold}" / "checkpoint_final.pth" for fold in range(7)]
    paths[1].write_bytes(paths[1].read_bytes()[:-100])
    with zipfile.ZipFile(paths[2]) as archive:  # one bit of one weight, which torch would not notice
        place = archive.getinfo("checkpoint_final/data/0").header_offset
    damaged = bytearray(paths[2].read_bytes())
    damaged[place + 200] ^= 1
    paths[2].write_bytes(damaged)
    paths[3].write_bytes(b"")
    torch.save({"weights": 1}, paths[4])
    torch.save([1], paths[5])
    change_checkpoint(model, 6, network_weights=lambda old: {k: v * float("nan") for k, v in old.items()})
    with pytest.raises(InputError) as caught:
        export(model, tmp_path / "model.zip")
    words = [
        "cannot be read (",
        "data/0",
        "cannot be read (",
        "something else",
        "something else",
        "NaN or infinity",
    ]
    assert len(caught.value.problems) == len(words)
    for path, line, part in zip(paths[1:], caught.value.problems, words, strict=True):
        assert line.startswith(str(path))
        assert part in line
    assert not (tmp_path / "model.zip").exists()


def test_weights_of_another_network_are_refused(tmp_path):
    model = make_model(tmp_path, folds=(0, 1))
    change_checkpoint(model, 1, network_weights=lambda old: dict(list(old.items())[:-1]))
    with pytest.raises(
        InputError, match=r"fold_1.*expected the weights .* nnUNetTrainer builds .* others: decoder"
    ):
        export(model, tmp_path / "model.zip")


def test_a_failure_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    model = make_model(tmp_path, folds=(0, 1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.zip").write_text("old")
    save, calls = torch.save, []

    def full_disk(*args):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        save(*args)

    monkeypatch.setattr(module.torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        export(model, tmp_path / "out" / "model.zip", overwrite=True)
    assert [it.name for it in (tmp_path / "out").iterdir()] == ["model.zip"]
    assert (tmp_path / "out" / "model.zip").read_text() == "old"
