import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnunet_dml.metrics import bdice, bdice_counts, bdice_from_counts, dice, dice_per_class
from nnunet_dml.metrics.overlap import thresholds_both_empty
from tests.reference import metrics as slow

shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)


def two(foreground, dtype=np.float64):
    p = np.asarray(foreground, dtype=dtype)
    return np.stack([1 - p, p])


@st.composite
def cases(draw, classes=3):
    """Probabilities and a mean of raters, `(C, *spatial)` in thousandths so that exact fractions exist."""
    shape = draw(shapes)
    raters = draw(st.integers(1, 10))
    votes = draw(hnp.arrays(np.int64, (raters, *shape), elements=st.integers(0, classes - 1)))
    soft = np.stack([(votes == c).mean(0, dtype=np.float32) for c in range(classes)])
    cuts = draw(hnp.arrays(np.int64, (classes - 1, *shape), elements=st.integers(0, 1000)))
    cuts = np.sort(cuts, axis=0)
    edges = np.concatenate([np.zeros((1, *shape)), cuts, np.full((1, *shape), 1000)])
    return (np.diff(edges, axis=0) / 1000).astype(np.float32), soft


def test_dice_by_hand():
    prediction = np.array([[1, 1, 0], [0, 1, 0]])
    reference = np.array([[1, 0, 0], [0, 1, 1]])
    assert dice(prediction, reference) == pytest.approx(2 * 2 / (3 + 3))
    assert dice(prediction.astype(bool), reference.astype(bool)) == dice(prediction, reference)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [([0, 0], [0, 0], 1.0), ([1, 0], [0, 0], 0.0), ([0, 0], [1, 0], 0.0), ([1, 0], [1, 0], 1.0)],
)
def test_dice_of_empty_masks(prediction, reference, expected):
    assert dice(np.array(prediction), np.array(reference)) == expected


@given(hnp.arrays(bool, st.tuples(st.just(2), st.integers(1, 30))))
def test_dice_equals_the_slow_version_and_is_symmetric(masks):
    assert dice(*masks) == pytest.approx(slow.dice(*masks), abs=1e-12)
    assert dice(*masks) == dice(*masks[::-1])


def test_dice_per_class_follows_the_classes():
    prediction, reference = np.array([0, 1, 1, 2, 2, 2]), np.array([0, 1, 2, 2, 2, 0])
    values = dice_per_class(prediction, reference, num_classes=4)
    np.testing.assert_allclose(values, [2 * 1 / 3, 2 * 2 / 6, 1.0])  # class 3 is in neither
    swap = np.array([0, 2, 1, 3])
    np.testing.assert_allclose(
        dice_per_class(swap[prediction], swap[reference], num_classes=4), values[[1, 0, 2]]
    )


def test_dice_leaves_masked_voxels_out_whatever_they_hold():
    prediction, reference = np.array([1, 0, 1]), np.array([1, 1, 255])
    keep = np.array([True, True, False])
    assert dice_per_class(prediction, reference, num_classes=2, mask=keep)[0] == pytest.approx(2 / 3)


def test_dice_refuses_probabilities_and_label_maps():
    with pytest.raises(
        TypeError, match=r"`prediction` to hold integers or booleans, got dtype torch\.float64"
    ):
        dice(np.array([0.2, 0.8]), np.array([0, 1]))
    with pytest.raises(ValueError, match="`reference` to hold 0 and 1 only"):
        dice(np.array([0, 1]), np.array([0, 2]))
    with pytest.raises(ValueError, match=r"`prediction` of shape \(3,\) to match `reference`, got \(2,\)"):
        dice(np.array([0, 1]), np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="`reference` to hold labels 0 to 1, got 0 to 2"):
        dice_per_class(np.array([0, 1]), np.array([0, 2]), num_classes=2)


def test_bdice_by_hand():
    # p ≥ t: t=.3 → 2 voxels, t=.6 → 1; y ≥ t: t=.3 → 3, t=.6 → 1 (another one)
    p, y = two([0.8, 0.5, 0.1]), two([0.4, 0.9, 0.3])
    np.testing.assert_allclose(bdice(p, y, thresholds=(0.3, 0.6)), [(4 / 5 + 0) / 2])


def test_bdice_of_a_map_with_itself_is_one():
    y = two(np.arange(8) / 7)
    assert bdice(y, y)[0] == 1.0


@pytest.mark.parametrize("raters", [2, 3, 5, 7, 10])
def test_a_fraction_that_is_a_threshold_reaches_it_however_it_was_rounded(raters):
    for votes in range(raters + 1):
        summed = np.float32(0)
        for _ in range(votes):
            summed = np.float32(summed + np.float32(1) / np.float32(raters))  # rounds at every step
        variants = [
            np.float32(votes) / np.float32(raters),
            summed,
            votes / raters,
            np.nextafter(votes / raters, 0),
        ]
        expected = sum(10 * votes >= k * raters for k in range(1, 10))  # in whole numbers
        for value in variants:
            foreground = np.array([min(value, 1)], dtype=np.asarray(value).dtype)
            counts = bdice_counts(two(foreground, foreground.dtype)[None], two([votes / raters])[None])
            assert counts[1].sum() == counts[2].sum() == counts[0].sum() == expected


