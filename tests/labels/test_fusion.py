import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnunet_dml.labels import FUSIONS, fuse, fusion, majority_vote, rater_dice, rater_weights
from tests.reference import fusion as reference

STREAMING = FUSIONS[:-1]  # STAPLE has tests of its own
THREE = np.array([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0]])  # the vote is 0 0 1 1; Dice 4/5, 1, 2/3


@st.composite
def raters(draw):
    classes = draw(st.integers(1, 4))
    shape = draw(
        st.one_of(st.tuples(st.integers(1, 4), st.integers(1, 4)), st.tuples(*[st.integers(1, 3)] * 3))
    )
    count = draw(st.integers(1, 5))
    dtype = draw(st.sampled_from([np.uint8, np.int16, np.int64]))
    return classes, draw(hnp.arrays(dtype, (count, *shape), elements=st.integers(0, classes - 1)))


class TestValues:
    def test_by_hand(self):
        weights = np.array([4 / 5, 1, 2 / 3]) / (4 / 5 + 1 + 2 / 3)
        np.testing.assert_allclose(rater_dice(THREE), [4 / 5, 1, 2 / 3])
        np.testing.assert_allclose(rater_weights(THREE), weights)
        expected = [0, weights[0], 1, weights[0] + weights[1]]
        np.testing.assert_allclose(fuse(THREE, method="weighted")[1], expected, rtol=1e-6)
        np.testing.assert_allclose(fuse(THREE, method="uniform")[1], [0, 1 / 3, 1, 2 / 3], rtol=1e-6)
        np.testing.assert_array_equal(fuse(THREE, method="majority")[1], [0, 0, 1, 1])

    def test_ties_go_to_the_lowest_label_and_are_counted(self):
        # 1 against 2; three labels once each; 2 twice and 0 twice; unanimous
        masks = np.array([[1, 0, 2, 3], [2, 1, 2, 3], [1, 2, 0, 3], [2, 2, 0, 3]])
        labels, ties = majority_vote(masks)
        np.testing.assert_array_equal(labels, [1, 2, 0, 3])
        assert ties == 2

    def test_a_tie_below_the_winner_is_none(self):
        labels, ties = majority_vote(np.array([[1], [2], [3], [3]]))
        assert (labels.tolist(), ties) == ([3], 0)

    def test_weight_zero_stays_zero(self):
        masks = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]])
        np.testing.assert_allclose(rater_weights(masks), [0.5, 0.5, 0])
        np.testing.assert_array_equal(fuse(masks, method="weighted")[1], [1, 1, 0, 0])

    def test_all_zero_falls_back_to_uniform(self):
        masks = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
        np.testing.assert_array_equal(rater_dice(masks), [0, 0, 0])
        np.testing.assert_allclose(rater_weights(masks), [1 / 3] * 3)
        np.testing.assert_array_equal(fuse(masks, method="weighted"), fuse(masks, method="uniform"))

    def test_both_empty_counts_one(self):
        masks = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1]])
        np.testing.assert_array_equal(rater_dice(masks), [1, 1, 0])

    def test_mean_over_foreground_classes(self):
        # the vote is 1 2 0: rater 2 agrees on class 1 and misses class 2
        masks = np.array([[1, 2, 0], [1, 2, 0], [1, 0, 0]])
        np.testing.assert_allclose(rater_dice(masks), [1, 1, 0.5])
        # a third foreground class that nobody marked counts 1 for everybody
        np.testing.assert_allclose(rater_dice(masks, num_classes=4), [1, 1, 2 / 3])

    @pytest.mark.parametrize("method", FUSIONS)
    @pytest.mark.parametrize("value", [0, 2])
    def test_single_rater_is_exact(self, method, value):
        mask = np.full((1, 3, 2), value, dtype=np.uint8)
        expected = np.zeros((3, 3, 2), dtype=np.float32)
        expected[value] = 1
        fused = fuse(mask, method=method, num_classes=3)
        np.testing.assert_array_equal(fused, expected)
        assert fused.dtype == np.float32

    @pytest.mark.parametrize("method", FUSIONS)
    def test_all_empty(self, method):
        masks = np.zeros((4, 2, 2), dtype=np.uint8)
        np.testing.assert_array_equal(fuse(masks, method=method), np.ones((1, 2, 2)))
        np.testing.assert_array_equal(fuse(masks, method=method, num_classes=2)[1], np.zeros((2, 2)))

    @pytest.mark.parametrize("method", FUSIONS)
    def test_unanimity_is_exactly_one(self, method):
        rng = np.random.default_rng(0)
        masks = rng.integers(0, 2, (11, 9, 9))
        masks[:, 0] = 1
        assert (fuse(masks, method=method)[1, 0] == 1).all()

    def test_bool_is_binary(self):
        np.testing.assert_array_equal(fuse(THREE > 0, method="weighted"), fuse(THREE, method="weighted"))

    @pytest.mark.parametrize(("classes", "dtype"), [(2, np.uint8), (256, np.uint8), (257, np.uint16)])
    def test_dtype_of_the_vote(self, classes, dtype):
        labels, _ = majority_vote(np.full((1, 2), classes - 1), num_classes=classes)
        assert labels.dtype == dtype
        assert (labels == classes - 1).all()


