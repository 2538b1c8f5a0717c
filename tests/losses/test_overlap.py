import math
import re

import pytest
import torch
from monai.losses import DiceLoss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from nnunet_dml import losses
from nnunet_dml.losses import one_hot
from tests.reference import losses as reference

LOSSES = {
    "dml": (losses.dice_semimetric_loss, losses.DiceSemimetricLoss, {}, reference.dml),
    "dml2": (
        losses.dice_semimetric_loss,
        losses.DiceSemimetricLoss,
        {"variant": 2},
        lambda x, y: reference.dml(x, y, 2),
    ),
    "jml": (losses.jaccard_metric_loss, losses.JaccardMetricLoss, {}, reference.jml),
    "jml2": (
        losses.jaccard_metric_loss,
        losses.JaccardMetricLoss,
        {"variant": 2},
        lambda x, y: reference.jml(x, y, 2),
    ),
    "ctl": (
        losses.compatible_tversky_loss,
        losses.CompatibleTverskyLoss,
        {"alpha": 0.3, "beta": 0.8, "gamma": 1.5},
        lambda x, y: reference.ctl(x, y, 0.3, 0.8, 1.5),
    ),
    "sdl": (losses.soft_dice_loss, losses.SoftDiceLoss, {}, reference.sdl),
    "sjl": (losses.soft_jaccard_loss, losses.SoftJaccardLoss, {}, reference.sjl),
    "sjl2": (
        losses.soft_jaccard_loss,
        losses.SoftJaccardLoss,
        {"norm": 2},
        lambda x, y: reference.sjl(x, y, 2),
    ),
}
REFLEXIVE = ["dml", "dml2", "jml", "jml2", "ctl", "sjl2"]
SHAPES = [(2, 3, 7), (2, 3, 4, 5), (2, 3, 3, 2, 4)]
every_loss = pytest.mark.parametrize("name", LOSSES)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=["1d", "2d", "3d"])
reductions = pytest.mark.parametrize("reduction", ["batch", "image"])


def soft(shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype).softmax(1)


def hard(shape):
    return one_hot(torch.randint(0, shape[1], (shape[0], 1, *shape[2:])), shape[1]).double()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # x = (.5, 1, 0), y = (1, .5, .5): |x| = 1.5, |y| = 2, |x−y| = 1.5, <x,y> = 1
        ("dml", 1 - 2 / 3.5),
        ("dml2", 1 - 2 / 3.5),
        ("jml", 1 - 2 / 5),
        ("jml2", 1 - 1 / 2.5),
        ("ctl", (1 - 2 / (0.6 * 1.5 + 1.6 * 2 - 0.1 * 2)) ** (1 / 1.5)),
        ("sdl", 1 - 2 / 3.5),
        ("sjl", 1 - 1 / 2.5),
        ("sjl2", 1 - 1 / (1.25 + 1.5 - 1)),
    ],
)
def test_by_hand(name, expected):
    function, _, options, _ = LOSSES[name]
    x, y = torch.tensor([[[0.5, 1.0, 0.0]]]), torch.tensor([[[1.0, 0.5, 0.5]]])
    assert function(x, y, smooth=0.0, **options).item() == pytest.approx(expected)


@every_loss
@every_shape
@reductions
def test_equal_to_the_slow_version(name, shape, reduction):
    function, _, options, slow = LOSSES[name]
    x, y = soft(shape), soft(shape)
    expected = reference.over_sets(slow, x.numpy(), y.numpy(), reduction=reduction)
    assert function(x, y, smooth=0.0, reduction=reduction, **options).item() == pytest.approx(expected)


@every_loss
@reductions
def test_module_equals_function(name, reduction):
    function, module, options, _ = LOSSES[name]
    x, y, mask = soft(SHAPES[1]), soft(SHAPES[1]), torch.rand(2, 1, 4, 5) > 0.3
    built = module(reduction=reduction, smooth=0.1, **options)
    expected = function(x, y, reduction=reduction, smooth=0.1, mask=mask, **options)
    assert torch.equal(built(x, y, mask), expected)
    assert f"reduction='{reduction}'" in repr(built)


