"""Two processes of nnU-Net's distributed training on the CPU, against one process with the joint batch.

nnU-Net trains so on CUDA alone: `run_training` asserts it, `setup_ddp` wants NCCL, the trainer takes `cuda:rank`, and
`initialize` names that device to DDP. The processes below do the rest of it with Gloo.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from nnunet_dml.nnunet import trainers
from tests.conftest import set_folders
from tests.nnunet import mode_helpers as here
from tests.nnunet.test_modes import IGNORE, SIDE, consensus_of, masks_of
from tests.preloaded import two_ranks

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # nnU-Net's own code warns

DATASET = "Dataset940_Ranks"
PLANS = ("soft", "lovasz")
SPLIT = (slice(0, 2), slice(2, 3))  # what two ranks have of a batch of three


def trainer_of(preprocessed, plans):
    folder = preprocessed / DATASET
    content = {**here.read_json(folder / f"{plans}.json"), "continue_training": False}
    described = here.read_json(folder / "dataset.json")
    return trainers.nnUNetTrainerDML(content, "2d", 0, described, here.CPU)


def one_epoch(trainer, batch):
    """A step of training and the end of an epoch's validation, both on the given batch."""
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    loss = trainer.train_step(batch)
    gradients = {
        name: it.grad.clone() for name, it in trainer.network.named_parameters() if it.grad is not None
    }
    trainer.on_train_epoch_end([loss])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end([trainer.validation_step(batch)])
    trainer.on_epoch_end()
    figures = {
        name: trainer.logger.get_value(name, step=-1)
        for name in ("dice_per_class_or_region", "val_bdice_per_class", "val_ece")
        if name in trainer.logger.local_logger.my_fantastic_logging
    }
    return {"loss": float(loss["loss"]), "gradients": gradients, "figures": figures}


def worker(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    stock.DDP = lambda network, device_ids: DistributedDataParallel(network)
    results = {}
    for plans in PLANS:
        trainer = trainer_of(folder / "preprocessed", plans)
        trainer.device, trainer.grad_scaler = here.CPU, None
        trainer.initialize()
        trainer.on_train_start()
        loader = trainer.dataloader_train.data_loader
        batch = torch.load(folder / f"{plans}.pt")
        target = batch["target"]
        mine = {
            "data": batch["data"][SPLIT[rank]],
            "target": [it[SPLIT[rank]] for it in target] if isinstance(target, list) else target[SPLIT[rank]],
        }
        results[plans] = {
            "batch_size": (trainer.batch_size, loader.batch_size),
            "gather": trainer.loss.single.averaging.gather,
            "weights": trainer.loss.averaging.weights,
            **one_epoch(trainer, mine),
        }
        if plans == "soft":
            with here.threads_for_processes():
                trainer.perform_actual_validation()
    torch.save(results, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What one process and two have done with the same batches."""
    with pytest.MonkeyPatch.context() as patch:
        base = tmp_path_factory.mktemp("ranks")
        folders = set_folders(patch, base)
        masks = {f"case{i}": masks_of(i, abstaining=True) for i in range(6)}
        noise = np.random.default_rng(0)
        images = {
            case: [(100 + 50 * raters["b"] + noise.normal(0, 5, (SIDE, SIDE))).astype(np.float32)]
            for case, raters in masks.items()
        }
        consensus = {case: consensus_of(raters) for case, raters in masks.items()}
        labels = {"background": 0, "rim": 1, "core": 2, "ignore": IGNORE}
        here.write_raw(folders.raw / DATASET, images, masks, consensus, labels)
        here.plan(940)
        here.preprocess(940, ["2d"])
        here.configure(940, "soft", "labels.source=uniform", batch_size=3)
        here.configure(940, "lovasz", "labels.source=hard", "loss.overlap=lovasz", batch_size=3)
        alone = {}
        for plans in PLANS:
            trainer = trainer_of(folders.preprocessed, plans)
            trainer.initialize()
            trainer.on_train_start()
            (batch,) = here.batches(trainer)
            torch.save({key: batch[key] for key in ("data", "target")}, base / f"{plans}.pt")
            alone[plans] = one_epoch(trainer, batch)
        two_ranks(worker, base)
        yield alone, [torch.load(base / f"rank{rank}.pt", weights_only=False) for rank in range(2)], folders


def test_the_batch_is_split_and_the_loss_gathers(ranks):
    _, both, _ = ranks
    for plans in PLANS:
        assert [rank[plans]["batch_size"] for rank in both] == [(2, 2), (1, 1)]
        assert [rank[plans]["gather"] for rank in both] == [plans == "soft"] * 2
        assert all(0 < rank[plans]["weights"][-1] < 1e-5 for rank in both), "no parameter without a gradient"


def test_loss_and_gradients_are_those_of_the_joint_batch(ranks):
    alone, both, _ = ranks
    expected = alone["soft"]
    for rank in both:
        assert rank["soft"]["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        for name, gradient in expected["gradients"].items():
            torch.testing.assert_close(
                rank["soft"]["gradients"][f"module.{name}"], gradient, atol=1e-5, rtol=1e-3
            )


def test_figures_of_an_epoch_are_those_of_the_joint_batch(ranks):
    alone, both, _ = ranks
    for rank in both:
        for name, expected in alone["soft"]["figures"].items():
            np.testing.assert_allclose(rank["soft"]["figures"][name], expected, atol=1e-5, err_msg=name)
    assert set(alone["soft"]["figures"]) == {"dice_per_class_or_region", "val_bdice_per_class", "val_ece"}


def test_lovasz_takes_each_rank_by_itself(ranks):
    _, both, _ = ranks
    first, second = (rank["lovasz"]["gradients"] for rank in both)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert both[0]["lovasz"]["loss"] != both[1]["lovasz"]["loss"]


def test_the_validation_is_shared(ranks):
    folders = ranks[2]
    validation = folders.results / DATASET / "nnUNetTrainerDML__soft__2d" / "fold_0" / "validation"
    assert len(list(validation.glob("*.nii.gz"))) == 2
    assert (validation / "summary.json").is_file()
