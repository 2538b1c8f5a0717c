import math
import re

import pytest
import torch
from torch import nn

from nnunet_dml import losses
from nnunet_dml.losses import (
    CompatibleTverskyLoss,
    CrossEntropyOverlapLoss,
    DiceSemimetricLoss,
    compatible_tversky_loss,
    dice_semimetric_loss,
    soft_cross_entropy,
)

# Two images of four voxels, three classes, hard predictions; Dice losses per image and class:
#   image 0: class 0  1 − 2·1/(2+1) = 1/3, class 1  1 − 2·2/(2+3) = 1/5, class 2 absent on both sides
#   image 1: class 0  0 (2 of 2),          class 1 absent on both sides, class 2 0 (2 of 2)
HARD = torch.nn.functional.one_hot
X = torch.stack((HARD(torch.tensor([0, 0, 1, 1]), 3), HARD(torch.tensor([0, 0, 2, 2]), 3))).mT.double()
Y = torch.stack((HARD(torch.tensor([0, 1, 1, 1]), 3), HARD(torch.tensor([0, 0, 2, 2]), 3))).mT.double()


def dml(x=X, y=Y, **options):
    return dice_semimetric_loss(x, y, smooth=0.0, **options).item()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # batch: class 0 1 − 2·3/(4+3) = 1/7, class 1 1 − 2·2/(2+3) = 1/5, class 2 0
        ({}, (1 / 7 + 1 / 5) / 3),
        ({"reduction": "image"}, (1 / 3 + 1 / 5) / 6),
        ({"reduction": "class"}, (1 / 3 + 1 / 5) / 6),
        ({"reduction": "image", "active": "label"}, ((1 / 3 + 1 / 5) / 2 + 0) / 2),
        ({"reduction": "class", "active": "label"}, (1 / 6 + 1 / 5 + 0) / 3),
        ({"reduction": {"batch": 1, "class": 3}, "active": "label"}, (12 / 35 / 3 + 3 * 11 / 30 / 3) / 4),
        ({"reduction": {"image": 2, "class": 0}}, (1 / 3 + 1 / 5) / 6),
        ({"class_weights": (1, 2, 1)}, (1 / 7 + 2 / 5) / 4),
        ({"class_weights": (0, 5, 0)}, 1 / 5),
        (
            {"class_weights": (1, 3, 0), "reduction": "image", "active": "present"},
            ((1 / 3 + 3 / 5) / 4 + 0) / 2,
        ),
        # image 1 has nothing of class 1: it is left out
        ({"class_weights": (0, 1, 0), "reduction": "image", "active": "label"}, 1 / 5),
        ({"class_weights": (1, 3, 0), "reduction": "class", "active": "label"}, (1 / 6 + 3 / 5) / 4),
        ({"log": True}, (math.log(7 / 6) + math.log(5 / 4)) / 3),
        ({"log": True, "reduction": "image"}, (math.log(3 / 2) + math.log(5 / 4)) / 6),
    ],
)
def test_means_by_hand(options, expected):
    assert dml(**options) == pytest.approx(expected, rel=1e-6)


# a column per voxel
SOFT = torch.tensor([[[0.9, 0.6, 0.5], [0.06, 0.2, 0.5], [0.04, 0.2, 0.0]]], dtype=torch.float64)
PRED = torch.tensor([[[0.3, 0.9, 0.9], [0.7, 0.02, 0.1], [0.0, 0.08, 0.0]]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("mode", "threshold", "classes"),
    [
        ("all", 0.01, [0, 1, 2]),
        ("present", 0.01, [0]),  # class 1 ties with class 0, which is first
        ("label", 0.01, [0, 1, 2]),
        ("label", 0.2, [0, 1]),  # not above
        ("label", 0.55, [0]),
        ("prob", 0.1, [0, 1]),
        ("prob", 0.75, [0]),
        ("both", 0.3, [0, 1]),
        ("both", 0.6, [0]),
        ("both", 0.075, [0, 1, 2]),
        ("both", 0.95, []),
    ],
)
def test_active_classes_by_hand(mode, threshold, classes):
    per_class = [dml(PRED[:, c : c + 1], SOFT[:, c : c + 1]) for c in range(3)]
    expected = sum(per_class[c] for c in classes) / max(1, len(classes))
    assert dml(PRED, SOFT, active=mode, threshold=threshold) == pytest.approx(expected)


def test_present_without_the_background_and_of_regions():
    """The rest competes: left out, the background still wins its voxels. Of regions each may be present."""
    foreground = dml(PRED[:, 1:], SOFT[:, 1:], active="present")
    assert foreground == 0
    nested = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 0.6, 0.0], [0.0, 0.4, 0.0]]])
    x = torch.full_like(nested, 0.2)
    expected = [dml(x[:, c : c + 1], nested[:, c : c + 1]) for c in (0, 1)]
    assert dml(x, nested, active="present") == pytest.approx(sum(expected) / 2)


