"""Regions that may overlap: sigmoid, binary cross-entropy, a set per channel."""

import re

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch.nn.functional import binary_cross_entropy_with_logits

from nnunet_dml.losses import CrossEntropyOverlapLoss, _logit_sums, soft_cross_entropy

SHAPES = [(2, 3, 4, 5), (2, 2, 3, 2, 4)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])


@pytest.fixture(params=[1 << 19, 16], ids=["one piece", "many pieces"])
def _pieces(request, monkeypatch):
    monkeypatch.setattr(_logit_sums, "PIECE_CPU", request.param)


def nnunet(batch_dice, ignore):
    dice = {"batch_dice": batch_dice, "do_bg": True, "smooth": 1e-5, "ddp": False}
    return DC_and_BCE_loss({}, dice, use_ignore_label=ignore, dice_class=MemoryEfficientSoftDiceLoss)


def regions(batch_dice, **more):
    reduction = "batch" if batch_dice else "image"
    return CrossEntropyOverlapLoss(
        activation="sigmoid", weight_ce=1, weight_overlap=1, reduction=reduction, **more
    )


@every_shape
@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.usefixtures("_pieces")
def test_equal_to_nnunet_on_hard_regions(batch_dice, shape):
    target = (torch.rand(shape) > 0.5).float()
    a = torch.randn(shape, requires_grad=True)
    b = a.detach().clone().requires_grad_()
    expected, value = nnunet(batch_dice, False)(a, target), regions(batch_dice)(b, target)
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)
    expected.backward()
    value.backward()
    torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4)


@every_shape
def test_with_an_ignore_label_ours_is_the_mean_over_channels_and_nnunets_the_sum(shape):
    target, logits = (torch.rand(shape) > 0.5).float(), torch.randn(shape)
    mask = torch.rand(shape[0], 1, *shape[2:]) > 0.3
    theirs = nnunet(True, True)(logits, torch.cat((target, (~mask).float()), 1))
    entropy = binary_cross_entropy_with_logits(logits, target, reduction="none")
    entropy = entropy.masked_select(mask.expand_as(entropy)).mean()
    torch.testing.assert_close(soft_cross_entropy(logits, target, activation="sigmoid", mask=mask), entropy)
    value = regions(True)(logits, target, mask)
    torch.testing.assert_close(theirs - value, (shape[1] - 1) * entropy)


@pytest.mark.usefixtures("_pieces")
def test_class_weights_are_channel_weights():
    shape = SHAPES[0]
    target, logits = torch.rand(shape), torch.randn(shape)
    weights = torch.tensor([2.0, 0.0, 1.0])
    per_channel = binary_cross_entropy_with_logits(logits, target, reduction="none").mean((0, 2, 3))
    value = soft_cross_entropy(logits, target, activation="sigmoid", class_weights=weights)
    torch.testing.assert_close(value, (weights * per_channel).sum() / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("log", [False, True])
def test_half_precision(dtype, log):
    """A sigmoid in half precision would be 1 from about 8 on, an L1 sum over 64³ infinite."""
    logits = torch.randn(1, 2, 64, 64, 64).mul_(6).to(dtype)
    target = torch.rand(logits.shape).to(dtype)
    loss = regions(True, log=log)
    full, half = logits.float().requires_grad_(), logits.clone().requires_grad_()
    expected = loss(full, target.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(half.grad, full.grad.to(dtype))


@pytest.mark.parametrize("extreme", [1e4, -1e4, 0.0])
def test_extreme_logits(extreme):
    logits = torch.full((1, 2, 4), extreme, requires_grad=True)
    target = torch.tensor([[[0.0, 1.0, 0.5, 0.25]] * 2])
    value = regions(True)(logits, target)
    (gradient,) = torch.autograd.grad(value, logits)
    slowly = regions(True)(logits, target.requires_grad_())
    torch.testing.assert_close(slowly, value)
    torch.testing.assert_close(torch.autograd.grad(slowly, logits)[0], gradient)
    assert torch.isfinite(gradient).all()


def test_all_channels_take_part_and_one_is_enough():
    logits, target = torch.randn(1, 1, 6), torch.rand(1, 1, 6)
    expected = CrossEntropyOverlapLoss(activation="sigmoid", weight_ce=0)(logits, target)
    assert expected.item() > -1.5
    three = [torch.cat((t, t, t), 1) for t in (logits, target)]
    torch.testing.assert_close(CrossEntropyOverlapLoss(activation="sigmoid", weight_ce=0)(*three), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"activation": "sigmoid", "background": True}, "`background` belongs to activation='softmax'"),
        (
            {"activation": "relu"},
            "Expected argument `activation` to be one of ['softmax', 'sigmoid'], got 'relu'.",
        ),
        ({"overlap": "lovasz", "smooth": 1.0}, "got smooth=1.0 with overlap='lovasz'."),
        ({"overlap": "lovasz", "gather": True}, "got gather=True with overlap='lovasz'."),
        ({"norm": 2}, "`norm` belongs to overlap='sjl', got norm=2 with overlap='dml'."),
        ({"power": 2.0}, "`power` belongs to overlap='ctl'"),
        (
            {"class_weights": (1.0, 0.0)},
            "`class_weights` above 0 for a class of the overlap, got (1.0, 0.0).",
        ),
    ],
)
def test_wrong_combinations(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        CrossEntropyOverlapLoss(**options)
    with pytest.raises(ValueError, match=r"Expected argument `activation`"):
        soft_cross_entropy(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), activation="relu")
