"""Semi-supervised training in two processes of nnU-Net's distributed training on the CPU, against one process."""

from __future__ import annotations

import pytest
import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from nnunet_dml.nnunet.trainers.semi_supervised import SERIES
from tests.nnunet import mode_helpers as here
from tests.nnunet.semi_supervised.helpers import SimpleIterator
from tests.nnunet.ssl_world import build, make_world
from tests.preloaded import two_ranks

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # nnU-Net's own code warns

SPLIT = (slice(0, 2), slice(2, 3))  # what two ranks have of three labelled and of three unlabelled patches
OPTIONS = {"unlabelled": {"cutmix": 0, "confidence": 0.36, "ema": 0.5}, "labels": {"smoothing": "off"}}


def two_steps(trainer, samples, folder):
    """Two steps on the given samples; student, average, gradients of the second step, losses, figures."""
    content = torch.load(folder / "batch.pt")
    trainer.dataloader_unlabelled = SimpleIterator(lambda: {"data": content["views"][samples]})
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    outputs = [
        trainer.train_step({"data": content["data"][samples], "target": content["target"][samples]})
        for _ in range(2)
    ]
    trainer.on_train_epoch_end(outputs)
    parameters = {
        name.removeprefix("module."): it.grad.clone()
        for name, it in trainer.network.named_parameters()
        if it.grad is not None
    }
    return {
        "loss": [float(it["loss"]) for it in outputs],
        "gradients": parameters,
        "average": trainer.average.module.state_dict(),
        "figures": [trainer.logger.get_value(name, step=-1) for name in SERIES],
    }


def worker(rank, world, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    stock.DDP = lambda network, device_ids: DistributedDataParallel(network)
    trainer = build(world, start=False, **OPTIONS)
    trainer.device, trainer.grad_scaler = here.CPU, None
    trainer.initialize()
    trainer.on_train_start()
    sizes = (trainer.batch_size, trainer.dataloader_unlabelled.data_loader.batch_size)
    done = two_steps(trainer, SPLIT[rank], folder)
    trainer.save_checkpoint(str(folder / "checkpoint.pth"))
    torch.save(done | {"sizes": sizes}, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_are_one_process_with_the_joint_batch(tmp_path, monkeypatch):
    world = make_world(monkeypatch, tmp_path, "Dataset955_Ranks", unlabelled=3, batch_size=3)
    trainer = build(world, **OPTIONS)
    batch, views = next(trainer.dataloader_train), next(trainer.dataloader_unlabelled)
    torch.save(
        {"data": batch["data"], "target": batch["target"], "views": views["data"]}, tmp_path / "batch.pt"
    )
    alone = two_steps(trainer, slice(None), tmp_path)
    two_ranks(worker, world, tmp_path)
    both = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=False) for rank in range(2)]
    assert [rank["sizes"] for rank in both] == [(2, 2), (1, 1)]
    for rank in both:
        assert rank["loss"] == pytest.approx(alone["loss"], abs=1e-5)
        # confidence and the share of valid voxels are means over ranks of different size
        assert rank["figures"][:4] == pytest.approx(alone["figures"][:4], abs=1e-5)
        assert rank["figures"][4:] == both[0]["figures"][4:]
        for name, gradient in alone["gradients"].items():
            torch.testing.assert_close(rank["gradients"][name], gradient, atol=1e-5, rtol=1e-3)
        for name, weight in alone["average"].items():
            torch.testing.assert_close(rank["average"][name], weight, atol=1e-6, rtol=1e-4)
            assert torch.equal(rank["average"][name], both[0]["average"][name])
    content = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    assert all(torch.equal(it, both[0]["average"][name]) for name, it in content["network_weights"].items())