@every_loss
@every_shape
@reductions
def test_gradient(name, shape, reduction):
    function, _, options, _ = LOSSES[name]
    y = soft(shape)
    x = (y + 0.1 * torch.randn(shape).double().sign()).requires_grad_()  # away from the kink at x = y
    mask = torch.rand(shape[0], 1, *shape[2:]) > 0.3
    for m in (None, mask):
        assert torch.autograd.gradcheck(
            lambda p, m=m: function(p, y, reduction=reduction, mask=m, **options), (x,)
        )


@every_loss
@pytest.mark.parametrize("fill", [0.0, 0.5], ids=["empty", "half"])
def test_gradient_is_finite_at_the_target(name, fill):
    function, _, options, _ = LOSSES[name]
    x = torch.full((1, 2, 4), fill, requires_grad=True)
    function(x, x.detach().clone(), **options).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@every_loss
@pytest.mark.parametrize("smooth", [0.0, 1e-5])
def test_empty_class(name, smooth):
    """Empty on both sides is no loss, empty on one side is the whole."""
    function, _, options, _ = LOSSES[name]
    empty, full = torch.zeros(2, 1, 6), torch.ones(2, 1, 6)
    assert function(empty, empty, smooth=smooth, **options).item() == 0
    both = torch.cat((empty, full), 1)
    assert function(both, torch.cat((full, full), 1), smooth=smooth, **options).item() == pytest.approx(
        0.5, abs=1e-4
    )
    assert function(both, torch.cat((empty, empty), 1), smooth=smooth, **options).item() == pytest.approx(
        0.5, abs=1e-4
    )


@every_loss
@reductions
def test_permutations(name, reduction):
    function, _, options, _ = LOSSES[name]
    x, y = soft((3, 4, 9)), soft((3, 4, 9))
    expected = function(x, y, reduction=reduction, **options)
    batch, classes, voxels = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2]), torch.randperm(9)
    shuffled = [t[batch][:, classes][..., voxels] for t in (x, y)]
    torch.testing.assert_close(function(*shuffled, reduction=reduction, **options), expected)


@every_loss
@reductions
def test_ignored_voxels_have_no_effect(name, reduction):
    function, _, options, _ = LOSSES[name]
    x, y = soft((2, 3, 10)), soft((2, 3, 10))
    expected = function(x[..., :6], y[..., :6], reduction=reduction, **options)
    x[..., 6:], y[..., 6:] = math.nan, math.nan
    mask = (torch.arange(10) < 6).expand(2, 1, 10)
    for kind in (mask, mask.float()):
        torch.testing.assert_close(function(x, y, mask=kind, reduction=reduction, **options), expected)
    assert function(x, y, mask=torch.zeros(2, 1, 10), reduction=reduction, **options).item() == 0


def test_batch_and_image_reduction_differ():
    """One image right, one wrong, of different size: (1/2) of the images, but 2/8 of the voxels."""
    x = torch.tensor([[[1.0, 1.0, 1.0]], [[1.0, 0.0, 0.0]]])
    y = torch.tensor([[[1.0, 1.0, 1.0]], [[0.0, 1.0, 0.0]]])
    assert losses.dice_semimetric_loss(x, y).item() == pytest.approx(0.25, abs=1e-4)
    assert losses.dice_semimetric_loss(x, y, reduction="image").item() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("name", ["dml", "dml2", "jml", "ctl"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_on_a_large_volume(name, dtype):
    """128³ voxels: an L1 sum in half precision would be infinite."""
    function, _, options, _ = LOSSES[name]
    x, y = torch.rand(1, 1, 128, 128, 128).to(dtype), torch.rand(1, 1, 128, 128, 128).to(dtype)
    expected = function(x.float(), y.float(), **options)
    result = function(x, y, **options)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(function(x, y, **options), expected)
        torch.testing.assert_close(function(x.float(), y.float(), **options), expected)


@reductions
@pytest.mark.parametrize("jaccard", [False, True])
@every_shape
def test_equal_to_monai(reduction, jaccard, shape):
    x, y = soft(shape), soft(shape)
    theirs = DiceLoss(jaccard=jaccard, soft_label=True, batch=reduction == "batch")(x, y)
    ours = losses.jaccard_metric_loss if jaccard else losses.dice_semimetric_loss
    torch.testing.assert_close(ours(x, y, reduction=reduction), theirs)


@reductions
@pytest.mark.parametrize("variant", [1, 2])
@pytest.mark.parametrize("smooth", [1e-5, 1.0])
@every_shape
def test_equal_to_nnunet_on_hard_labels(reduction, variant, smooth, shape):
    x, y = soft(shape).float(), hard(shape).float()
    mask = torch.rand(shape[0], 1, *shape[2:]) > 0.3
    theirs = MemoryEfficientSoftDiceLoss(batch_dice=reduction == "batch", smooth=smooth, ddp=False)
    for m in (None, mask):
        ours = losses.dice_semimetric_loss(x, y, variant=variant, reduction=reduction, smooth=smooth, mask=m)
        torch.testing.assert_close(ours, 1 + theirs(x, y, m), atol=1e-6, rtol=0)


@every_loss
def test_arguments_are_not_changed(name):
    function, _, options, _ = LOSSES[name]
    x, y, mask = soft((2, 2, 5)), soft((2, 2, 5)), (torch.rand(2, 1, 5) > 0.5).float()
    before = [t.clone() for t in (x, y, mask)]
    function(x, y, mask=mask, **options)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, y, mask), strict=True))


