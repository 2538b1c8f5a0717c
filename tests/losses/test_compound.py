import math
import re

import pytest
import torch
from monai.losses import DiceLoss
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch.nn.functional import cross_entropy

from nnunet_dml import losses
from nnunet_dml.losses import CrossEntropyOverlapLoss, _logit_sums, one_hot, soft_cross_entropy
from tests.reference import losses as reference

SHAPES = [(2, 3, 7), (2, 3, 4, 5), (2, 3, 3, 2, 4)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=["1d", "2d", "3d"])
OVERLAPS = {
    "dml": ({}, losses.dice_semimetric_loss, {}),
    "dml2": ({"overlap": "dml", "variant": 2}, losses.dice_semimetric_loss, {"variant": 2}),
    "jml": ({}, losses.jaccard_metric_loss, {}),
    "jml2": ({"overlap": "jml", "variant": 2}, losses.jaccard_metric_loss, {"variant": 2}),
    "ctl": ({"alpha": 0.3, "beta": 0.8, "gamma": 1.5}, losses.compatible_tversky_loss, None),
    "sdl": ({}, losses.soft_dice_loss, {}),
    "sjl": ({}, losses.soft_jaccard_loss, {}),
}
every_overlap = pytest.mark.parametrize("name", OVERLAPS)


def build(name, **more):
    return CrossEntropyOverlapLoss(**({"overlap": name} | OVERLAPS[name][0] | more))


def case(shape, dtype=torch.float64):
    """Logits, a soft target and a mask."""
    target = (2 * torch.randn(shape, dtype=dtype)).softmax(1)
    return torch.randn(shape, dtype=dtype), target, torch.rand(shape[0], 1, *shape[2:]) > 0.3


@pytest.fixture(params=[1 << 19, 48], ids=["one piece", "several pieces"])
def _pieces(request, monkeypatch):
    monkeypatch.setattr(_logit_sums, "PIECE_CPU", request.param)


def test_one_hot():
    labels = torch.tensor([[[0, 2], [255, 1]]]).view(1, 1, 2, 2)
    expected = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]).T.reshape(1, 3, 2, 2).float()
    assert torch.equal(one_hot(labels, 3, ignore_label=255), expected)
    assert torch.equal(one_hot(labels.float(), 3, ignore_label=255), expected)
    assert one_hot(labels, 3).dtype == torch.float32
    # an ignore label among the classes is ignored all the same
    assert one_hot(labels, 3, ignore_label=2)[0, :, 0, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("labels", "classes", "error", "words"),
    [
        (torch.zeros(2, 4, 4), 3, ValueError, "Expected `labels` of shape (B, 1, *spatial), got (2, 4, 4)."),
        (torch.zeros(2, 1), 3, ValueError, "Expected `labels` of shape (B, 1, *spatial), got (2, 1)."),
        (torch.zeros(2, 1, 4), 0, ValueError, "`num_classes` to be at least 1, got 0"),
        (torch.zeros(2, 1, 4).bool(), 2, TypeError, "Expected `labels` of an integer dtype, got torch.bool."),
    ],
)
def test_one_hot_refuses(labels, classes, error, words):
    with pytest.raises(error, match=re.escape(words)):
        one_hot(labels, classes)


@every_shape
@pytest.mark.usefixtures("_pieces")
def test_cross_entropy(shape):
    logits, target, mask = case(shape)
    ours = soft_cross_entropy(logits, target)
    assert ours.item() == pytest.approx(reference.cross_entropy(logits.numpy(), target.numpy()))
    torch.testing.assert_close(ours, cross_entropy(logits, target))
    keep = mask[:, 0]
    picked = [t.movedim(1, -1)[keep] for t in (logits, target)]
    torch.testing.assert_close(soft_cross_entropy(logits, target, mask=mask), cross_entropy(*picked))


def test_cross_entropy_of_targets_that_do_not_sum_to_one():
    """Background-only by hand: −0.5·log(1/2) per voxel, and its gradient (0.25, 0.25) − (0.5, 0)."""
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    loss = soft_cross_entropy(logits, torch.tensor([0.5, 0.0]).view(1, 2, 1).expand(1, 2, 3))
    assert loss.item() == pytest.approx(0.5 * math.log(2))
    loss.backward()
    assert logits.grad is not None
    assert (3 * logits.grad)[0, :, 0].tolist() == pytest.approx([-0.25, 0.25])


