"""Temperature: found where it is known, held by its bounds, applied in log space."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_dml.calibration import apply_temperature, fit_temperature, logits_of
from nnunet_dml.calibration.temperature import BOUNDS
from tests.calibration.helpers import one_hot_rows, probabilities
from tests.reference.calibration import negative_log_likelihood


def drawn(n, classes, *, factor, seed=0):
    """Logits that are `factor` times too great for the labels drawn."""
    random = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(n, classes, generator=random)
    return factor * z, torch.eye(classes)[torch.multinomial(z.softmax(1), 1, generator=random)[:, 0]]


@pytest.mark.parametrize("classes", [2, 3, 20])
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_known_temperature_is_found(classes, factor):
    logits, labels = drawn(20000, classes, factor=factor)
    fit = fit_temperature(logits, labels)
    assert fit.temperature == pytest.approx(factor, rel=0.05)
    assert fit.nll < fit.nll_before
    assert not fit.at_bound


def test_a_known_temperature_of_regions_is_found():
    z = 2 * torch.randn(20000, 3)
    fit = fit_temperature(3 * z, torch.bernoulli(z.sigmoid()), independent=True)
    assert fit.temperature == pytest.approx(3, rel=0.05)
    assert not fit.at_bound


@given(seed=st.integers(0, 999), classes=st.integers(2, 6), factor=st.floats(0.2, 8))
def test_no_other_temperature_is_likelier(seed, classes, factor):
    logits, labels = drawn(30, classes, factor=factor, seed=seed)
    labels = 0.9 * labels + 0.1 / classes  # soft
    fit = fit_temperature(logits, labels)
    assert fit.nll == pytest.approx(negative_log_likelihood(logits, labels, fit.temperature), rel=1e-9)
    assert fit.nll_before == pytest.approx(negative_log_likelihood(logits, labels, 1.0), rel=1e-9)
    for other in np.geomspace(*BOUNDS, 50):
        assert fit.nll <= negative_log_likelihood(logits, labels, float(other)) + 1e-9


def test_log_probabilities_serve_as_logits():
    logits, labels = drawn(500, 3, factor=2.0)
    straight, through = fit_temperature(logits, labels), fit_temperature(logits_of(logits.softmax(1)), labels)
    assert through.temperature == pytest.approx(straight.temperature, rel=1e-3)


@pytest.mark.parametrize("independent", [False, True])
def test_masks_that_are_all_right_end_at_the_lower_bound(independent):
    labels = one_hot_rows(50, 2)
    fit = fit_temperature(6 * labels - 3, labels, independent=independent)
    assert fit.temperature == BOUNDS[0]
    assert fit.at_bound
    # so wrong that only a flat answer is right
    fit = fit_temperature(3 - 6 * labels, labels, independent=independent, bounds=(0.5, 4.0))
    assert (fit.temperature, fit.at_bound) == (4.0, True)


def test_where_nothing_is_better_the_temperature_is_one():
    fit = fit_temperature(torch.zeros(5, 3), one_hot_rows(5, 3))  # every temperature gives 1/3
    assert (fit.temperature, fit.at_bound) == (1.0, False)
    certain = 1e4 * one_hot_rows(5, 3)
    assert fit_temperature(certain, one_hot_rows(5, 3)).temperature == 1.0


def test_bounds_without_one_are_kept():
    logits, labels = drawn(500, 3, factor=1.0)
    assert fit_temperature(logits, labels, bounds=(2.0, 9.0)).temperature == 2.0
    flat = fit_temperature(torch.zeros(5, 3), one_hot_rows(5, 3), bounds=(2.0, 9.0))
    assert (flat.temperature, flat.at_bound) == (2.0, True)


def test_a_temperature_by_hand():
    """0.8 : 0.2 = 4 : 1 becomes 2 : 1 at T = 2 and 16 : 1 at T = 0.5."""
    probs = torch.tensor([[0.8, 0.2]])
    torch.testing.assert_close(apply_temperature(probs, 2.0), torch.tensor([[2 / 3, 1 / 3]]))
    torch.testing.assert_close(apply_temperature(probs, 0.5), torch.tensor([[16 / 17, 1 / 17]]))
    torch.testing.assert_close(
        apply_temperature(probs, 2.0, independent=True), torch.tensor([[2 / 3, 1 / 3]])
    )


@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 4, 5)])
@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("temperature", [0.05, 0.7, 20.0])
def test_it_is_applied_to_the_logits(shape, independent, temperature):
    logits = 3 * torch.randn(2, 3, *shape, dtype=torch.float64)
    make = torch.sigmoid if independent else lambda z: z.softmax(1)
    probs = make(logits)
    before = probs.clone()
    got = apply_temperature(probs, temperature, independent=independent)
    torch.testing.assert_close(got, make(logits / temperature))
    assert torch.equal(probs, before)
    torch.testing.assert_close(apply_temperature(probs, 1.0, independent=independent), probs)


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_zero_and_one_stay_finite(independent, dtype):
    probs = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]], dtype=dtype, requires_grad=True)
    for temperature in (0.05, 1.0, 20.0):
        got = apply_temperature(probs, temperature, independent=independent)
        assert got.dtype == torch.float32
        assert not got.requires_grad
        torch.testing.assert_close(got.sum(1), torch.ones(3))
        torch.testing.assert_close(got[2], torch.tensor([0.5, 0.5]))
        assert got[0, 1] > 0.98
    logits = logits_of(probs.detach(), independent=independent)
    assert logits.isfinite().all()
    assert float(logits[0, 0]) == pytest.approx(math.log(1.1754944e-38))


ROWS = torch.full((4, 2), 0.5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: fit_temperature(ROWS[:0], ROWS[:0]), ValueError, "at least one row"),
        (lambda: fit_temperature(ROWS[None], ROWS[None]), ValueError, r"`logits` of shape \(N, C\)"),
        (lambda: fit_temperature(ROWS, ROWS[:, 0].double()), ValueError, "`labels` of shape .*one_hot"),
        (lambda: fit_temperature(ROWS, ROWS.long()), TypeError, "`labels` of a floating"),
        (lambda: fit_temperature(ROWS.long(), ROWS), TypeError, "`logits` of a floating"),
        (lambda: fit_temperature(ROWS, ROWS, bounds=(0.0, 2.0)), ValueError, "`bounds` with 0 < low < high"),
        (lambda: fit_temperature(ROWS, ROWS, bounds=(2.0, 1.0)), ValueError, "`bounds` with"),
        (lambda: apply_temperature(ROWS, 0.0), ValueError, "`temperature` above 0"),
        (lambda: apply_temperature(ROWS, math.inf), ValueError, "`temperature` above 0"),
        (lambda: apply_temperature(ROWS[0], 1.0), ValueError, "`probs` of shape"),
        (lambda: apply_temperature(ROWS.long(), 1.0), TypeError, "`probs` of a floating"),
    ],
)
def test_bad_arguments_of_a_temperature_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_temperature_does_not_change_the_order():
    probs = probabilities(50, 4)
    for temperature in (0.3, 5.0):
        assert torch.equal(apply_temperature(probs, temperature).argmax(1), probs.argmax(1))