X = torch.rand(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("x", "y", "mask", "error", "words"),
    [
        (
            X,
            X[:, 0],
            None,
            ValueError,
            "Expected `target` of shape (2, 3, 4, 4) to match `probs`, got (2, 4, 4)",
        ),
        (X, X[:, :1].long(), None, ValueError, "For hard labels call `one_hot` first."),
        (X, X[:1], None, ValueError, "Expected `target` of shape (2, 3, 4, 4)"),
        (X, X.long(), None, TypeError, "Expected `target` of a floating dtype, got torch.int64."),
        (X.long(), X, None, TypeError, "Expected `probs` of a floating dtype, got torch.int64."),
        (X[:, :, 0, 0], X[:, :, 0, 0], None, ValueError, "of shape (B, C, *spatial), got (2, 3)"),
        (X, X, X[:, 0], ValueError, "Expected `mask` of shape (2, 1, 4, 4)"),
        (X, X, X, ValueError, "Expected `mask` of shape (2, 1, 4, 4)"),
        (X, X, X[:, :1].cfloat(), TypeError, "got torch.complex64"),
        (X, X.to("meta"), None, ValueError, "Expected `target` on cpu as `probs`, got meta."),
        (X, X, X[:, :1].to("meta"), ValueError, "Expected `mask` on cpu as `probs`, got meta."),
    ],
)
@every_loss
def test_wrong_tensors(name, x, y, mask, error, words):
    function, _, options, _ = LOSSES[name]
    with pytest.raises(error, match=re.escape(words)):
        function(x, y, mask=mask, **options)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dml", {"variant": 3}, "Expected argument `variant` to be one of [1, 2], got 3."),
        ("jml", {"variant": 0}, "Expected argument `variant` to be one of [1, 2], got 0."),
        ("sjl", {"norm": 3}, "Expected argument `norm` to be one of [1, 2], got 3."),
        (
            "dml",
            {"reduction": "mean"},
            "Expected argument `reduction` to be one of ['batch', 'image', 'class'], got 'mean'.",
        ),
        ("sdl", {"smooth": -1.0}, "Expected argument `smooth` in [0.0, inf), got -1.0."),
        ("dml", {"smooth": math.nan}, "Expected argument `smooth`"),
        ("ctl", {"alpha": -0.1}, "Expected argument `alpha` in [0.0, inf), got -0.1."),
        ("ctl", {"beta": math.inf}, "Expected argument `beta` in [0.0, inf), got inf."),
        ("ctl", {"gamma": 0.75}, "Expected argument `gamma` in [1.0, inf), got 0.75."),
    ],
)
def test_wrong_options(name, options, words):
    function, module, _, _ = LOSSES[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        function(X, X, **options)
    with pytest.raises(ValueError, match=re.escape(words)):
        module(**options)
