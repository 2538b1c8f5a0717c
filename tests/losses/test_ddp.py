"""Two processes, half a batch each, against one process with all of it."""

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_dml.losses import CrossEntropyOverlapLoss, dice_semimetric_loss

OPTIONS = {
    "dml": {"overlap": "dml", "gather": True},
    "ctl": {"overlap": "ctl", "alpha": 0.3, "beta": 0.8, "gamma": 1.5, "gather": True},
    "jml image": {"overlap": "jml", "reduction": "image", "gather": True},
}


def joint_batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 1, 6, 6, generator=generator)
    scale = torch.tensor([0.1, 1.0, 3.0, 8.0]).view(4, 1, 1, 1)  # ranks of very different size
    return images, (scale * torch.randn(4, 3, 6, 6, generator=generator)).softmax(1)


def network():
    torch.manual_seed(1)
    return nn.Conv2d(1, 3, 3, padding=1)


def worker(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    images, target = (t[2 * rank : 2 * rank + 2] for t in joint_batch())
    results = {}
    for name, options in OPTIONS.items():
        model = DistributedDataParallel(network())
        loss = CrossEntropyOverlapLoss(**options)(model(images), target)
        loss.backward()
        results[name] = (loss.detach(), [p.grad for p in model.parameters()])
    probs = target.flip(0)
    results["function"] = (dice_semimetric_loss(probs, target, gather=True), [])
    results["alone"] = (dice_semimetric_loss(probs, target), [])
    torch.save(results, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_are_one_batch(tmp_path):
    multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    images, target = joint_batch()
    for name, options in OPTIONS.items():
        model = network()
        expected = CrossEntropyOverlapLoss(**options)(model(images), target)
        expected.backward()
        # cross-entropy is each rank's own, so the mean over the ranks is compared
        torch.testing.assert_close((ranks[0][name][0] + ranks[1][name][0]) / 2, expected.detach())
        for rank in ranks:
            for got, parameter in zip(rank[name][1], model.parameters(), strict=True):
                torch.testing.assert_close(got, parameter.grad)
    probs = torch.cat((target[:2].flip(0), target[2:].flip(0)))
    for rank in ranks:
        torch.testing.assert_close(rank["function"][0], dice_semimetric_loss(probs, target))
        assert (
            rank["alone"][0] - rank["function"][0]
        ).abs() > 1e-2  # without `gather` each rank is for itself


def test_gather_without_ranks_is_harmless():
    x, y = torch.rand(2, 2, 5), torch.rand(2, 2, 5)
    assert torch.equal(dice_semimetric_loss(x, y, gather=True), dice_semimetric_loss(x, y))