def test_ignored_voxels_make_no_class_active():
    y = SOFT.clone()
    y[..., 2] = torch.nan
    mask = torch.tensor([[[1, 1, 0]]])
    x = PRED.clone()
    x[0, 2, 2] = 1.0
    for mode in ("present", "label", "prob", "both"):
        options = {"active": mode, "threshold": 0.1}
        assert dml(x, y, mask=mask, **options) == pytest.approx(dml(x[..., :2], y[..., :2], **options))


@pytest.mark.parametrize("reduction", ["batch", "image", "class", {"batch": 1, "image": 1, "class": 1}])
@pytest.mark.parametrize("log", [False, True])
def test_no_active_class(reduction, log):
    x = PRED.clone().requires_grad_()
    value = dice_semimetric_loss(x, SOFT, active="label", threshold=0.95, reduction=reduction, log=log)
    value.backward()
    assert value.item() == 0
    assert x.grad is not None
    assert (x.grad == 0).all()
    logits = torch.randn(1, 3, 3, requires_grad=True)
    options = {"weight_ce": 0.0, "active": "label", "threshold": 0.95, "reduction": reduction, "log": log}
    value = CrossEntropyOverlapLoss(**options)(logits, SOFT.float())
    value.backward()
    assert value.item() == (0 if log else -1.5)
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_activity_has_no_gradient():
    """The gradient is that of the class alone."""
    one, all_three = (PRED[:, :1].clone().requires_grad_(), PRED.clone().requires_grad_())
    dice_semimetric_loss(one, SOFT[:, :1]).backward()
    dice_semimetric_loss(all_three, SOFT, active="both", threshold=0.75).backward()
    assert one.grad is not None
    assert all_three.grad is not None
    torch.testing.assert_close(all_three.grad[:, :1], one.grad)
    assert (all_three.grad[:, 1:] == 0).all()


