import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_dml.metrics import (
    adaptive_calibration_error,
    adaptive_classwise_counts,
    adaptive_counts,
    adaptive_error_bound_from_counts,
    adaptive_error_from_counts,
    complements,
    expected_calibration_error,
)
from nnunet_dml.metrics._bins import FINE_BINS, binned_sums, equal_width, fine, fine_widths
from tests.metrics.cases import one_hot, random_case, two
from tests.reference import metrics as slow


def test_by_hand():
    probs, labels = two([0.6, 0.7, 0.9, 1.0]), np.array([0, 1, 1, 1])
    assert adaptive_calibration_error(probs, labels, bins=2) == pytest.approx((0.3 + 0.1) / 4)
    assert adaptive_calibration_error(probs, labels, bins=1) == pytest.approx(0.2 / 4)
    assert adaptive_calibration_error(probs, labels, bins=4) == pytest.approx((0.6 + 0.3 + 0.1 + 0) / 4)


def test_voxels_of_one_confidence_share_what_they_have():
    # no order among equals: both bins get one and a half right of three times 0.75, whatever came first
    for labels in ([1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]):
        value = adaptive_calibration_error(two([0.75] * 4), np.array(labels), bins=2)
        assert value == pytest.approx(0.25)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.booleans(), st.sampled_from([0.5, 3.0, 12.0]))
def test_sorting_gives_the_same_within_the_bound(seed, bins, hard, sharpness):
    probs, votes, soft = random_case(seed, shape=(60,), sharpness=sharpness)
    truth = votes[0] if hard else soft
    shares = one_hot(votes[0]).astype(float) if hard else soft.astype(float)
    exact = slow.adaptive_error(*slow.top_label(probs.astype(float), shares), bins)
    counts = adaptive_counts(probs[None], truth[None])
    value, bound = (
        adaptive_error_from_counts(counts, bins=bins),
        adaptive_error_bound_from_counts(counts, bins=bins),
    )
    assert abs(float(value) - exact) <= float(bound) + 1e-9
    assert float(value) == adaptive_calibration_error(probs, truth, bins=bins)


def test_the_bound_holds_where_a_fine_bin_is_sorted_as_badly_as_can_be():
    # all confidences in one fine bin, the wrong voxels the most confident: sorted |0.3|, |0.7|; counted |0.2| twice
    confidence = 0.7 + np.arange(10) * 1e-5
    probs, labels = two(confidence), np.array([1] * 5 + [0] * 5)
    exact = slow.adaptive_error(confidence, labels.astype(float), 2)
    counts = adaptive_counts(probs[None], labels[None])
    value, bound = (f(counts, bins=2) for f in (adaptive_error_from_counts, adaptive_error_bound_from_counts))
    assert exact == pytest.approx(0.5, abs=1e-3)
    assert float(value) == pytest.approx(0.2, abs=1e-3)
    assert exact - value <= bound <= 0.51
    # a little apart from one another, they are told apart
    probs = two(0.6 + np.arange(10) * 0.01)
    counts = adaptive_counts(probs[None], labels[None])
    assert adaptive_error_from_counts(counts, bins=2) == pytest.approx(0.5, abs=0.05)
    assert adaptive_error_bound_from_counts(counts, bins=2) == 0  # the border lies between two fine bins


def test_exact_without_ties_in_a_fine_bin():
    # 8 of 40 per bin: numpy's array_split of sorted values
    rng = np.random.default_rng(0)
    values, hit = np.linspace(0.51, 0.99, 40), rng.random(40) > 0.3
    order = rng.permutation(40)
    wanted = np.mean(
        [abs((h - v).mean()) for v, h in zip(np.array_split(values, 5), np.array_split(hit, 5), strict=True)]
    )
    found = adaptive_calibration_error(two(values[order]), hit[order].astype(int), bins=5)
    assert found == pytest.approx(wanted, abs=1e-12)