class TestAgainstReference:
    @given(raters())
    @settings(max_examples=150, deadline=None)
    def test_equal(self, example):
        classes, masks = example
        kept = masks.copy()
        labels, ties = majority_vote(masks, num_classes=classes)
        wanted, wanted_ties = reference.majority(masks, classes)
        np.testing.assert_array_equal(labels, wanted)
        assert ties == wanted_ties
        np.testing.assert_allclose(rater_dice(masks, num_classes=classes), reference.dice(masks, classes))
        np.testing.assert_allclose(
            rater_weights(masks, num_classes=classes), reference.weights(masks, classes)
        )
        for method in STREAMING:
            fused = fuse(masks, method=method, num_classes=classes)
            assert fused.shape == (classes, *masks.shape[1:])
            np.testing.assert_allclose(fused, reference.fuse(masks, method, classes), atol=1e-6)
            np.testing.assert_allclose(fused.sum(axis=0), 1, atol=1e-6)
        np.testing.assert_array_equal(masks, kept)

    @given(raters(), st.randoms(use_true_random=False))
    @settings(max_examples=50, deadline=None)
    def test_order_of_raters_and_kind_of_container_do_not_matter(self, example, random):
        classes, masks = example
        order = list(range(len(masks)))
        random.shuffle(order)
        for method in FUSIONS:
            fused = fuse(masks, method=method, num_classes=classes)
            shuffled = fuse([masks[r] for r in order], method=method, num_classes=classes)
            np.testing.assert_allclose(fused, shuffled, atol=1e-6)

    def test_two_against_two_come_out_the_same_in_any_order(self):
        """STAPLE's fit is at a saddle there: rounding decides."""
        masks = np.array([[[1, 0, 1]], [[0, 1, 1]]] * 2, dtype=np.uint8)
        found = {fuse(masks[list(order)], method="staple").tobytes() for order in permutations(range(4))}
        assert len(found) == 1

    @given(raters())
    @settings(max_examples=50, deadline=None)
    def test_default_number_of_classes(self, example):
        _, masks = example
        largest = int(masks.max())
        for method in FUSIONS:
            expected = fuse(masks, method=method, num_classes=largest + 1)
            np.testing.assert_array_equal(fuse(masks, method=method), expected)


