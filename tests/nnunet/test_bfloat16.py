"""Networks that compute in bfloat16: what they are given and give stays float32."""

import copy

import pytest
import torch
from torch import nn

from nnunet_dml.nnunet import bfloat16
from nnunet_dml.nnunet.bfloat16 import compute_in_bfloat16, is_wanted


class Net(nn.Module):
    """Two outputs, as under deep supervision."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        self.seen = self.first(x)
        if x.sum() > 1e6:
            raise ValueError("too much")
        return [self.second(self.seen), self.seen]


IMAGES = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def test_only_the_forward_pass_of_training_is_in_bfloat16():
    plain, net = Net(), Net()
    compute_in_bfloat16(net, only_training=True)
    outputs = net(IMAGES)
    assert net.seen.dtype is torch.bfloat16
    assert [it.dtype for it in outputs] == [torch.float32, torch.float32]
    torch.testing.assert_close(outputs[0], plain(IMAGES)[0], atol=0.02, rtol=0.02)
    assert not torch.equal(outputs[0], plain(IMAGES)[0])
    (outputs[0] * 1.5).sum().backward()
    assert net.first.weight.grad.dtype is torch.float32
    assert not torch.is_autocast_enabled("cpu")
    net.eval()
    assert torch.equal(net(IMAGES)[0], plain(IMAGES)[0])


def test_a_teacher_computes_so_in_evaluation_mode_too():
    net = Net().eval()
    compute_in_bfloat16(net, only_training=False)
    assert net(IMAGES)[0].dtype is torch.float32
    assert net.seen.dtype is torch.bfloat16


def test_copies_compute_with_their_own_weights():
    net = Net()
    compute_in_bfloat16(net, only_training=True)
    other = copy.deepcopy(net)
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    assert other(IMAGES)[0].abs().max() == 0
    assert net(IMAGES)[0].abs().max() > 0
    assert other.seen.dtype is torch.bfloat16


def test_a_forward_pass_that_fails_leaves_nothing_switched_on():
    net = Net()
    compute_in_bfloat16(net, only_training=True)
    with pytest.raises(ValueError, match="too much"):
        net(IMAGES + 1e6)
    assert not torch.is_autocast_enabled("cpu")
    assert net(IMAGES)[0].dtype is torch.float32


@pytest.mark.parametrize(
    ("mode", "device", "native", "wanted"),
    [
        ("off", "cpu", True, False),
        ("on", "cpu", False, True),
        ("auto", "cpu", True, True),
        ("auto", "cpu", False, False),
        ("on", "cuda", True, False),
    ],
)
def test_when_it_is_wanted(monkeypatch, mode, device, native, wanted):
    monkeypatch.setattr(bfloat16, "_is_native", lambda: native)
    assert is_wanted(mode, torch.device(device)) is wanted
