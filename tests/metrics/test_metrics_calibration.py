import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_dml.metrics import ece_from_counts, expected_calibration_error, reliability_counts
from tests.reference import metrics as slow


def two(foreground, dtype=np.float64):
    p = np.asarray(foreground, dtype=dtype)
    return np.stack([1 - p, p])


def random_case(seed, shape=(6, 7), classes=3):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((classes, *shape))
    probs = np.exp(logits) / np.exp(logits).sum(0)
    return probs.astype(np.float32), rng.integers(0, classes, shape)


def test_by_hand():
    probs = two([0.95, 0.92, 0.65, 0.25])
    labels = np.array([1, 0, 1, 0])
    # bin 9: conf .95 + .92, one hit; bin 6: .65, a hit; bin 7: .75 (background), a hit
    expected = (abs(1 - 1.87) + abs(1 - 0.65) + abs(1 - 0.75)) / 4
    assert expected_calibration_error(probs, labels) == pytest.approx(expected)


def test_certain_and_right_is_zero_certain_and_wrong_is_one():
    probs = two([1.0, 0.0, 1.0])
    assert expected_calibration_error(probs, np.array([1, 0, 1])) == 0
    assert expected_calibration_error(probs, np.array([0, 1, 0])) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bins_are_closed_below_and_one_is_in_the_last(dtype):
    probs = two([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], dtype)
    counts = reliability_counts(probs[None], np.ones((1, 6), dtype=np.int64))
    assert counts[0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 2]
    below = two(np.nextafter(np.array([0.6, 0.7, 0.8, 0.9], dtype), dtype(0)), dtype)
    counts = reliability_counts(below[None], np.ones((1, 4), dtype=np.int64))
    assert counts[0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20))
def test_equals_the_slow_version(seed, bins):
    probs, labels = random_case(seed)
    value = expected_calibration_error(probs, labels, bins=bins)
    assert value == pytest.approx(slow.ece(probs.astype(np.float64), labels, bins), abs=1e-7)
    assert 0 <= value <= 1


def test_a_tie_goes_to_the_lowest_class():
    counts = reliability_counts(np.full((1, 2, 4), 0.5), np.array([[0, 0, 0, 1]]))
    assert counts[:, 5].tolist() == [4, 2, 3]


def test_soft_reference_counts_the_mass_of_the_predicted_class():
    probs, soft = two([0.8, 0.8, 0.3]), two([0.6, 0.9, 0.4])
    # bin 8: conf 1.6, acc 1.5; bin 7: conf .7 for the background, acc .6
    assert expected_calibration_error(probs, soft) == pytest.approx((0.1 + 0.1) / 3)


def test_one_hot_soft_reference_equals_labels():
    probs, labels = random_case(3)
    one_hot = np.stack([labels == c for c in range(3)]).astype(np.float32)
    assert expected_calibration_error(probs, one_hot) == expected_calibration_error(probs, labels)


def test_pooled_sums_equal_the_concatenation_not_the_mean():
    (p, y), (q, z) = random_case(1), random_case(2, shape=(3, 4))
    pooled = ece_from_counts(
        reliability_counts(p[None], y[None]) + reliability_counts(q[None], z[None])
    ).item()
    joint = np.concatenate([p.reshape(3, -1), q.reshape(3, -1)], axis=1)
    labels = np.concatenate([y.ravel(), z.ravel()])
    assert pooled == pytest.approx(expected_calibration_error(joint, labels), abs=1e-12)
    mean = (expected_calibration_error(p, y) + expected_calibration_error(q, z)) / 2
    assert abs(pooled - mean) > 1e-3


def test_batches_masks_and_tensors():
    cases = [random_case(seed) for seed in (4, 5)]
    p, y = (np.stack(arrays) for arrays in zip(*cases, strict=True))
    keep = np.random.default_rng(0).random(y.shape) > 0.4
    parts = sum(reliability_counts(p[i][None][..., keep[i]], y[i][None, keep[i]]) for i in range(2))
    together = reliability_counts(torch.from_numpy(p), torch.from_numpy(y), mask=torch.from_numpy(keep))
    torch.testing.assert_close(together, parts, rtol=0, atol=1e-12)
    assert together[0].sum() == keep.sum()
    assert together.dtype == torch.float64


