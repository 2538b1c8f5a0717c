import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_dml.metrics import (
    class_masks,
    dice_per_class,
    expected_calibration_error,
    ged_from_counts,
    generalised_energy_distance,
    level_sets,
    pair_counts,
    rater_dice,
    rater_ece,
)
from nnunet_dml.metrics import raters as module
from tests.metrics.cases import random_case, two
from tests.reference import metrics as slow


def test_each_rater_by_himself():
    probs, votes, _ = random_case(0)
    hard = probs.argmax(0)
    np.testing.assert_array_equal(
        rater_dice(hard, votes, num_classes=3),
        [dice_per_class(hard, rater, num_classes=3) for rater in votes],
    )
    np.testing.assert_array_equal(
        rater_ece(probs, votes), [expected_calibration_error(probs, r) for r in votes]
    )


def test_where_a_rater_abstains_nothing_counts():
    probs, votes, _ = random_case(1)
    hard = probs.argmax(0)
    voted = np.random.default_rng(0).random(votes.shape) > 0.3
    voted[2] = False
    spoilt = np.where(voted, votes, 255)
    found = rater_dice(hard, spoilt, num_classes=3, voted=voted)
    for r in (0, 1, 3):
        np.testing.assert_array_equal(
            found[r], dice_per_class(hard[voted[r]], votes[r][voted[r]], num_classes=3)
        )
    assert np.isnan(found[2]).all()
    errors = rater_ece(probs, spoilt, voted=voted)
    assert np.isnan(errors).tolist() == [False, False, True, False]
    assert errors[0] == pytest.approx(expected_calibration_error(probs[:, voted[0]], votes[0][voted[0]]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_mean_error_to_the_raters_is_at_least_that_to_their_mean(seed):
    probs, votes, soft = random_case(seed)
    assert rater_ece(probs, votes).mean() >= expected_calibration_error(probs, soft) - 1e-7


def test_energy_distance_by_hand():
    raters = np.array([[[1, 1, 0]], [[1, 0, 0]]], bool)  # d(Y, Y') = 1/2: E = 1/4
    prediction = np.array([[[1, 1, 1]]], bool)  # d = 1/3 and 2/3
    assert generalised_energy_distance(prediction, raters)[0] == pytest.approx(2 * 0.5 - 0 - 0.25)
    assert generalised_energy_distance(raters, raters)[0] == 0
    one = raters[:1]
    assert generalised_energy_distance(prediction, one)[0] == pytest.approx(2 / 3)


def test_energy_distance_of_empty_masks():
    nothing, something = np.zeros((1, 1, 4), bool), np.ones((1, 1, 4), bool)
    assert generalised_energy_distance(nothing, nothing)[0] == 0
    assert generalised_energy_distance(nothing, something)[0] == 2
    half = np.concatenate([nothing, something])
    assert generalised_energy_distance(half, half[::-1].copy())[0] == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_energy_distance_equals_the_slow_version_and_is_never_negative(seed, samples, raters):
    rng = np.random.default_rng(seed)
    drawn, votes = rng.random((samples, 2, 7)) > rng.random(), rng.random((raters, 2, 7)) > rng.random()
    keep = rng.random(7) > 0.2
    slowly = [slow.energy_distance(drawn[:, k][:, keep], votes[:, k][:, keep]) for k in range(2)]
    assert min(slowly) >= -1e-12
    found = generalised_energy_distance(drawn, votes, mask=keep)
    np.testing.assert_allclose(found, slowly, atol=1e-12)
    assert ((found >= 0) & (found <= 2)).all()
    np.testing.assert_allclose(generalised_energy_distance(votes, drawn, mask=keep), found, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_counting_patterns_equals_products(masked, monkeypatch):
    rng = np.random.default_rng(5)
    drawn, votes = rng.random((3, 2, 300)) > 0.4, rng.random((4, 2, 300)) > 0.7
    keep = rng.random(300) > 0.3 if masked else None
    found = pair_counts(drawn, votes, mask=keep)
    monkeypatch.setattr(module, "PIECE", 64)
    assert torch.equal(pair_counts(drawn, votes, mask=keep), found)
    monkeypatch.setattr(module, "PATTERN_MASKS", 6)  # seven masks: by products
    assert torch.equal(pair_counts(drawn, votes, mask=keep), found)


def test_pieces_add_up_and_count_exactly(monkeypatch):
    rng = np.random.default_rng(2)
    drawn, votes = rng.random((2, 2, 50)) > 0.5, rng.random((3, 2, 50)) > 0.5
    whole = pair_counts(drawn, votes)
    monkeypatch.setattr(module, "PIECE", 7)
    assert torch.equal(pair_counts(drawn, votes), whole)
    assert whole.dtype == torch.float64
    assert whole[1, 0, 2] == (drawn[0, 1] & votes[0, 1]).sum()
    assert ged_from_counts(torch.stack([whole, whole]), samples=2).shape == (2, 2)


def test_level_sets_are_nested_and_have_the_probability_as_their_mean():
    p = np.array([0.0, 0.05, 0.3, 0.31, 0.5, 0.999, 1.0])
    sets = level_sets(two(p))[:, 0]
    assert sets.shape == (10, 7)
    assert (sets[1:].int() <= sets[:-1].int()).all()
    np.testing.assert_allclose(sets.double().mean(0), p, atol=0.0501)
    # of a hard map all are the hard map
    hard = level_sets(two([0.0, 1.0]))
    assert (hard == torch.tensor([False, True])).all()


def test_level_sets_of_the_raters_mean_come_nearer_to_nested_raters_than_a_hard_mask():
    raters = np.arange(20) < np.array([[8], [10], [12], [14]])  # outlines of different size
    p = raters.mean(0)
    votes = raters[:, None]
    soft = generalised_energy_distance(level_sets(two(p)), votes)[0]
    hard = generalised_energy_distance((p > 0.5)[None, None], votes)[0]
    assert soft < 0.05 * hard


def test_class_masks():
    labels = np.array([[0, 1, 2], [2, 2, 0]])
    assert class_masks(labels, num_classes=3).int().tolist() == [
        [[0, 1, 0], [0, 0, 1]],
        [[0, 0, 0], [1, 1, 0]],
    ]


def test_refusals():
    masks = np.ones((2, 1, 3), bool)
    with pytest.raises(TypeError, match="`samples` to hold booleans, a mask per class"):
        generalised_energy_distance(masks.astype(int), masks)
    with pytest.raises(
        ValueError, match=r"`raters` of shape \(at least 1, classes, \*spatial\), got \(0, 1, 3\)"
    ):
        generalised_energy_distance(masks, masks[:0])
    with pytest.raises(ValueError, match=r"`raters` of shape \(1, 3\) to match `samples`, got \(1, 2\)"):
        generalised_energy_distance(masks, masks[..., :2])
    with pytest.raises(ValueError, match=r"`raters` of shape \(raters, \*spatial\)"):
        rater_dice(np.zeros(3, int), np.zeros(3, int), num_classes=2)
    with pytest.raises(ValueError, match=r"levels in \(0, 1\]"):
        level_sets(two([0.5]), thresholds=[0])
    with pytest.raises(TypeError, match="`labels` to hold integers"):
        class_masks(np.zeros((1, 2)), num_classes=2)
