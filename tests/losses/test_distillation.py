"""The four terms of distillation, by hand and against the losses that they are made of."""

import math

import pytest
import torch

from nnunet_dml.losses import (
    CrossEntropyOverlapLoss,
    DistillationLoss,
    dice_semimetric_loss,
    jaccard_metric_loss,
)
from nnunet_dml.losses.distillation import TermsLoss

SHAPES = [(2, 3, 4, 5), (2, 3, 3, 2, 4)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])


def case(shape):
    """A student's logits, labels, a teacher's probabilities, a mask."""
    labels, teacher = ((3 * torch.randn(shape, dtype=torch.float64)).softmax(1) for _ in range(2))
    return torch.randn(shape, dtype=torch.float64), labels, teacher, torch.rand(shape[0], 1, *shape[2:]) > 0.3


def entropy(logits, target):
    return -(target * logits.log_softmax(1)).sum(1).mean()


def test_by_hand():
    """Two voxels, two classes; the student gives ½ and ¾, the labels 1 and 1, the teacher ¼ and ¾."""
    foreground = torch.tensor([[0.5, 0.75]])
    logits = torch.stack((torch.zeros(1, 2), torch.logit(foreground)), 1)
    labels = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    teacher = torch.tensor([[[0.75, 0.25], [0.25, 0.75]]])
    loss = DistillationLoss(
        ce_label=0.4,
        ce_teacher=0.6,
        overlap_label=0.2,
        overlap_teacher=0.3,
        weight_ce=2,
        weight_overlap=10,
        smooth=0,
    )
    ce_label = (math.log(2) - math.log(0.75)) / 2
    ce_teacher = (math.log(2) - 0.75 * math.log(0.75) - 0.25 * math.log(0.25)) / 2
    overlap_label = 0.75 / 3.25  # |x − y| = ½ + ¼, |x| + |y| = 1¼ + 2
    overlap_teacher = 0.25 / 2.25  # |x − y| = ¼ + 0, |x| + |y| = 1¼ + 1
    terms = loss.terms(loss.label(logits, labels), loss.teacher(logits, teacher))
    torch.testing.assert_close(terms, torch.tensor([ce_label, ce_teacher, overlap_label, overlap_teacher]))
    expected = 2 * (0.4 * ce_label + 0.6 * ce_teacher) + 10 * (
        0.2 * (overlap_label - 1) + 0.3 * (overlap_teacher - 1)
    )
    assert loss(logits, labels, teacher).item() == pytest.approx(expected, abs=1e-5)


@every_shape
@pytest.mark.parametrize(("name", "overlap"), [("dml", dice_semimetric_loss), ("jml", jaccard_metric_loss)])
def test_it_is_the_sum_of_the_losses_that_there_are(shape, name, overlap):
    logits, labels, teacher, _ = case(shape)
    loss = DistillationLoss(
        name,
        ce_label=0.1,
        ce_teacher=0.2,
        overlap_label=0.3,
        overlap_teacher=0.4,
        weight_ce=0.7,
        weight_overlap=1.3,
    )
    p = logits.softmax(1)[:, 1:]
    expected = 0.7 * (0.1 * entropy(logits, labels) + 0.2 * entropy(logits, teacher))
    expected += 1.3 * (0.3 * (overlap(p, labels[:, 1:]) - 1) + 0.4 * (overlap(p, teacher[:, 1:]) - 1))
    torch.testing.assert_close(loss(logits, labels, teacher), expected, check_dtype=False, atol=1e-6, rtol=0)


@every_shape
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("log", [False, True])
def test_without_the_teacher_it_is_the_loss_without_a_teacher(shape, activation, log):
    logits, labels, teacher, mask = case(shape)
    options = {"activation": activation, "log": log, "reduction": "image", "class_weights": [1, 2, 3]}
    alone = CrossEntropyOverlapLoss("jml", weight_ce=0.3, weight_overlap=0.8, **options)
    taught = DistillationLoss(
        "jml",
        ce_label=1,
        overlap_label=1,
        ce_teacher=0,
        overlap_teacher=0,
        weight_ce=0.3,
        weight_overlap=0.8,
        **options,
    )
    assert taught.teacher is None
    torch.testing.assert_close(
        taught(logits, labels, teacher, mask),
        alone(logits, labels, mask),
        check_dtype=False,
        atol=1e-6,
        rtol=0,
    )


@pytest.mark.parametrize("mask", [False, True])
def test_a_teacher_that_is_the_label_counts_like_it(mask):
    """With the same classes active: halves of the same make the whole."""
    logits, labels, _, valid = case(SHAPES[0])
    mask = valid if mask else None
    torch.testing.assert_close(
        DistillationLoss(teacher_active="all")(logits, labels, labels, mask),
        CrossEntropyOverlapLoss()(logits, labels, mask),
        check_dtype=False,
        atol=1e-6,
        rtol=0,
    )


