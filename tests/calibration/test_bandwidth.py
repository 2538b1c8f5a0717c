"""The chosen bandwidth has the lowest score, the scores are what the slow version says, the truth is found."""

import math

import numpy as np
import pytest
import torch

from nnunet_dml.calibration import bandwidth_by_brier, bandwidth_by_likelihood, kernel_calibrate
from nnunet_dml.calibration.bandwidth import GRID, LEAST
from tests.calibration.helpers import one_hot_rows, probabilities
from tests.reference.calibration import kernel_regression, kernel_regression_of_regions


def test_the_grid_goes_from_1e_5_to_1():
    assert len(GRID) == 16
    assert (GRID[0], GRID[3], GRID[-1]) == (1e-5, 1e-4, 1.0)
    np.testing.assert_allclose(np.diff(np.log10(GRID)), 1 / 3, atol=3e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_likelihood_is_that_of_each_key_without_itself(weighted):
    probs, labels = probabilities(30, 3, sharpness=1.0), probabilities(30, 3, seed=1)
    weights = torch.rand(30) + 0.5 if weighted else None
    search = bandwidth_by_likelihood(probs, labels, grid=[0.3, 0.01], key_weights=weights)
    assert search.grid == (0.01, 0.3)
    assert search.bandwidth == search.grid[int(np.argmin(search.scores))]
    for bandwidth, score in zip(search.grid, search.scores, strict=True):
        estimate = kernel_regression(
            probs.numpy(),
            probs.numpy(),
            labels.numpy(),
            bandwidth,
            range(30),
            None if weights is None else weights.tolist(),
        )
        losses = -(labels.numpy() * np.log(np.maximum(estimate, LEAST))).sum(1)
        assert score == pytest.approx(np.average(losses, weights=weights), abs=1e-5)


def test_the_likelihood_of_regions_is_the_mean_of_their_cross_entropies():
    probs, labels = torch.rand(30, 2), (torch.rand(30, 2) > 0.5).float()
    search = bandwidth_by_likelihood(probs, labels, grid=[0.1], kernel="beta")
    estimate = kernel_regression_of_regions(probs.numpy(), probs.numpy(), labels.numpy(), 0.1, range(30))
    y = labels.numpy()
    expected = -(y * np.log(estimate) + (1 - y) * np.log(1 - estimate)).mean()
    assert search.scores[0] == pytest.approx(expected, abs=1e-5)


def test_the_brier_score_is_that_of_the_estimate():
    probs, labels = probabilities(20, 3), one_hot_rows(20, 3)
    keys, key_labels = probabilities(30, 3, seed=1), one_hot_rows(30, 3, seed=1)
    weights = torch.rand(30) + 0.5
    search = bandwidth_by_brier(probs, labels, keys, key_labels, grid=[0.02, 0.5], key_weights=weights)
    for bandwidth, score in zip(search.grid, search.scores, strict=True):
        estimate = kernel_regression(
            probs.numpy(), keys.numpy(), key_labels.numpy(), bandwidth, key_weights=weights.tolist()
        )
        assert score == pytest.approx(float(((estimate - labels.numpy()) ** 2).sum(1).mean()), abs=1e-5)


def steps(n, seed):
    """One region; inside with probability 0.1 or 0.9, as p lies below or above 0.5: a step, which a wide kernel blurs."""
    random = torch.Generator().manual_seed(seed)
    probs = torch.rand(n, 1, generator=random)
    truth = torch.where(probs < 0.5, 0.1, 0.9)
    return probs, torch.bernoulli(truth, generator=random), truth


def test_both_ways_find_a_bandwidth_that_is_neither_too_small_nor_too_great():
    keys, labels, _ = steps(600, 0)
    probs, held_labels, truth = steps(600, 1)
    for search in (
        bandwidth_by_likelihood(keys, labels, kernel="beta"),
        bandwidth_by_brier(probs, held_labels, keys, labels, kernel="beta"),
    ):
        errors = {
            h: float(
                (kernel_calibrate(probs, keys, labels, bandwidth=h, kernel="beta") - truth).square().mean()
            )
            for h in GRID
        }
        assert 1e-4 < search.bandwidth < 0.1
        assert errors[search.bandwidth] < 1.5 * min(errors.values())
        assert errors[search.bandwidth] < 0.3 * min(errors[1e-5], errors[1.0])


def test_of_equal_scores_the_smallest_bandwidth_is_taken():
    probs, labels = probabilities(4, 3), torch.eye(3)[[0] * 4]  # one class: every bandwidth gives p
    assert bandwidth_by_likelihood(probs, labels, grid=[0.5, 0.1]).bandwidth == 0.1


ROWS = torch.full((4, 2), 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bandwidth_by_likelihood(ROWS[:1], ROWS[:1]), "at least two keys"),
        (lambda: bandwidth_by_likelihood(ROWS, ROWS, grid=[]), "`grid` to hold at least one"),
        (lambda: bandwidth_by_likelihood(ROWS, ROWS, grid=[0.1, 0.0]), "`bandwidth` above 0"),
        (lambda: bandwidth_by_likelihood(ROWS, ROWS, grid=[0.1, math.nan]), "`bandwidth` above 0"),
        (lambda: bandwidth_by_brier(ROWS[:0], ROWS[:0], ROWS, ROWS), "at least one held-out voxel"),
        (lambda: bandwidth_by_brier(ROWS, ROWS[:3], ROWS, ROWS), "`labels` of shape"),
    ],
)
def test_bad_arguments_of_the_search_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