@every_overlap
@every_shape
@pytest.mark.parametrize("reduction", ["batch", "image"])
@pytest.mark.usefixtures("_pieces")
def test_value_is_the_sum_of_its_parts(name, shape, reduction):
    logits, target, mask = case(shape)
    options, function, same = OVERLAPS[name]
    same = options if same is None else same
    for background in (False, True):
        first = 0 if background else 1
        for m in (None, mask):
            delta = function(
                logits.softmax(1)[:, first:],
                target[:, first:],
                reduction=reduction,
                smooth=0.1,
                mask=m,
                **same,
            )
            entropy = soft_cross_entropy(logits, target, mask=m)
            for ce, overlap in ((0.5, 1.5), (1, 0), (0, 1)):
                loss = build(
                    name,
                    weight_ce=ce,
                    weight_overlap=overlap,
                    background=background,
                    reduction=reduction,
                    smooth=0.1,
                )
                torch.testing.assert_close(loss(logits, target, m), ce * entropy + overlap * (delta - 1))


@every_overlap
@every_shape
@pytest.mark.usefixtures("_pieces")
def test_gradient(name, shape):
    logits, target, mask = case(shape)
    logits.requires_grad_()
    for weights in ({}, {"weight_ce": 0.0}, {"weight_overlap": 0.0}):
        for reduction, background, m in (("batch", False, None), ("image", True, mask)):
            loss = build(name, reduction=reduction, background=background, **weights)
            assert torch.autograd.gradcheck(lambda z, loss=loss, m=m: loss(z, target, m), (logits,))


@every_overlap
@pytest.mark.usefixtures("_pieces")
def test_target_that_wants_a_gradient(name):
    logits, target, mask = case(SHAPES[1])
    wanted = target.clone().requires_grad_()
    for loss in (build(name), build(name, weight_ce=0), build(name, weight_overlap=0)):
        for m in (None, mask):
            torch.testing.assert_close(loss(logits, wanted, m), loss(logits, target, m))
            values = [logits.clone().requires_grad_() for _ in range(2)]
            loss(values[0], wanted, m).backward()
            loss(values[1], target, m).backward()
            torch.testing.assert_close(values[0].grad, values[1].grad)
    assert wanted.grad is not None
    assert torch.autograd.gradcheck(lambda t: build(name)(logits, t, mask), (wanted,))


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("ignore", [None, 3])
@every_shape
def test_equal_to_nnunet_on_hard_labels(batch_dice, ignore, shape):
    """Value and gradient, with its own ignore label."""
    labels = torch.randint(0, 3 if ignore is None else 4, (shape[0], 1, *shape[2:])).float()
    dice = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    theirs = DC_and_CE_loss(dice, {}, ignore_label=ignore, dice_class=MemoryEfficientSoftDiceLoss)
    ours = CrossEntropyOverlapLoss(
        weight_ce=1, weight_overlap=1, reduction="batch" if batch_dice else "image"
    )
    a, b = (torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    expected = theirs(a, labels)
    value = ours(b, one_hot(labels, 3, ignore_label=ignore), None if ignore is None else labels != ignore)
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)
    expected.backward()
    value.backward()
    torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4)


def test_equal_to_nnunet_where_everything_is_ignored():
    labels, logits = torch.full((2, 1, 6), 3.0), torch.randn(2, 3, 6)
    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    theirs = DC_and_CE_loss(dice, {}, ignore_label=3, dice_class=MemoryEfficientSoftDiceLoss)(logits, labels)
    logits.requires_grad_()
    ours = CrossEntropyOverlapLoss(weight_ce=1, weight_overlap=1)
    value = ours(logits, one_hot(labels, 3, ignore_label=3), labels != 3)
    assert value.item() == pytest.approx(theirs.item())
    assert value.item() == pytest.approx(-1)
    value.backward()
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@every_shape
def test_equal_to_monai(shape):
    logits, target, _ = case(shape)
    theirs = DiceLoss(include_background=False, softmax=True, soft_label=True, batch=True)(logits, target)
    ours = CrossEntropyOverlapLoss(weight_ce=1, weight_overlap=1)(logits, target)
    torch.testing.assert_close(ours, theirs + cross_entropy(logits, target) - 1)


@every_overlap
@pytest.mark.usefixtures("_pieces")
def test_ignored_voxels_have_no_effect(name):
    """Neither on the value nor on the gradient, whatever the target holds there."""
    logits, target, _ = case((2, 3, 10))
    mask = (torch.arange(10) < 6).expand(2, 1, 10)
    whole, part = logits.clone().requires_grad_(), logits[..., :6].clone().requires_grad_()
    expected = build(name)(part, target[..., :6].clone())
    target[..., 6:] = math.nan
    value = build(name)(whole, target, mask.float())
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    assert whole.grad is not None
    torch.testing.assert_close(whole.grad[..., :6], part.grad)
    assert (whole.grad[..., 6:] == 0).all()


