import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_dml.metrics import fine_grained, overlap_counts, soft_overlap_counts
from tests.metrics.cases import random_case
from tests.reference import metrics as slow

# two cases, three classes: (intersection, prediction, reference)
COUNTS = np.array(
    [
        [[8, 1, 0], [8, 2, 3], [8, 3, 0]],  # IoU 1, 1/4, 0 (only false positives)
        [[9, 0, 0], [9, 0, 0], [10, 0, 0]],  # IoU 9/10, undefined, undefined
    ]
)


def test_by_hand_with_the_policy():
    found = fine_grained(COUNTS)
    np.testing.assert_allclose(found.dataset_of_class, [17 / 18, 1 / 4, 0])
    np.testing.assert_allclose(found.image_of_case, [(1 + 1 / 4) / 3, (0.9 + 1 + 1) / 3])
    np.testing.assert_allclose(found.mean_of_class, [0.95, (1 / 4 + 1) / 2, 1 / 2])
    assert found.per_dataset == pytest.approx((17 / 18 + 1 / 4) / 3)
    assert [found.per_image, found.per_class] == pytest.approx([(1.25 + 2.9) / 6] * 2)
    assert found.both_empty.tolist() == [0, 1, 1]
    assert found.reference_empty.tolist() == [0, 1, 2]
    assert found.prediction_empty.tolist() == [0, 1, 1]
    assert found.left_out.tolist() == [0, 0, 0]


def test_by_hand_leaving_undefined_values_out():
    found = fine_grained(COUNTS, empty="both_left_out")
    np.testing.assert_allclose(found.mean_of_class, [0.95, 1 / 4, 0])
    np.testing.assert_allclose(found.image_of_case, [1.25 / 3, 0.9])
    assert found.per_image == pytest.approx((1.25 / 3 + 0.9) / 2)
    assert found.per_class == pytest.approx(1.2 / 3)
    assert found.left_out.tolist() == [0, 1, 1]


def test_by_hand_leaving_classes_out_that_the_reference_has_not():
    found = fine_grained(COUNTS, empty="reference_left_out")
    np.testing.assert_allclose(found.mean_of_class, [0.95, 1 / 4, np.nan])
    np.testing.assert_allclose(found.dataset_of_class, [17 / 18, 1 / 4, np.nan])
    assert found.per_image == pytest.approx((1.25 / 2 + 0.9) / 2)
    assert found.per_class == pytest.approx((0.95 + 0.25) / 2)
    assert found.left_out.tolist() == [0, 1, 2]


def test_dice_and_fractions():
    counts = torch.stack([soft_overlap_counts(p[None], y[None]) for p, _, y in map(random_case, (0, 1))])
    found = fine_grained(counts, metric="dice")
    slowly = [[slow.soft_dice(p, y) for p, y in zip(*random_case(seed)[::2], strict=True)] for seed in (0, 1)]
    np.testing.assert_allclose(found.image_of_case, np.mean(slowly, axis=1), rtol=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(["policy", "both_left_out", "reference_left_out"]))
def test_equals_the_slow_version(seed, empty):
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 3, (4, 2, 3))
    counts = torch.stack([overlap_counts(*pair, num_classes=3) for pair in maps])
    table = np.full((4, 3), np.nan)
    for i, (p, r) in enumerate(maps):
        for c in range(3):
            gone = {"policy": False, "both_left_out": not (p == c).any(), "reference_left_out": True}[empty]
            if (r == c).any() or not gone:
                table[i, c] = slow.iou(p == c, r == c)
    found = fine_grained(counts, empty=empty)
    images = [np.nanmean(row) for row in table if not np.isnan(row).all()]
    classes = [np.nanmean(row) for row in table.T if not np.isnan(row).all()]
    assert found.per_image == pytest.approx(np.mean(images))
    assert found.per_class == pytest.approx(np.mean(classes))
    whole = [np.concatenate([m.ravel() for m in maps[:, side]]) for side in (0, 1)]
    pooled = [slow.iou(whole[0] == c, whole[1] == c) for c in range(3)]
    if all((whole[1] == c).any() for c in range(3)):
        assert found.per_dataset == pytest.approx(np.mean(pooled))
    np.testing.assert_array_equal(found.left_out, np.isnan(table).sum(0))


def test_nothing_at_all():
    found = fine_grained(np.zeros((2, 3, 2)), empty="both_left_out")
    assert np.isnan([found.per_dataset, found.per_image, found.per_class]).all()
    assert fine_grained(np.zeros((2, 3, 2))).per_image == 1


def test_refusals():
    with pytest.raises(ValueError, match=r"`counts` of shape \(cases, 3, classes\), got \(3, 4\)"):
        fine_grained(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"`empty` to be one of \['policy'"):
        fine_grained(COUNTS, empty="skip")


def test_torchmetrics_means_of_images_agree_where_every_class_is_there():
    functional = pytest.importorskip("torchmetrics.functional.segmentation")
    maps = torch.from_numpy(np.random.default_rng(5).integers(0, 3, (2, 4, 8, 8)))
    hot = [torch.nn.functional.one_hot(side, 3).movedim(-1, 1) for side in maps]
    counts = torch.stack([overlap_counts(p, r, num_classes=3) for p, r in zip(*maps, strict=True)])
    theirs = functional.mean_iou(*hot, num_classes=3)
    np.testing.assert_allclose(fine_grained(counts).image_of_case, theirs, rtol=1e-6)
