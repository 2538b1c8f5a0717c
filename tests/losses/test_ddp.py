"""Two processes, half a batch each, against one process with all of it."""

from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_dml.losses import CrossEntropyOverlapLoss, DeepSupervisionLoss, dice_semimetric_loss
from tests.preloaded import two_ranks

OPTIONS = {
    "dml": {"overlap": "dml"},
    "ctl": {"overlap": "ctl", "alpha": 0.3, "beta": 0.8, "gamma": 1.5},
    "power": {"overlap": "ctl", "alpha": 0.3, "beta": 0.8, "power": 2.0, "log": True},
    "jml image": {"overlap": "jml", "reduction": "image"},
    "mixture": {"overlap": "jml", "reduction": {"batch": 1, "image": 3}},
    # the threshold is met on one rank only; each rank alone would count other classes
    "label": {"active": "label", "threshold": 0.99},
    "both": {"active": "both", "threshold": 0.6, "background": True},
    "present": {"active": "present", "class_weights": (1.0, 0.5, 3.0), "log": True},
    "weights": {"overlap": "sjl", "norm": 2, "class_weights": (0.2, 0.5, 3.0)},
    "regions": {
        "activation": "sigmoid",
        "class_weights": (1.0, 0.5, 3.0),
        "active": "prob",
        "threshold": 0.6,
    },
    "regions, log": {"activation": "sigmoid", "variant": 2, "log": True},
}
SETTINGS = {
    f"{name}{', mask' * masked}{', deep' * deep}": (options | {"gather": True}, masked, deep)
    for name, options in OPTIONS.items()
    for masked in (False, True)
    for deep in (False, True)
}


def joint_batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 1, 6, 6, generator=generator)
    scale = torch.tensor([0.1, 1.0, 3.0, 8.0]).view(4, 1, 1, 1)  # ranks of very different size
    return images, (scale * torch.randn(4, 3, 6, 6, generator=generator)).softmax(1)


def joint_mask():
    """Rank 0 has few valid voxels, rank 1 many."""
    share = torch.tensor([0.1, 0.2, 0.9, 0.8]).view(4, 1, 1, 1)
    return torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(2)) < share


class Network(nn.Module):
    """Two outputs, the second at half the resolution."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.fine, self.coarse = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 3, 2, stride=2)

    def forward(self, x):
        return [self.fine(x), self.coarse(x)]


def loss_of(name, model, images, target, mask):
    options, masked, deep = SETTINGS[name]
    weights = (0.75, 0.25) if deep else (1.0, 1e-6)
    loss = DeepSupervisionLoss(CrossEntropyOverlapLoss(**options), weights)
    return loss(model(images), target, mask if masked else None)


def worker(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    images, target, mask = (t[2 * rank : 2 * rank + 2] for t in (*joint_batch(), joint_mask()))
    results = {}
    for name in SETTINGS:
        model = DistributedDataParallel(Network())
        loss = loss_of(name, model, images, target, mask)
        loss.backward()
        results[name] = (loss.detach(), [p.grad for p in model.parameters()])
    probs = target.flip(0)
    results["function"] = (dice_semimetric_loss(probs, target, gather=True), [])
    results["alone"] = (dice_semimetric_loss(probs, target), [])
    torch.save(results, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_are_one_batch(tmp_path):
    two_ranks(worker, str(tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    images, target = joint_batch()
    for name in SETTINGS:
        model = Network()
        expected = loss_of(name, model, images, target, joint_mask())
        expected.backward()
        # images are each rank's own, so the mean over the ranks is compared
        values = [rank[name][0] for rank in ranks]
        torch.testing.assert_close(sum(values) / 2, expected.detach(), msg=lambda m, n=name: f"{n}: {m}")
        if "image" not in name and "mixture" not in name:
            torch.testing.assert_close(values[0], values[1])
        for rank in ranks:
            for got, parameter in zip(rank[name][1], model.parameters(), strict=True):
                torch.testing.assert_close(
                    got, parameter.grad, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
                )
    probs = torch.cat((target[:2].flip(0), target[2:].flip(0)))
    for rank in ranks:
        torch.testing.assert_close(rank["function"][0], dice_semimetric_loss(probs, target))
        assert (
            rank["alone"][0] - rank["function"][0]
        ).abs() > 1e-2  # without `gather` each rank is for itself


def test_gather_without_ranks_is_harmless():
    x, y = torch.rand(2, 2, 5), torch.rand(2, 2, 5)
    assert torch.equal(dice_semimetric_loss(x, y, gather=True), dice_semimetric_loss(x, y))
