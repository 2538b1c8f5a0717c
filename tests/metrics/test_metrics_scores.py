import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_dml.metrics import (
    brier_counts,
    brier_from_counts,
    brier_score,
    complements,
    negative_log_likelihood,
    nll_counts,
    nll_from_counts,
)
from tests.metrics.cases import one_hot, random_case, two
from tests.reference import metrics as slow


def test_by_hand():
    probs, labels = two([0.9, 0.5, 0.2]), np.array([1, 0, 0])
    assert brier_score(probs, labels) == pytest.approx(2 * (0.01 + 0.25 + 0.04) / 3)
    assert negative_log_likelihood(probs, labels) == pytest.approx(-np.log([0.9, 0.5, 0.8]).mean())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_equal_the_slow_versions(seed, hard):
    probs, votes, soft = random_case(seed)
    truth, shares = (votes[0], one_hot(votes[0]).astype(float)) if hard else (soft, soft.astype(float))
    assert brier_score(probs, truth) == pytest.approx(slow.brier(probs.astype(float), shares), rel=1e-5)
    assert negative_log_likelihood(probs, truth) == pytest.approx(
        slow.nll(probs.astype(float), shares), rel=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_nothing_scores_better_than_the_labels_themselves(seed):
    probs, _, soft = random_case(seed)
    assert brier_score(soft, soft) == 0 <= brier_score(probs, soft)
    counts = nll_counts(probs[None], soft[None])
    best = negative_log_likelihood(soft, soft)
    assert best == pytest.approx(float(counts[2] / counts[0]), abs=1e-6)
    assert best <= negative_log_likelihood(probs, soft) + 1e-6


def test_the_mean_over_raters_is_higher_by_their_own_variance():
    probs, votes, soft = random_case(0)
    each = np.mean([brier_score(probs, rater) for rater in votes])
    variance = (soft * (1 - soft)).sum(0).mean()
    assert each - variance == pytest.approx(brier_score(probs, soft), rel=1e-5)
    # the log-likelihood is linear in the labels: no difference
    each = np.mean([negative_log_likelihood(probs, rater) for rater in votes])
    assert each == pytest.approx(negative_log_likelihood(probs, soft), rel=1e-5)


def test_a_certain_error_costs_as_much_as_the_clamp_says():
    probs = two([0.0, 1.0], np.float32)
    assert negative_log_likelihood(probs, np.array([1, 1])) == pytest.approx(-np.log(1e-7) / 2, rel=1e-6)
    assert negative_log_likelihood(probs, probs[[1, 0]]) == pytest.approx(-np.log(1e-7), rel=1e-6)
    assert brier_score(probs, np.array([1, 0])) == 2


def test_regions_and_nothing():
    p, y = np.array([[0.9, 0.4]]), np.array([[True, True]])
    assert brier_score(complements(p)[0], complements(y)[0]) == pytest.approx(2 * (0.01 + 0.36) / 2)
    nobody = np.zeros(2, bool)
    assert np.isnan(brier_score(two(p[0]), y[0].astype(int), mask=nobody))
    assert np.isnan(negative_log_likelihood(two(p[0]), y[0].astype(int), mask=nobody))


def test_refuses_logits():
    for metric in (brier_score, negative_log_likelihood):
        with pytest.raises(ValueError, match="Logits need a softmax first"):
            metric(two([2.0]), np.array([1]))


def test_values_of_cases_are_finished_one_by_one():
    cases = [random_case(seed) for seed in (1, 2)]
    for counts, finish, whole in (
        (brier_counts, brier_from_counts, brier_score),
        (nll_counts, nll_from_counts, negative_log_likelihood),
    ):
        table = torch.stack([counts(p[None], y[None]) for p, _, y in cases])
        np.testing.assert_allclose(finish(table), [whole(p, y) for p, _, y in cases])


def test_pytorch_and_scikit_learn_agree():
    probs, votes, soft = random_case(3)
    logits = torch.from_numpy(probs).log()[None]
    for truth in (torch.from_numpy(votes[0])[None], torch.from_numpy(soft)[None]):
        theirs = torch.nn.functional.cross_entropy(logits, truth)
        assert negative_log_likelihood(probs, truth[0]) == pytest.approx(float(theirs), rel=1e-5)
    metrics = pytest.importorskip("sklearn.metrics")
    labels = (votes[0] == 1).ravel()
    p = probs[1].astype(float)
    # scikit-learn's binary score has one of the two classes
    theirs = metrics.brier_score_loss(labels, p.ravel())
    assert brier_score(two(p.ravel()), labels.astype(int)) == pytest.approx(2 * theirs)
    assert negative_log_likelihood(two(p.ravel()), labels.astype(int)) == pytest.approx(
        metrics.log_loss(labels, p.ravel())
    )