@pytest.mark.parametrize("name", ["dml", "dml2", "jml", "jml2", "ctl"])
def test_least_where_the_softmax_is_the_target(name):
    """No direction leads down from there; for SDL one does."""
    target = torch.tensor([0.6, 0.4]).double().view(1, 2, 1).expand(1, 2, 8)
    logits = target.log()
    for direction in (torch.tensor([-1.0, 1.0]), torch.tensor([1.0, -1.0]), torch.randn(2)):
        moved = logits + 0.01 * direction.view(1, 2, 1)
        assert build(name)(moved, target) > build(name)(logits, target)
    up = logits + 0.01 * torch.tensor([-1.0, 1.0]).view(1, 2, 1)
    assert build("sdl", weight_ce=0)(up, target) < build("sdl", weight_ce=0)(logits, target)


@pytest.mark.parametrize(("name", "size"), [("dml", 128), *((name, 16) for name in OVERLAPS)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name, size, dtype):
    """128³ voxels: an L1 sum in half precision would be infinite."""
    logits, target, mask = case((1, 2, size, size, size), torch.float32)
    logits, target = logits.to(dtype), target.to(dtype)
    full, half = logits.float().requires_grad_(), logits.clone().requires_grad_()
    expected = build(name)(full, target.float(), mask)
    expected.backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = build(name)(half, target, mask)
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    assert half.grad is not None
    assert half.grad.dtype == dtype
    torch.testing.assert_close(half.grad, full.grad.to(dtype))


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_extreme_logits(extreme):
    logits = torch.zeros(1, 2, 4)
    logits[:, 1] = extreme
    logits.requires_grad_()
    value = CrossEntropyOverlapLoss()(logits, torch.full((1, 2, 4), 0.5))
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@every_overlap
def test_permutations(name):
    logits, target, mask = case((3, 4, 9))
    batch, classes = torch.tensor([2, 0, 1]), torch.tensor([0, 3, 1, 2])  # the background stays first
    shuffled = build(name)(logits[batch][:, classes], target[batch][:, classes], mask[batch])
    torch.testing.assert_close(shuffled, build(name)(logits, target, mask))


def test_layouts_and_arguments():
    """Channels-last and sliced tensors give the same; nothing is changed in place."""
    logits, target, mask = case((2, 3, 4, 6))
    expected = CrossEntropyOverlapLoss()(logits, target, mask)
    before = [t.clone() for t in (logits, target, mask)]
    last = logits.to(memory_format=torch.channels_last).requires_grad_()
    value = CrossEntropyOverlapLoss()(last, target, mask)
    value.backward()
    torch.testing.assert_close(value, expected)
    wide = torch.cat((logits, logits), 3)[..., :6]
    torch.testing.assert_close(CrossEntropyOverlapLoss()(wide, target, mask), expected)
    assert all(torch.equal(a, b) for a, b in zip(before, (logits, target, mask), strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"overlap": "dice"},
            "Expected argument `overlap` to be one of ['dml', 'jml', 'ctl', 'sdl', 'sjl', 'lovasz'], got 'dice'.",
        ),
        ({"weight_ce": -1}, "Expected argument `weight_ce` in [0.0, inf), got -1."),
        ({"weight_overlap": math.nan}, "Expected argument `weight_overlap`"),
        ({"weight_ce": 0, "weight_overlap": 0}, "nothing would be learnt"),
        ({"variant": 3}, "Expected argument `variant` to be one of [1, 2], got 3."),
        (
            {"overlap": "sdl", "variant": 2},
            "`variant` belongs to overlap='dml' or 'jml', got variant=2 with overlap='sdl'.",
        ),
        ({"alpha": 0.3}, "`alpha` belongs to overlap='ctl', got alpha=0.3 with overlap='dml'."),
        ({"overlap": "ctl", "gamma": 0.5}, "Expected argument `gamma` in [1.0, inf), got 0.5."),
        (
            {"reduction": "sum"},
            "Expected argument `reduction` to be one of ['batch', 'image', 'class'], got 'sum'.",
        ),
        ({"smooth": -1}, "Expected argument `smooth` in [0.0, inf), got -1."),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        CrossEntropyOverlapLoss(**options)


def test_wrong_tensors():
    logits, target, mask = case((2, 3, 4, 4))
    loss = CrossEntropyOverlapLoss()
    words = "Expected `target` of shape (2, 3, 4, 4) to match `logits`, got (2, 1, 4, 4). For hard"
    for call in (loss, soft_cross_entropy):
        with pytest.raises(ValueError, match=re.escape(words)):
            call(logits, target[:, :1])
        with pytest.raises(TypeError, match=r"Expected `target` of a floating dtype, got torch.int64."):
            call(logits, target.long())
        with pytest.raises(ValueError, match=r"Expected `mask` of shape \(2, 1, 4, 4\)"):
            call(logits, target, mask=mask[:, 0])
    with pytest.raises(ValueError, match="with a class beside the background, got 1 channel"):
        loss(logits[:, :1], target[:, :1])
    CrossEntropyOverlapLoss(background=True)(logits[:, :1], target[:, :1])