@given(raters(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_uniform_follows_the_names_of_the_classes(example, random):
    classes, masks = example
    renamed = list(range(classes))
    random.shuffle(renamed)
    fused = fuse(np.array(renamed)[masks], method="uniform", num_classes=classes)
    np.testing.assert_array_equal(fused[renamed], fuse(masks, method="uniform", num_classes=classes))


@pytest.mark.parametrize("method", FUSIONS)
def test_names_of_the_fusions(method):
    assert FUSIONS == ("majority", "uniform", "weighted", "staple")
    assert fuse(THREE, method=method).shape == (2, 4)


class TestErrors:
    @pytest.mark.parametrize(
        ("masks", "classes", "message"),
        [
            (np.zeros((2, 3)), None, "integer dtype, got float64.*Cast with"),
            (np.array([[0, -1]]), None, "labels in `masks` of at least 0, got -1"),
            (np.array([[0, 0], [0, 2]]), 2, r"below `num_classes` = 2, got 2 \(rater 1\)"),
            (np.zeros((0, 3), dtype=int), None, "at least one rater, got none"),
            ([], None, "at least one rater, got none"),
            (
                [np.zeros((2, 2), int), np.zeros((2, 3), int)],
                None,
                r"`masks\[1\]` of shape \(2, 2\).*got \(2, 3\)",
            ),
            (np.zeros((3, 0), dtype=int), None, r"shape \(raters, \*spatial\)"),
            (np.zeros(3, dtype=int), None, r"shape \(raters, \*spatial\)"),
            (np.zeros((1, 3), dtype=int), 0, "`num_classes` of at least 1, got 0"),
        ],
    )
    def test_message(self, masks, classes, message):
        for function in (majority_vote, rater_dice, rater_weights):
            with pytest.raises(ValueError, match=message):
                function(masks, num_classes=classes)
        for method in FUSIONS:
            with pytest.raises(ValueError, match=message):
                fuse(masks, method=method, num_classes=classes)

    def test_method(self):
        with pytest.raises(
            ValueError, match=r"`method` to be one of .*'majority', 'uniform', 'weighted'.*got 'mean'"
        ):
            fuse(THREE, method="mean")

    def test_one_shot_generator(self):
        with pytest.raises(TypeError, match="iterated twice, got a generator"):
            fuse((mask for mask in THREE), method="weighted")

    def test_raters_lost_between_iterations(self):
        class Shrinking:
            left = 3

            def __iter__(self):
                yield from THREE[: self.left]
                self.left -= 1

        with pytest.raises(ValueError, match="3 raters again, got 2 the second time"):
            fuse(Shrinking(), method="weighted")


class _Generated:
    """Maps that exist only while they are looked at."""

    def __init__(self, count):
        self.count = count
        self.iterations = 0

    def __iter__(self):
        self.iterations += 1
        for r in range(self.count):
            mask = np.zeros((128, 512), dtype=np.uint8)
            mask[r % 7 :] = 1
            mask[:, : r % 5] = 2
            yield mask


@pytest.mark.parametrize("method", STREAMING)
@pytest.mark.parametrize("ignore", [None, 3])
def test_memory_does_not_grow_with_the_raters(method, ignore):
    peaks = []
    for count in (3, 30):
        masks = _Generated(count)
        fuse(masks, method=method, num_classes=3, ignore_label=ignore)  # imports and caches
        tracemalloc.start()
        fuse(masks, method=method, num_classes=3, ignore_label=ignore)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert masks.iterations <= 4  # twice per call
    assert peaks[0] > 3 * 4 * 128 * 512  # the result itself was traced
    assert peaks[1] <= 1.1 * peaks[0]


@pytest.mark.parametrize("ignore", [None, 9])
def test_more_raters_than_a_byte_can_count(ignore):
    raters = [np.array([0, 1, 1], dtype=np.uint8)] * 255 + [np.array([2, 0, 1], dtype=np.uint8)] * 200
    expected = [[255, 200, 0], [0, 255, 455], [200, 0, 0]]
    fused = fuse(raters, method="uniform", ignore_label=ignore)
    np.testing.assert_array_equal(fused[:3], np.divide(expected, 455).astype(np.float32))
    np.testing.assert_array_equal(majority_vote(raters, ignore_label=ignore)[0], [0, 1, 1])


def test_voxels_are_counted_in_pieces(monkeypatch):
    raters = np.random.default_rng(0).integers(0, 4, (5, 6, 7))
    raters[2:, 0, :3] = 9
    whole = fuse(raters, method="weighted", num_classes=4, ignore_label=9)
    monkeypatch.setattr(fusion, "_PIECE", 5)
    np.testing.assert_array_equal(fuse(raters, method="weighted", num_classes=4, ignore_label=9), whole)
