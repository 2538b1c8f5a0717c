import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from nnunet_dml.metrics import (
    absolute_volume_difference,
    crps_from_volumes,
    overlap_counts,
    soft_overlap_counts,
    volume_bias,
    volume_bias_from_counts,
    volume_crps,
    voxel_millilitres,
)
from tests.metrics.cases import random_case, two
from tests.reference import metrics as slow


def test_by_hand_and_signed():
    np.testing.assert_allclose(volume_bias(two([0.9, 0.6]), two([1.0, 0.0])), [0.5])
    np.testing.assert_allclose(volume_bias(two([0.0, 0.5]), two([1.0, 0.0])), [-0.5])


def test_equals_the_slow_version_per_class_and_in_any_dimension():
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(4), (2, 5, 3)), rng.dirichlet(np.ones(4), (2, 5, 3))
    p, y = np.moveaxis(p, -1, 0), np.moveaxis(y, -1, 0)
    np.testing.assert_allclose(volume_bias(p, y), slow.volume_bias(p, y))
    tensors = torch.from_numpy(p.copy()), torch.from_numpy(y.copy())
    np.testing.assert_allclose(volume_bias(*tensors), volume_bias(p, y), rtol=1e-12)
    keep = rng.random((2, 5, 3)) > 0.5
    np.testing.assert_allclose(volume_bias(p, y, mask=keep), slow.volume_bias(p[:, keep], y[:, keep]))


def test_empty_cases():
    assert np.isnan(volume_bias(two([0.2, 0.0]), two([0.0, 0.0]))[0])
    assert np.isnan(volume_bias(two([0.0, 0.0]), two([0.0, 0.0]))[0])
    assert volume_bias(two([0.0, 0.0]), two([0.0, 1.0]))[0] == -1


def test_refuses_logits():
    with pytest.raises(ValueError, match="Logits need a softmax first"):
        volume_bias(two([2.0, -1.0]), two([1.0, 0.0]))


def test_bias_from_counts_hard_and_soft():
    probs, votes, soft = random_case(0)
    counts = soft_overlap_counts(probs[None], soft[None])
    np.testing.assert_allclose(volume_bias_from_counts(counts)[1:], volume_bias(probs, soft))
    hard = volume_bias_from_counts(overlap_counts(probs.argmax(0), votes[0], num_classes=3))
    sizes = [[(side == c).sum() for c in range(3)] for side in (probs.argmax(0), votes[0])]
    np.testing.assert_allclose(hard, np.array(sizes[0]) / sizes[1] - 1)


def test_difference_in_millilitres_by_hand():
    p, y = two(np.full((2, 2, 2), 0.5)), two(np.ones((2, 2, 2)))
    # 4 voxels of 0.5 · 2 · 10 = 10 mm³
    np.testing.assert_allclose(absolute_volume_difference(p, y, spacing=(0.5, 2, 10)), [0.04])
    np.testing.assert_allclose(absolute_volume_difference(y, p, spacing=(0.5, 2, 10)), [0.04])
    nothing = two(np.zeros((2, 2, 2)))
    assert absolute_volume_difference(nothing, nothing, spacing=(1, 1, 1)).tolist() == [0]
    keep = np.zeros((2, 2, 2), bool)
    keep[0] = True
    np.testing.assert_allclose(absolute_volume_difference(p, y, spacing=(0.5, 2, 10), mask=keep), [0.02])


@settings(max_examples=20, deadline=None)
@given(
    st.floats(0, 50),
    st.lists(st.integers(0, 400), min_size=2, max_size=6).filter(lambda volumes: len(set(volumes)) > 1),
)
def test_crps_equals_the_integral(predicted, tenths):
    volumes = [tenth / 10 for tenth in tenths]
    assert crps_from_volumes(predicted, volumes) == pytest.approx(
        slow.crps(predicted, volumes), rel=1e-3, abs=1e-3
    )


def test_crps_where_raters_agree_is_the_absolute_error_and_the_limit():
    assert crps_from_volumes(12.5, [10, 10, 10]) == 2.5
    assert crps_from_volumes(12.5, [10]) == 2.5
    assert crps_from_volumes(10.0, [10, 10]) == 0
    assert crps_from_volumes(12.5, [10 - 1e-6, 10 + 1e-6]) == pytest.approx(2.5, abs=1e-5)
    assert crps_from_volumes(0.0, [0, 0]) == 0  # a class that nobody has


def test_crps_is_least_at_the_mean_grows_without_end_and_scales_with_the_unit():
    volumes = [9.0, 11.0]
    least = crps_from_volumes(10.0, volumes)
    assert least == pytest.approx((np.sqrt(2) - 1) / np.sqrt(np.pi))
    assert all(crps_from_volumes(10 + d, volumes) > least for d in (-0.1, 0.1, 3))
    np.testing.assert_allclose(
        crps_from_volumes(11.5, volumes), 1000 * crps_from_volumes(0.0115, [0.009, 0.011])
    )
    assert crps_from_volumes([10.0, 12.0], [[9.0, 12], [11.0, 12]]).shape == (2,)


def test_the_challenge_itself_stops_three_deviations_from_the_mean():
    # CURVAS integrates from μ − 3σ to μ + 3σ: from there on a prediction could be as wrong as it likes.
    predicted, volumes = 30.0, [9.0, 11.0]
    t = np.linspace(7, 13, 100_001)
    within = trapezoid((slow.normal_cdf(t, 10, 1) - (t >= predicted)) ** 2, t)
    assert within == pytest.approx(2.436, abs=1e-3)
    assert crps_from_volumes(predicted, volumes) == pytest.approx(20 - 1 / np.sqrt(np.pi))


def test_crps_of_a_case():
    probs, votes, _ = random_case(1, shape=(3, 4, 5))
    keep = np.random.default_rng(0).random((3, 4, 5)) > 0.3
    spoilt = np.where(keep, votes, 99)
    found = volume_crps(probs, spoilt, spacing=(1, 2, 3), mask=keep)
    for c in (1, 2):
        volumes = [0.006 * (rater[keep] == c).sum() for rater in votes]
        assert found[c - 1] == pytest.approx(slow.crps(0.006 * probs[c][keep].sum(), volumes), abs=1e-5)


def test_volumes_refuse():
    case = two(np.ones((1, 1, 2)))
    for spacing in ((1, 1), (1, 1, 0), (1, 1, np.nan), (1, 1, -1)):
        with pytest.raises(ValueError, match="`spacing` to be three positive numbers in mm"):
            absolute_volume_difference(case, case, spacing=spacing)
    assert voxel_millilitres((10, 10, 10)) == 1
    with pytest.raises(ValueError, match="at least one rater"):
        crps_from_volumes(1.0, [])
    with pytest.raises(ValueError, match=r"`raters` of shape \(raters, \*spatial\)"):
        volume_crps(case, np.zeros((0, 1, 1, 2), int), spacing=(1, 1, 1))
    with pytest.raises(ValueError, match=r"`raters` of shape \(2,\) to match `predicted`"):
        crps_from_volumes([1.0, 2.0], [[1.0], [1.0]])
    with pytest.raises(ValueError, match="`reference` to hold labels 0 to 1, got"):
        volume_crps(case, np.full((2, 1, 1, 2), 3), spacing=(1, 1, 1))
