import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnunet_dml.losses import dice_semimetric_loss
from nnunet_dml.metrics import (
    dice_from_counts,
    dice_per_class,
    iou_from_counts,
    iou_per_class,
    mask_overlap_counts,
    overlap_counts,
    soft_dice,
    soft_overlap_counts,
)
from nnunet_dml.metrics import sets as module
from tests.metrics.cases import one_hot, random_case, two
from tests.reference import metrics as slow


def test_iou_by_hand():
    prediction, reference = np.array([[1, 1, 0], [2, 1, 0]]), np.array([[1, 0, 0], [1, 1, 0]])
    # class 1: 2 of 4; class 2: 0 of 1; class 3: neither has it
    assert iou_per_class(prediction, reference, num_classes=4).tolist() == [2 / 4, 0, 1]


@given(hnp.arrays(np.uint8, st.tuples(st.just(2), st.integers(0, 30)), elements=st.integers(0, 3)))
def test_iou_equals_the_slow_version_and_belongs_to_dice(maps):
    iou = iou_per_class(*maps, num_classes=4)
    np.testing.assert_allclose(iou, [slow.iou(maps[0] == c, maps[1] == c) for c in (1, 2, 3)], atol=1e-12)
    np.testing.assert_allclose(dice_per_class(*maps, num_classes=4), 2 * iou / (1 + iou), atol=1e-12)


def test_counts_of_labels_by_hand_background_first():
    counts = overlap_counts(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), num_classes=3)
    assert counts.tolist() == [[1, 1, 0], [2, 1, 1], [1, 3, 0]]


def test_counts_of_masks_equal_those_of_labels_where_these_do_not_overlap():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 3, (2, 4, 5))
    keep = rng.random((4, 5)) > 0.5
    counts = overlap_counts(first, second, num_classes=3, mask=keep)
    assert torch.equal(mask_overlap_counts(one_hot(first), one_hot(second), mask=keep), counts)


def test_regions_that_overlap():
    prediction = np.array([[True, True, False], [True, False, False]])
    reference = np.array([[True, True, True], [False, True, False]])
    np.testing.assert_allclose(dice_from_counts(mask_overlap_counts(prediction, reference)), [4 / 5, 0])


def test_a_label_out_of_range_is_never_taken_for_another(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 2)
    labels, wrong = np.array([0, 1, 1, 0, 1]), np.array([0, 1, 1, 0, 3])  # 1 · 3 + 3 would be the pair (2, 0)
    with pytest.raises(ValueError, match="`reference` to hold labels 0 to 2, got 3 to 3"):
        overlap_counts(labels, wrong, num_classes=3)
    with pytest.raises(ValueError, match="`prediction` to hold labels 0 to 2, got -1 to 0"):
        overlap_counts(-labels, labels, num_classes=3)
    assert overlap_counts(labels, wrong, num_classes=3, mask=wrong < 3)[0].tolist() == [2, 2, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int64, bool])
def test_any_type_of_labels(dtype):
    labels = np.array([0, 1, 1, 0]).astype(dtype)
    assert overlap_counts(labels, labels, num_classes=2).tolist() == [[2, 2]] * 3


def test_many_classes_do_not_overflow_small_integers():
    labels = np.arange(200, dtype=np.uint8)
    assert (overlap_counts(labels, labels, num_classes=200) == 1).all()


def test_soft_dice_by_hand():
    p, y = two([0.5, 0.25, 0.0]), two([0.5, 1.0, 0.0])
    np.testing.assert_allclose(soft_dice(p, y), [2 * 0.75 / 2.25])
    counts = soft_overlap_counts(p[None], y[None])
    np.testing.assert_allclose(counts[:, 1], [0.75, 0.75, 1.5])
    assert iou_from_counts(counts)[1] == pytest.approx(0.75 / 1.5)  # Σ min / Σ max


def test_soft_dice_equals_the_slow_version_and_the_loss():
    probs, votes, soft = random_case(1)
    slowly = [slow.soft_dice(p, y) for p, y in zip(probs[1:], soft[1:], strict=True)]
    np.testing.assert_allclose(soft_dice(probs, soft), slowly, rtol=1e-6)
    loss = dice_semimetric_loss(torch.from_numpy(probs[1:])[None], torch.from_numpy(soft[1:])[None], smooth=0)
    assert 1 - float(loss) == pytest.approx(soft_dice(probs, soft).mean(), rel=1e-6)
    hard = probs.argmax(0)
    np.testing.assert_allclose(
        soft_dice(one_hot(hard).astype(float), votes[0]), dice_per_class(hard, votes[0], num_classes=3)
    )


def test_soft_dice_of_a_map_with_itself_is_one_as_the_product_is_not():
    # The classical form of other libraries is 0.5 here, and 2/3 for a prediction of 1: it wants certainty.
    y = two([0.5, 0.5])
    assert soft_dice(y, y)[0] == 1
    product = [2 * (p * y[1]).sum() / (p + y[1]).sum() for p in (y[1], np.ones(2))]
    assert product == pytest.approx([1 / 2, 2 / 3])
    assert soft_dice(two([1.0, 1.0]), y)[0] == pytest.approx(2 / 3)


def test_soft_dice_of_empty_maps():
    nothing = two([0.0, 0.0])
    assert soft_dice(nothing, nothing)[0] == 1
    assert soft_dice(nothing, two([0.0, 0.5]))[0] == 0


def test_refusals():
    with pytest.raises(
        TypeError, match=r"`prediction` to hold integers or booleans, got dtype torch\.float64"
    ):
        iou_per_class(np.array([0.5]), np.array([1]), num_classes=2)
    with pytest.raises(TypeError, match="`reference` to hold booleans, a mask per region, got dtype"):
        mask_overlap_counts(np.ones((1, 3), bool), np.ones((1, 3), int))
    with pytest.raises(ValueError, match="Logits need a softmax first"):
        soft_dice(two([2.0]), two([1.0]))


def test_torchmetrics_and_monai_leave_a_class_in_neither_map_out_and_we_say_one():
    functional = pytest.importorskip("torchmetrics.functional.segmentation")
    monai = pytest.importorskip("monai.metrics")
    first, second = (
        torch.from_numpy(random_case(seed)[1][0] * 2) for seed in (2, 3)
    )  # labels 0, 2, 4: 1 and 3 absent
    ours = iou_per_class(first, second, num_classes=5)
    hot = [torch.nn.functional.one_hot(x, 5).movedim(-1, 0)[None] for x in (first, second)]
    theirs = monai.compute_iou(*hot, include_background=False)[0]
    assert theirs.isnan().tolist() == [True, False, True, False]
    np.testing.assert_allclose(ours[[1, 3]], theirs[[1, 3]], rtol=1e-6)
    # MONAI's `ignore_empty=False` and we: nothing was to be found and nothing was
    theirs = monai.compute_iou(*hot, include_background=False, ignore_empty=False)[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    dice = monai.compute_dice(*hot, include_background=False, ignore_empty=False)[0]
    np.testing.assert_allclose(dice_per_class(first, second, num_classes=5), dice, rtol=1e-6)
    theirs = functional.mean_iou(*hot, num_classes=5, include_background=False, per_class=True)[0]
    np.testing.assert_allclose(ours[[1, 3]], theirs[[1, 3]], rtol=1e-6)
    assert theirs[[0, 2]].tolist() != [1, 1]