@pytest.mark.parametrize("own", [{}, {"gamma": 1.5}, {"power": 2.0}])
@pytest.mark.parametrize("smooth", [0.0, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_form_is_finite_where_nothing_is_right(own, smooth, dtype):
    x, y = torch.zeros(1, 1, 4000, dtype=dtype), torch.ones(1, 1, 4000, dtype=dtype)
    for a, b in ((x, y), (y, x), (x, x), (y, y)):
        p = a.clone().requires_grad_()
        value = compatible_tversky_loss(p, b, smooth=smooth, log=True, **own)
        value.backward()
        assert p.grad is not None
        assert torch.isfinite(p.grad).all()
        if torch.equal(a, b):
            assert value.item() == 0
        elif not own:  # 1 − Δ = s / (4000 + s), which float32 cannot tell from 0
            assert value.item() == pytest.approx(math.log(4000 / (smooth or 1e-8)), rel=1e-6)
            if b.sum() == 0:  # false positives alone: log(|x|) falls with each of them
                torch.testing.assert_close(p.grad, torch.full_like(p, 1 / 4000))
        else:
            assert 15 < value.item() < 30


def test_log_form_pulls_down_a_class_that_is_not_there():
    """In float32, through the fused loss, too: the gradient by p is 1/|x|."""
    logits = torch.randn(1, 2, 500, requires_grad=True)
    target = torch.zeros(1, 2, 500)
    target[:, 0] = 1
    CrossEntropyOverlapLoss(weight_ce=0, weight_overlap=1, log=True)(logits, target).backward()
    p = logits.detach().softmax(1)[:, 1]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[:, 1], p * (1 - p) / p.sum())


def test_log_and_focal_by_hand():
    x, y = torch.tensor([[[1.0, 1.0, 1.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]])  # Dice loss 1/2
    for own, delta in (({}, 0.5), ({"gamma": 2.0}, 0.5**0.5), ({"power": 3.0}, 0.125)):
        assert compatible_tversky_loss(x, y, **own).item() == pytest.approx(delta, abs=1e-5)
        value = compatible_tversky_loss(x, y, log=True, **own).item()
        assert value == pytest.approx(-math.log(1 - delta), abs=1e-4)


def test_weighted_cross_entropy_is_torchs_on_hard_labels():
    logits, labels = torch.randn(2, 3, 5), torch.randint(0, 3, (2, 5))
    weights = (0.5, 2.0, 1.0)
    theirs = nn.CrossEntropyLoss(weight=torch.tensor(weights))(logits, labels)
    target = HARD(labels, 3).mT.float()
    torch.testing.assert_close(soft_cross_entropy(logits, target, class_weights=weights), theirs)
    ignored = nn.CrossEntropyLoss(weight=torch.tensor(weights), ignore_index=1)(logits, labels)
    value = soft_cross_entropy(logits, target, class_weights=weights, mask=(labels != 1)[:, None])
    torch.testing.assert_close(value, ignored)
    nothing = soft_cross_entropy(logits, target, class_weights=weights, mask=torch.zeros(2, 1, 5))
    assert nothing.item() == 0


def test_class_weights_are_a_buffer_that_is_not_saved():
    for loss in (DiceSemimetricLoss(class_weights=(1, 2)), CrossEntropyOverlapLoss(class_weights=(1, 2))):
        assert loss.state_dict() == {}
        assert loss.to("meta").class_weights.device.type == "meta"
        assert "class_weights=[1.0, 2.0]" in repr(DiceSemimetricLoss(class_weights=(1, 2)))
    both = torch.rand(1, 2, 4), torch.rand(1, 2, 4)
    weights = torch.tensor([1.0, 2.0])
    assert torch.equal(
        dice_semimetric_loss(*both, class_weights=weights), DiceSemimetricLoss(class_weights=(1, 2))(*both)
    )


def test_wrong_number_of_class_weights():
    x = torch.rand(1, 3, 4)
    words = "`class_weights` to have 3 entries, one per channel of `{}`, got 2."
    calls = (
        ("target", lambda: dice_semimetric_loss(x, x, class_weights=(1, 2))),
        ("target", lambda: DiceSemimetricLoss(class_weights=(1, 2))(x, x)),
        ("target", lambda: losses.lovasz_softmax_loss(x, x, class_weights=(1, 2))),
        ("logits", lambda: CrossEntropyOverlapLoss(class_weights=(1, 2))(x, x)),
        ("logits", lambda: soft_cross_entropy(x, x, class_weights=(1, 2))),
    )
    for name, call in calls:
        with pytest.raises(ValueError, match=re.escape(words.format(name))):
            call()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"active": "some"},
            "`active` to be one of ['all', 'present', 'prob', 'label', 'both'], got 'some'.",
        ),
        ({"threshold": 1.0}, "Expected argument `threshold` in [0.0, 1.0), got 1.0."),
        ({"threshold": -0.1}, "Expected argument `threshold`"),
        ({"reduction": {"batch": 0.0}}, "`reduction` to have a weight above 0, got {'batch': 0.0}."),
        ({"reduction": {}}, "`reduction` to have a weight above 0, got {}."),
        ({"reduction": {"dataset": 1.0}}, "got 'dataset': 1.0."),
        ({"reduction": {"batch": -1.0, "image": 2}}, "got 'batch': -1.0."),
        (
            {"class_weights": (0.0, 0.0)},
            "`class_weights` to be at least 0 and one of them above 0, got (0.0, 0.0)",
        ),
        ({"class_weights": (1.0, math.nan)}, "`class_weights` to be at least 0"),
        ({"class_weights": (1.0, -1.0)}, "`class_weights` to be at least 0"),
    ],
)
def test_wrong_averaging(options, words):
    for build in (DiceSemimetricLoss, CrossEntropyOverlapLoss, losses.LovaszSoftmaxLoss):
        with pytest.raises(ValueError, match=re.escape(words)):
            build(**options)
    for function in (dice_semimetric_loss, losses.lovasz_softmax_loss):
        with pytest.raises(ValueError, match=re.escape(words)):
            function(X[:, :2], Y[:, :2], **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": 0.0, "beta": 0.0}, "Expected `alpha` or `beta` above 0, got 0 for both"),
        ({"gamma": 2.0, "power": 2.0}, "Expected `gamma` or `power` to be 1, got gamma=2.0 and power=2.0"),
        ({"power": 0.5}, "Expected argument `power` in [1.0, inf), got 0.5."),
        ({"gamma": 0.5}, "Expected argument `gamma` in [1.0, inf), got 0.5."),
    ],
)
def test_wrong_tversky_options(options, words):
    for build in (CompatibleTverskyLoss, lambda **o: CrossEntropyOverlapLoss("ctl", **o)):
        with pytest.raises(ValueError, match=re.escape(words)):
            build(**options)
    with pytest.raises(ValueError, match=re.escape(words)):
        compatible_tversky_loss(X, Y, **options)


def test_unknown_option():
    with pytest.raises(TypeError, match="unexpected keyword argument 'gamma'"):
        DiceSemimetricLoss(gamma=1.0)