def test_ignored_voxels_do_not_count_whatever_they_hold():
    logits, labels, teacher, mask = case(SHAPES[0])
    loss = DistillationLoss()
    ignored = ~mask.expand_as(teacher)
    value = loss(logits, labels, teacher, mask)
    assert (
        loss(logits, labels.masked_fill(ignored, 0), teacher.masked_fill(ignored, float("nan")), mask)
        == value
    )
    assert loss(logits, labels, teacher, torch.zeros_like(mask)).item() == pytest.approx(0 - 1.5)  # Δ is 0


def test_classes_that_the_teacher_hardly_sees_do_not_count_in_its_overlap():
    logits = torch.zeros(1, 3, 4)
    labels = torch.eye(3)[torch.tensor([[0, 1, 2, 2]])].movedim(-1, 1)
    teacher = torch.tensor([0.5, 0.495, 0.005]).view(1, 3, 1).expand(1, 3, 4)
    only_teacher = {"ce_label": 0, "ce_teacher": 0, "overlap_label": 0, "overlap_teacher": 1, "smooth": 0}
    first = (0.495 - 1 / 3) / (0.495 + 1 / 3)
    second = (1 / 3 - 0.005) / (1 / 3 + 0.005)
    value = DistillationLoss(**only_teacher, weight_overlap=1)(logits, labels, teacher)
    assert value.item() == pytest.approx(first - 1)
    value = DistillationLoss(**only_teacher, weight_overlap=1, teacher_threshold=0.001)(
        logits, labels, teacher
    )
    assert value.item() == pytest.approx((first + second) / 2 - 1)


def test_the_threshold_of_the_labels_is_another_one():
    loss = DistillationLoss(active="present", threshold=0.2, teacher_active="both", teacher_threshold=0.3)
    assert (loss.label.averaging.active, loss.label.averaging.threshold) == ("present", 0.2)
    assert (loss.teacher.averaging.active, loss.teacher.averaging.threshold) == ("both", 0.3)


def test_the_gradient_reaches_the_student_alone():
    logits, labels, teacher, _ = case(SHAPES[0])
    teacher.requires_grad_()
    logits.requires_grad_()
    DistillationLoss()(logits, labels, teacher).backward()
    assert teacher.grad is None
    assert (logits.grad != 0).all()


def test_at_the_teacher_and_the_label_there_is_no_descent():
    target = torch.randn(1, 3, 6, dtype=torch.float64).softmax(1)
    logits = target.log().requires_grad_()
    loss = DistillationLoss(overlap_label=0, overlap_teacher=0)
    loss(logits, target, target).backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-7, rtol=0)


def test_a_term_of_weight_0_is_not_computed():
    loss = DistillationLoss(ce_teacher=0, overlap_label=0)
    assert loss.label.terms(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 0.5))[1] is None
    assert loss.teacher.terms(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 0.5))[0] is None
    assert TermsLoss(weight_ce=0)(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 0.5))[0] == 0
    assert DistillationLoss(ce_label=0, overlap_label=0).label is None
    assert DistillationLoss(overlap_label=0, weight_ce=0).label is None


def test_nothing_of_it_is_saved():
    assert DistillationLoss(class_weights=[1, 2]).state_dict() == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ce_teacher": -0.1}, "`ce_teacher` in"),
        ({"overlap_label": float("nan")}, "`overlap_label` in"),
        (
            {"weight_ce": 0, "overlap_label": 0, "overlap_teacher": 0},
            "a term of weight above 0, got 0 for all",
        ),
        ({"overlap": "lovasz"}, "`overlap_teacher=0` with overlap='lovasz'"),
        ({"teacher_active": "any"}, "`active` to be one of"),
    ],
)
def test_what_cannot_be(options, words):
    with pytest.raises(ValueError, match=words):
        DistillationLoss(**options)


def test_lovasz_with_labels_alone():
    labels = torch.eye(2)[torch.tensor([[0, 1, 1]])].movedim(-1, 1)
    loss = DistillationLoss("lovasz", overlap_teacher=0)
    assert torch.isfinite(loss(torch.zeros(1, 2, 3), labels, torch.full((1, 2, 3), 0.5)))


def test_a_teacher_of_another_shape():
    with pytest.raises(ValueError, match="Expected `target` of shape"):
        DistillationLoss()(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 0.5), torch.full((1, 2, 2), 0.5))


def test_a_half_alone_has_the_weight_of_both_but_no_term_of_its_own_weight_0():
    loss = DistillationLoss(ce_label=0.2, ce_teacher=0.6, overlap_label=0, overlap_teacher=0.5, weight_ce=1)
    found = loss.total(torch.tensor([2.0, 0.0]), None)
    torch.testing.assert_close(found, torch.tensor((0.2 + 0.6) * 2.0))
    found = loss.total(None, torch.tensor([2.0, 0.25]))
    torch.testing.assert_close(found, torch.tensor((0.2 + 0.6) * 2.0 + 1.5 * 0.5 * (0.25 - 1)))
