"""Class-wise calibration, MCE, boundary, foreground, regions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_dml.labels import boundary_voxels
from nnunet_dml.metrics import (
    at_boundary,
    classwise_calibration_error,
    complements,
    ece_from_counts,
    expected_calibration_error,
    maximum_calibration_error,
    mce_from_counts,
    near_foreground,
    reliability_counts,
    static_calibration_error,
)
from tests.metrics.cases import one_hot, random_case, two
from tests.reference import metrics as slow

seeds = st.integers(0, 10**6)


def test_mce_by_hand():
    probs, labels = two([0.95, 0.92, 0.65, 0.25]), np.array([1, 0, 1, 0])
    # gaps of the means: bin 9 |1/2 − 0.935|, bin 6 |1 − 0.65|, bin 7 |1 − 0.75|
    assert maximum_calibration_error(probs, labels) == pytest.approx(0.435)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 15), st.booleans())
def test_mce_and_classes_equal_the_slow_versions(seed, bins, hard):
    probs, votes, soft = random_case(seed)
    truth = votes[0] if hard else soft
    shares = one_hot(votes[0]).astype(float) if hard else soft.astype(float)
    doubles = probs.astype(np.float64)
    rows = slow.binned_gaps(*slow.top_label(doubles, shares), bins)
    assert maximum_calibration_error(probs, truth, bins=bins) == pytest.approx(
        max(gap / n for n, gap in rows if n), abs=1e-6
    )
    assert expected_calibration_error(probs, truth, bins=bins) == pytest.approx(
        sum(gap for _, gap in rows) / votes[0].size, abs=1e-6
    )
    slowly = [
        sum(gap for _, gap in slow.binned_gaps(p, y, bins)) / p.size
        for p, y in zip(doubles, shares, strict=True)
    ]
    np.testing.assert_allclose(classwise_calibration_error(probs, truth, bins=bins), slowly, atol=1e-6)
    assert static_calibration_error(probs, truth, bins=bins) == pytest.approx(np.mean(slowly), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_mce_is_at_least_ece_and_the_labels_themselves_are_calibrated(seed):
    probs, _, soft = random_case(seed)
    assert maximum_calibration_error(probs, soft) >= expected_calibration_error(probs, soft) - 1e-12
    assert expected_calibration_error(soft, soft) == pytest.approx(0, abs=1e-7)
    assert static_calibration_error(soft, soft) == pytest.approx(0, abs=1e-7)


def test_permuted_classes_permute_the_values():
    probs, _, soft = random_case(0)
    order = [2, 0, 1]
    np.testing.assert_allclose(
        classwise_calibration_error(probs[order], soft[order]),
        classwise_calibration_error(probs, soft)[order],
    )


def test_nothing_counted_is_undefined_and_a_nan_is_not_hidden():
    probs, votes, _ = random_case(1)
    nobody = np.zeros(votes[0].shape, bool)
    for value in (
        maximum_calibration_error(probs, votes[0], mask=nobody),
        static_calibration_error(probs, votes[0], mask=nobody),
    ):
        assert np.isnan(value)
    assert classwise_calibration_error(probs, votes[0], mask=nobody).shape == (3,)
    probs[:, 0, 0] = np.nan
    counts = reliability_counts(probs[None], votes[:1])
    assert np.isnan(ece_from_counts(counts))
    assert np.isnan(mce_from_counts(counts))


def test_bece_and_bsce_are_of_the_boundary_alone():
    probs, _, soft = random_case(2, shape=(8, 9))
    labels = np.zeros((8, 9), int)
    labels[2:6, 3:7] = 1
    labels[3:5, 4:6] = 2
    target = torch.from_numpy(one_hot(labels).astype(np.float32))[None]
    boundary = boundary_voxels(target, neighbourhood=3)[0, 0]
    near = np.zeros((8, 9), bool)
    for index in np.ndindex(labels.shape):
        box = tuple(slice(max(0, i - 1), i + 2) for i in index)
        near[index] = len(np.unique(labels[box])) > 1
    np.testing.assert_array_equal(boundary, near)
    for metric in (expected_calibration_error, static_calibration_error, maximum_calibration_error):
        for truth, chosen in ((labels, labels[near]), (soft, soft[:, near])):
            assert metric(probs, truth, mask=boundary) == pytest.approx(
                metric(probs[:, near], chosen), abs=1e-12
            )


def test_near_foreground_by_hand():
    prediction, reference = np.zeros((5, 6), int), np.zeros((5, 6), int)
    prediction[0, 0], reference[4, 3] = 2, 1
    assert near_foreground(prediction, reference, radius=1).int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0],
    ]
    wide = near_foreground(prediction, reference, radius=(0, 2))
    assert wide.nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [4, 1], [4, 2], [4, 3], [4, 4], [4, 5]]


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(0, 9), st.sampled_from([(7,), (5, 6), (3, 4, 5)]))
def test_near_foreground_equals_the_slow_version(seed, radius, shape):
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, *shape)) > 0.95
    found = near_foreground(first, second, radius=radius)
    np.testing.assert_array_equal(found, slow.dilated(first | second, radius))


def test_near_foreground_equals_max_pooling_and_changes_nothing():
    rng = np.random.default_rng(0)
    first, second = (torch.from_numpy(x) for x in rng.random((2, 6, 7, 8)) > 0.98)
    before = first.clone()
    pooled = torch.nn.functional.max_pool3d((first | second).float()[None], 5, stride=1, padding=2)[0] > 0
    assert torch.equal(near_foreground(first, second, radius=2), pooled)
    assert torch.equal(first, before)
    assert torch.equal(near_foreground(first, second, radius=0), first | second)
    assert not near_foreground(first & False, second & False).any()


def test_near_foreground_refuses():
    mask = np.ones((2, 3), bool)
    with pytest.raises(ValueError, match=r"`radius` to be at least 0, one or 2 \(one per axis\), got -1"):
        near_foreground(mask, mask, radius=-1)
    with pytest.raises(ValueError, match=r"got \(1, 1, 1\)"):
        near_foreground(mask, mask, radius=(1, 1, 1))
    with pytest.raises(TypeError, match="hold integers or booleans"):
        near_foreground(mask.astype(float), mask)


@settings(max_examples=30, deadline=None)
@given(seeds, st.sampled_from([1, 3, 5]), st.sampled_from([(9,), (5, 6), (3, 4, 5)]), st.booleans())
def test_at_boundary_is_that_of_boundary_smoothing(seed, k, shape, masked):
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(shape) > 0.3, 0, rng.integers(0, 3, shape))
    keep = rng.random(shape) > 0.2 if masked else None
    hot = torch.from_numpy(np.stack([labels == c for c in range(3)]))[None].float()
    mask = None if keep is None else torch.from_numpy(keep)[None, None]
    wanted = boundary_voxels(hot, neighbourhood=k, mask=mask)[0, 0]
    assert torch.equal(at_boundary(labels, neighbourhood=k, mask=keep), wanted)
    region = boundary_voxels(hot[:, 1:2], neighbourhood=k, mask=mask, independent=True)[0, 0]
    assert torch.equal(at_boundary((labels == 1).astype(np.uint8), neighbourhood=k, mask=keep), region)
    assert torch.equal(at_boundary(labels == 1, neighbourhood=k, mask=keep), region)


def test_at_boundary_refuses():
    labels = np.zeros((2, 3), int)
    with pytest.raises(ValueError, match="`neighbourhood` to be odd and at least 1, got 2"):
        at_boundary(labels, neighbourhood=2)
    with pytest.raises(TypeError, match="hold integers or booleans"):
        at_boundary(labels.astype(float))
    with pytest.raises(TypeError, match="`mask` to be boolean"):
        at_boundary(labels, mask=labels)


def test_a_foreground_error_does_not_drown_in_background():
    p = np.full(1000, 0.0)
    p[:10] = 0.99  # ten false positives
    probs, labels = two(p), np.zeros(1000, int)
    assert expected_calibration_error(probs, labels) == pytest.approx(0.0099)
    near = near_foreground(p > 0.5, labels, radius=0)
    assert expected_calibration_error(probs, labels, mask=near) == pytest.approx(0.99)


def test_regions_are_measured_each_against_its_complement():
    rng = np.random.default_rng(3)
    regions, masks = rng.random((2, 4, 5)), rng.random((2, 4, 5)) > 0.5  # they overlap: sums are not one
    pairs = complements(regions)
    values = [expected_calibration_error(pairs[r], masks[r].astype(int)) for r in range(2)]
    for r, value in enumerate(values):
        confidence = np.maximum(regions[r], 1 - regions[r])
        hit = (regions[r] > 0.5) == masks[r]
        gaps = slow.binned_gaps(confidence, hit.astype(float), 10)
        assert value == pytest.approx(sum(gap for _, gap in gaps) / 20)
    pooled = ece_from_counts(reliability_counts(pairs, masks.astype(int)))
    parts = [reliability_counts(pairs[r][None], masks[r].astype(int)[None]) for r in range(2)]
    assert pooled == pytest.approx(float(ece_from_counts(parts[0] + parts[1])))
    soft = complements(masks)
    assert soft.dtype.is_floating_point
    assert expected_calibration_error(pairs[0], soft[0]) == pytest.approx(values[0])


def test_torchmetrics_has_the_same_mce_away_from_its_phantom_bin():
    # A voxel with confidence 1 is alone in a bin of torchmetrics', so its gap is a candidate of its own.
    functional = pytest.importorskip("torchmetrics.functional.classification")
    probs, votes, _ = random_case(4, shape=(500,))
    args = {"num_classes": 3, "n_bins": 10, "norm": "max"}
    theirs = functional.multiclass_calibration_error(
        torch.from_numpy(probs.T.copy()), torch.from_numpy(votes[0]), **args
    )
    assert maximum_calibration_error(probs, votes[0]) == pytest.approx(float(theirs), abs=1e-6)
    probs, labels = two([1.0, 0.95], np.float32), np.array([0, 1])
    theirs = functional.multiclass_calibration_error(
        torch.from_numpy(probs.T.copy()), torch.from_numpy(labels), **args | {"num_classes": 2}
    )
    assert maximum_calibration_error(probs, labels) == pytest.approx(0.475)
    assert float(theirs) == pytest.approx(1)


def test_monai_is_marginal_and_per_image_and_its_mean_of_images_is_not_the_pooled_error():
    calibration = pytest.importorskip("monai.metrics.calibration")
    cases = [random_case(seed, shape=(8, 8)) for seed in (5, 6)]
    p = torch.from_numpy(np.stack([probs for probs, _, _ in cases]))
    labels = np.stack([votes[0] for _, votes, _ in cases])
    hot = torch.nn.functional.one_hot(torch.from_numpy(labels), 3).movedim(-1, 1)
    mean_p, mean_y, number = calibration.calibration_binning(p, hot, num_bins=10)
    theirs = ((mean_p - mean_y).abs().nan_to_num() * number).sum(-1) / 64  # (images, classes)
    ours = [classwise_calibration_error(p[i], labels[i]) for i in range(2)]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    pooled = classwise_calibration_error(p.movedim(1, 0), labels)
    assert np.abs(pooled - theirs.numpy().mean(0)).max() > 1e-3


def test_monai_puts_values_on_a_border_into_the_bin_below():
    # MONAI's last border is 1 + 1e-7 and the others are moved with it, so 0.5 is below its border at 0.5.
    calibration = pytest.importorskip("monai.metrics.calibration")
    p = torch.full((1, 1, 4), 0.5)
    number = calibration.calibration_binning(p, p, num_bins=10)[2]
    assert number[0, 0].tolist() == [0, 0, 0, 0, 4, 0, 0, 0, 0, 0]
    counts = reliability_counts(complements(p[0]), complements(p[0]))
    assert counts[0].tolist() == [0, 0, 0, 0, 0, 4, 0, 0, 0, 0]


def test_netcal_has_the_same_ece_and_mce():
    netcal = pytest.importorskip("netcal.metrics")
    probs, votes, _ = random_case(7, shape=(400,))
    table = probs.T.astype(np.float64)
    assert expected_calibration_error(probs, votes[0]) == pytest.approx(
        netcal.ECE(10).measure(table, votes[0]), abs=1e-6
    )
    assert maximum_calibration_error(probs, votes[0]) == pytest.approx(
        netcal.MCE(10).measure(table, votes[0]), abs=1e-6
    )