def test_ignored_voxels_may_hold_any_label_and_none_left_is_undefined():
    probs, labels = two([0.9, 0.2, 0.6]), np.array([1, 0, 255])
    keep = labels != 255
    assert expected_calibration_error(probs, labels, mask=keep) == pytest.approx((0.1 + 0.2) / 2)
    assert np.isnan(expected_calibration_error(probs, labels, mask=np.zeros(3, bool)))


def test_sums_do_not_drown_in_single_precision():
    n = 3_000_000
    probs = np.full((2, n), 0.05, np.float32)
    probs[1] = 0.95
    counts = reliability_counts(probs[None], np.ones((1, n), np.uint8))
    assert counts[1, 9].item() == pytest.approx(n * float(np.float32(0.95)), rel=1e-12)


def test_refusals():
    probs, labels = random_case(0)
    with pytest.raises(
        TypeError, match=r"label `reference` of shape \(6, 7\) to hold integers, got dtype torch.float64"
    ):
        expected_calibration_error(probs, labels.astype(float))
    with pytest.raises(TypeError, match="Convert one-hot maps to float"):
        expected_calibration_error(probs, np.zeros(probs.shape, int))
    with pytest.raises(ValueError, match=r"`reference` of shape \(6, 7\) to match"):
        expected_calibration_error(probs, labels.T)
    with pytest.raises(ValueError, match=r"labels 0 to 2, got 0 to 9\. Leave ignored voxels out"):
        expected_calibration_error(probs, np.where(labels == 2, 9, labels))
    with pytest.raises(ValueError, match="Logits need a softmax first"):
        expected_calibration_error(2 * probs - 0.5, labels)
    with pytest.raises(ValueError, match="`bins` to be at least 1"):
        expected_calibration_error(probs, labels, bins=0)
    with pytest.raises(TypeError, match="floating point probabilities"):
        expected_calibration_error(np.ones((2, 4), int), np.zeros(4, int))


def test_torchmetrics_agrees_away_from_its_phantom_bin():
    # torchmetrics puts confidences of exactly 1 behind its last boundary, into a bin of their own, whose
    # accuracy and confidence are compared apart from those of the last bin.
    functional = pytest.importorskip("torchmetrics.functional.classification")
    probs, labels = random_case(7, shape=(500,))
    oracle = functional.multiclass_calibration_error
    theirs = oracle(
        torch.from_numpy(probs.T.copy()), torch.from_numpy(labels), num_classes=3, n_bins=10, norm="l1"
    )
    assert expected_calibration_error(probs, labels) == pytest.approx(float(theirs), abs=1e-6)
    # One certain wrong voxel and one right at 0.95, both in [0.9, 1]: |1 − 1.95| / 2. Apart: (1 + 0.05) / 2.
    probs, labels = two([1.0, 0.95], np.float32), np.array([0, 1])
    theirs = oracle(
        torch.from_numpy(probs.T.copy()), torch.from_numpy(labels), num_classes=2, n_bins=10, norm="l1"
    )
    assert expected_calibration_error(probs, labels) == pytest.approx(0.475)
    assert float(theirs) == pytest.approx(0.525)


def test_torchmetrics_loses_voxels_of_volumes_where_this_does_not():
    # It counts a bin's voxels one by one in single precision, where 2**24 + 1 is 2**24: of a volume of 512 x 512 x 450
    # most of the background is lost, and its calibration error is that of the rest.
    functional = pytest.importorskip("torchmetrics.functional.classification")
    sure, unsure = 2**24 + 2**22, 2**22  # of the voxels at 0.96 all are right, of those at 0.75 none
    confidence = torch.cat([torch.full((sure,), 0.96), torch.full((unsure,), 0.75)])
    probs, labels = torch.stack([1 - confidence, confidence]), torch.zeros(sure + unsure, dtype=torch.int64)
    labels[:sure] = 1
    theirs = functional.multiclass_calibration_error(
        probs[None], labels[None], num_classes=2, n_bins=10, norm="l1"
    )
    right = (sure * 0.04 + unsure * 0.75) / (sure + unsure)
    assert expected_calibration_error(probs, labels) == pytest.approx(right, rel=1e-6)
    assert float(theirs) == pytest.approx(
        0.75 * 2**22 / (2**24 + 2**22)
    )  # 2**24 sure ones, and 0.96 rounds to 1 there