def test_bdice_thresholds_that_nothing_reaches_are_decided_by_policy():
    p, y = two([0.15, 0.0]), two([0.25, 0.0])  # both reach 0.1, only y reaches 0.2, none the other seven
    assert bdice(p, y)[0] == pytest.approx((1 + 0 + 7) / 9)
    assert thresholds_both_empty(bdice_counts(p[None], y[None])).tolist() == [7]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_bdice_equals_the_slow_version(case):
    np.testing.assert_allclose(bdice(*case), slow.bdice(*case), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_bdice_counts_of_patches_add_up(case, random):
    p, y = (a.reshape(a.shape[0], -1) for a in case)
    cut = random.randint(0, p.shape[1])
    parts = [bdice_counts(p[None, :, s], y[None, :, s]) for s in (slice(0, cut), slice(cut, None))]
    np.testing.assert_array_equal(bdice_from_counts(parts[0] + parts[1]).numpy(), bdice(*case))


def test_bdice_counts_sum_over_the_batch():
    rng = np.random.default_rng(0)
    p, y = (np.stack([two(f) for f in rng.random((3, 4, 5))]) for _ in range(2))
    each = sum(bdice_counts(p[i : i + 1], y[i : i + 1]) for i in range(3))
    assert torch.equal(bdice_counts(p, y), each)
    keep = rng.random((3, 4, 5)) > 0.5
    parts = sum(bdice_counts(p[i][None][:, :, keep[i]], y[i][None][:, :, keep[i]]) for i in range(3))
    assert torch.equal(bdice_counts(p, y, mask=keep), parts)


def test_tensors_and_arrays_give_the_same_and_nothing_is_changed():
    rng = np.random.default_rng(1)
    p, y = two(rng.random((4, 5)), np.float32), two(rng.random((4, 5)), np.float32)
    before = p.copy(), y.copy()
    expected = bdice(p, y)
    np.testing.assert_array_equal(bdice(torch.from_numpy(p), torch.from_numpy(y)), expected)
    for array in (p, y):
        array.flags.writeable = False
    np.testing.assert_array_equal(bdice(p, y), expected)
    np.testing.assert_array_equal(bdice(p[:, ::-1], y[:, ::-1]), expected)  # negative strides
    np.testing.assert_array_equal(bdice(p.astype(">f4"), y), expected)  # a foreign byte order
    np.testing.assert_array_equal(np.stack([p, y]), np.stack(before))


@pytest.mark.parametrize(
    ("probs", "message"),
    [
        (np.array([[3.0], [-2.0]]), r"`probs` in \[0, 1\], got values from -2 to 3. Logits need a softmax"),
        (np.array([[np.nan], [0.5]]), "got NaN in 1 values"),
        (
            np.array([[0.5], [0.4]]),
            "`probs` to sum to one over the classes, background included, got sums up to 0.1 off",
        ),
        (np.array([[1.0]]), r"`probs` of shape \(C, \*spatial\) with the background and at least one more"),
    ],
)
def test_bdice_refuses_what_is_no_distribution(probs, message):
    with pytest.raises(ValueError, match=message):
        bdice(probs, np.full_like(probs, 1 / len(probs)))


def test_bdice_refuses_hard_labels_and_bad_thresholds():
    p = two([0.2, 0.8])
    with pytest.raises(ValueError, match="For hard labels make a one-hot map first"):
        bdice(p, np.array([0, 1]))
    with pytest.raises(TypeError, match=r"`soft_reference` to hold fractions, got dtype torch\.int64"):
        bdice(p, np.array([[1, 0], [0, 1]]))
    for thresholds in ((), (0.0,), (1.1,)):
        with pytest.raises(ValueError, match=r"levels in \(0, 1\]"):
            bdice(p, p, thresholds=thresholds)
    with pytest.raises(TypeError, match="`mask` to be boolean"):
        bdice(p, p, mask=np.array([0, 1]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_fraction_reaches_its_threshold_in_any_precision(dtype):
    # in half precision 0.9 is 0.8999
    for k in range(1, 10):
        y = two(np.array([k / 10], dtype), dtype)
        assert bdice_counts(y[None], two([k / 10])[None])[:, :, 0].sum(1).tolist() == [k, k, k]
        assert bdice_counts(two([k / 10])[None], y[None])[:, :, 0].sum(1).tolist() == [k, k, k]


def test_half_precision_probabilities_are_accepted():
    p = torch.softmax(torch.randn(3, 50, generator=torch.Generator().manual_seed(0)), 0)
    assert bdice(p.half(), p)[0] == pytest.approx(bdice(p, p)[0], abs=0.1)
