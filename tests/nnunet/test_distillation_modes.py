"""Distillation in a cascade, and in two processes of a distributed training on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from nnunet_dml.losses.distillation import TERMS
from nnunet_dml.nnunet import trainers
from nnunet_dml.nnunet.distillation import ECE
from tests.conftest import set_folders
from tests.nnunet import mode_helpers as here
from tests.nnunet.mode_helpers import disc, trainer_for
from tests.nnunet.test_modes import IGNORE, SIDE, consensus_of, masks_of
from tests.nnunet.test_sources import refusal
from tests.preloaded import two_ranks

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # nnU-Net's own code warns

SHAPE = (16, 16, 16)
STAGES = "3d_lowres", "3d_cascade_fullres"
RANKS = "Dataset971_Ranks"
SPLIT = (slice(0, 2), slice(2, 3))  # what two ranks have of a batch of three


def add_cascade(plans):
    configurations = plans["configurations"]
    lowres = {"data_identifier": "nnUNetPlans_3d_lowres", "spacing": [2.0] * 3, "patch_size": [8] * 3}
    stage = {**configurations["3d_fullres"], **lowres, "next_stage": STAGES[1]}
    configurations |= {
        STAGES[0]: stage,
        STAGES[1]: {"inherits_from": "3d_fullres", "previous_stage": STAGES[0]},
    }


def test_each_stage_of_a_cascade_has_the_teacher_of_its_stage(tmp_path, monkeypatch, capsys):
    """The same previous stage goes into both networks, beside the image."""
    folders = set_folders(monkeypatch, tmp_path)
    folder = folders.raw / "Dataset970_Stages"
    masks = {f"case{i}": disc(SHAPE, 0.5 + 0.05 * i).astype(np.uint8) for i in range(3)}
    noise = np.random.default_rng(0)
    images = {case: [(mask + noise.normal(0, 0.2, SHAPE)).astype(np.float32)] for case, mask in masks.items()}
    here.write_raw(folder, images, {case: {} for case in masks}, masks, {"background": 0, "a": 1})
    here.plan(970)
    here.edit_json(folders.preprocessed / folder.name / "nnUNetPlans.json", add_cascade)
    with here.threads_for_processes():
        here.stock.preprocess([970], "nnUNetPlans", ["3d_fullres", "3d_lowres"], num_processes=[1, 1])
    here.configure(970, "big")
    for stage in STAGES:
        here.train(970, stage, "big", "nnUNetTrainerConfigured", fold="all")
    here.command(
        "configure",
        "-d",
        970,
        "-p",
        "big",
        "-o",
        "small",
        "--teacher",
        "nnUNetTrainerConfigured__big__{configuration}",
    )
    here.train(970, STAGES[0], "small", "nnUNetTrainerDML_KD", fold="all")
    trainer = trainer_for(970, STAGES[1], "small", "nnUNetTrainerDML_KD", fold="all")
    batch = next(trainer.dataloader_train)
    assert batch["data"].shape[1] == 2
    with torch.no_grad():
        blind = torch.cat((batch["data"][:, :1], 1 - batch["data"][:, 1:]), 1)
        assert not torch.equal(trainer.teacher(batch["data"]), trainer.teacher(blind))
    assert np.isfinite(trainer.train_step(batch)["loss"])

    def wrong_stage():
        plans = here.read_json(folders.preprocessed / folder.name / "small.json")
        plans["nnunet_dml"]["teacher"]["model"] = "Dataset970_Stages/nnUNetTrainerConfigured__big__3d_lowres"
        described = here.read_json(folder / "dataset.json")
        plans["continue_training"] = False
        trainers.nnUNetTrainerDML_KD(plans, STAGES[1], "all", described, here.CPU).on_train_start()

    assert "a teacher whose previous stage is the student's (3d_lowres), found none" in refusal(
        capsys, wrong_stage
    )


def student(preprocessed):
    folder = preprocessed / RANKS
    content = {**here.read_json(folder / "small.json"), "continue_training": False}
    return trainers.nnUNetTrainerDML_KD(content, "2d", 0, here.read_json(folder / "dataset.json"), here.CPU)


def one_epoch(trainer, batch):
    """A step of training and the end of an epoch, on the given batch."""
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    loss = trainer.train_step(batch)
    gradients = {
        key: it.grad.clone() for key, it in trainer.network.named_parameters() if it.grad is not None
    }
    trainer.on_train_epoch_end([loss])
    figures = {
        key: trainer.logger.get_value(key, step=-1) for key in (*(f"train_{it}" for it in TERMS), *ECE)
    }
    return {"loss": float(loss["loss"]), "gradients": gradients, "figures": figures}


def worker(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    stock.DDP = lambda network, device_ids: DistributedDataParallel(network)
    trainer = student(folder / "preprocessed")
    trainer.device, trainer.grad_scaler = here.CPU, None
    trainer.initialize()
    trainer.on_train_start()
    batch = torch.load(folder / "batch.pt")
    mine = {"data": batch["data"][SPLIT[rank]], "target": [it[SPLIT[rank]] for it in batch["target"]]}
    wrapped = [isinstance(it, DistributedDataParallel) for it in trainer.teacher.modules()]
    result = {
        "temperature": trainer.calibration.parameter,
        "wrapped": any(wrapped),
        **one_epoch(trainer, mine),
    }
    torch.save(result, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_learn_what_one_does_of_the_joint_batch(tmp_path, monkeypatch):
    """With a temperature, which needs no keys drawn on each rank; found on the first rank's patches."""
    folders = set_folders(monkeypatch, tmp_path)
    masks = {f"case{i}": masks_of(i, abstaining=True) for i in range(5)}
    noise = np.random.default_rng(0)
    images = {
        case: [(100 + 50 * raters["b"] + noise.normal(0, 5, (SIDE, SIDE))).astype(np.float32)]
        for case, raters in masks.items()
    }
    consensus = {case: consensus_of(raters) for case, raters in masks.items()}
    labels = {"background": 0, "rim": 1, "core": 2, "ignore": IGNORE}
    here.write_raw(folders.raw / RANKS, images, masks, consensus, labels)
    here.plan(971)
    here.preprocess(971, ["2d"])
    here.configure(971, "big", batch_size=3)
    here.train(971, "2d", "big", "nnUNetTrainerConfigured")
    here.command("configure", "-d", 971, "-p", "big", "-o", "small", "--calibration", "temperature",
                 "--teacher", "nnUNetTrainerConfigured__big__2d")  # fmt: skip
    trainer = student(folders.preprocessed)
    trainer.initialize()
    trainer.on_train_start()
    (batch,) = here.batches(trainer)
    torch.save({key: batch[key] for key in ("data", "target")}, tmp_path / "batch.pt")
    two_ranks(worker, tmp_path)
    both = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=False) for rank in range(2)]
    assert both[0]["temperature"] == both[1]["temperature"]
    trainer.calibration.parameter = both[0]["temperature"]
    alone = one_epoch(trainer, batch)
    for rank in both:
        assert not rank["wrapped"]
        assert rank["loss"] == pytest.approx(alone["loss"], abs=1e-5)
        assert rank["figures"] == pytest.approx(alone["figures"], abs=1e-5)
        for key, gradient in alone["gradients"].items():
            torch.testing.assert_close(rank["gradients"][f"module.{key}"], gradient, atol=1e-5, rtol=1e-3)