def test_it_sees_what_ten_bins_of_equal_width_hide():
    # sure voxels: half of them 0.999 and wrong now and then, half of them 0.9 and always right
    confidence = np.repeat([0.999, 0.9001], 500)
    hit = np.ones(1000, int)
    hit[:50] = 0
    probs = two(confidence)
    assert expected_calibration_error(probs, hit) < 0.002  # both in [0.9, 1]: they cancel
    assert adaptive_calibration_error(probs, hit) == pytest.approx(np.mean([0.099, 0.0999]))


def test_classes_and_regions():
    probs, votes, _ = random_case(3)
    counts = adaptive_classwise_counts(probs[None], votes[:1])
    values = adaptive_error_from_counts(counts, bins=4)
    assert values.shape == (3,)
    bounds = adaptive_error_bound_from_counts(counts, bins=4)
    for c in range(3):
        exact = slow.adaptive_error(probs[c].ravel().astype(float), (votes[0] == c).ravel().astype(float), 4)
        assert abs(float(values[c]) - exact) <= float(bounds[c]) + 1e-9
        pair = complements(probs[c : c + 1])
        other = adaptive_classwise_counts(pair, (votes[0] == c).astype(int)[None])
        assert adaptive_error_from_counts(other, bins=4)[1] == pytest.approx(float(values[c]))


def test_undefined_without_voxels_and_refused_without_bins():
    probs, votes, _ = random_case(4)
    nobody = np.zeros(votes[0].shape, bool)
    assert np.isnan(adaptive_calibration_error(probs, votes[0], mask=nobody))
    counts = adaptive_counts(probs[None], votes[:1], mask=nobody[None])
    assert np.isnan(adaptive_error_bound_from_counts(counts))
    with pytest.raises(ValueError, match="`bins` to be at least 1"):
        adaptive_error_from_counts(counts, bins=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fine_bins_are_in_order_and_as_wide_as_they_say(dtype):
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(20_000, generator=generator, dtype=dtype)
    tail = 10 ** (-9 * u[:5000])
    values = torch.cat(
        [u, tail, 1 - tail, torch.tensor([0, 0.5, 1, torch.nextafter(torch.tensor(0.5), torch.tensor(0))])]
    )
    values = values.sort().values
    place = fine(values)
    assert (place.diff() >= 0).all()
    assert place[0] == 0
    assert place[-1] == FINE_BINS - 1
    low, high = (
        torch.full((FINE_BINS,), 2.0, dtype=torch.float64),
        torch.full((FINE_BINS,), -1.0, dtype=torch.float64),
    )
    low.scatter_reduce_(0, place.long(), values.double(), "amin")
    high.scatter_reduce_(0, place.long(), values.double(), "amax")
    used = high >= 0
    assert (high - low)[used].le(fine_widths()[used]).all()
    assert fine_widths()[place.long()].le(torch.minimum(values, 1 - values).double() / 64 + 2e-7).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1500), st.sampled_from([torch.float32, torch.float64]))
def test_the_float_nearest_to_a_border_opens_the_bin_for_any_number_of_bins(bins, dtype):
    k = torch.arange(bins, dtype=torch.float64)
    edges = (k / bins).to(dtype)
    assert torch.equal(equal_width(edges, bins), k.int())
    below = torch.nextafter(edges[1:], torch.zeros((), dtype=dtype))
    assert torch.equal(equal_width(below, bins), k[:-1].int())
    assert equal_width(torch.ones(1, dtype=dtype), bins).item() == bins - 1


def test_what_rounding_left_outside_goes_to_the_ends_and_what_is_no_number_stays_visible():
    values = torch.tensor([-1e-4, 1.0004, torch.inf, torch.nan])
    assert equal_width(values, 10).tolist()[:2] == [0, 9]
    assert fine(values).tolist()[:2] == [0, FINE_BINS - 1]
    for place, bins in ((equal_width(values, 10), 10), (fine(values), FINE_BINS)):
        assert 0 <= place.min() <= place.max() < bins
        sums = binned_sums(place, values, values, bins=bins, keep=None)
        assert sums[0].sum() == 4
        assert sums[1].sum().isnan()
