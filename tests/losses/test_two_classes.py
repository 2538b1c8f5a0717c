"""One class and its background: the short way gives what the general one gives."""

import pytest
import torch

from nnunet_dml.losses import CrossEntropyOverlapLoss, _logit_sums, _two_classes

CASES = [
    {},
    {"variant": 2},
    {"overlap": "jml", "log": True},
    {"overlap": "sdl"},
    {"overlap": "sjl", "norm": 2},
    {"weight_ce": 0},
    {"weight_overlap": 0},
    {"class_weights": (0.2, 3.0)},
    {"reduction": "image", "active": "both", "threshold": 0.4},
]


def both_ways(monkeypatch, loss, logits, target, mask=None):
    """Value and gradient by the short and by the general way; the short one is taken once forward and back per piece."""
    calls, short = [], _two_classes.foreground
    monkeypatch.setattr(_two_classes, "foreground", lambda *its: calls.append(1) or short(*its))
    found = []
    for general in (False, True):
        if general:
            assert calls
            monkeypatch.setattr(_logit_sums._Task, "is_binary", lambda *its: False)
            calls.clear()
        z = logits.clone().requires_grad_()
        value = loss(z, target, mask)
        value.backward()
        found.append((value.detach(), z.grad))
    assert not calls
    return found


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", CASES, ids=str)
def test_value_and_gradient_are_those_of_the_general_way(monkeypatch, options, masked):
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 5, 6, dtype=torch.float64) * 4
    target = torch.rand_like(logits)  # of any sum: that of one is not taken for granted
    mask = torch.rand(3, 1, 5, 6) > 0.3 if masked else None
    monkeypatch.setattr(_logit_sums, "PIECE_CPU", 48)
    ours, general = both_ways(monkeypatch, CrossEntropyOverlapLoss(**options), logits, target, mask)
    torch.testing.assert_close(ours[0], general[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours[1], general[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sure_and_wrong_voxels_keep_their_digits(monkeypatch, dtype):
    """−log p is as exact as `log_softmax` for p near 1, and exact for p that single precision takes for 0."""
    sizes = torch.tensor([0, 1e-3, 1, 15, 40, 200, 3000.0])
    logits = torch.stack([torch.zeros(14), torch.cat([sizes, -sizes])])[None].to(dtype)
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat_interleave(7, 1)[None]
    ours, general = both_ways(monkeypatch, CrossEntropyOverlapLoss(), logits, target)
    torch.testing.assert_close(ours[0], general[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours[1], general[1], rtol=1e-5, atol=1e-7)
    for size, expected in ((15.0, 3.059e-7), (-200.0, 200.0)):
        surprise = torch.zeros(2)
        _two_classes.foreground(torch.tensor([[[0.0], [size]]]), torch.tensor([[[0.0], [1.0]]]), surprise)
        assert surprise.tolist() == pytest.approx([0, expected], rel=1e-7, abs=6e-8)
