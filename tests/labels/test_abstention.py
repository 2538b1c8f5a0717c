"""Raters who did not annotate a voxel or a case."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnunet_dml.labels import FUSIONS, fuse, majority_vote, rater_dice, rater_weights
from tests.labels.test_fusion import STREAMING, THREE, raters
from tests.reference import fusion as reference


@st.composite
def abstaining(draw):
    classes, masks = draw(raters())
    ignore = draw(st.sampled_from([classes, classes + 1, 100]))
    away = draw(hnp.arrays(bool, masks.shape, elements=st.booleans()))
    return classes, ignore, np.where(away, ignore, masks).astype(masks.dtype)


class TestAbstention:
    # rater 0 abstains at 4 and 5, rater 1 at 3 and 5, rater 2 at 2 … 5; the vote is 1 1 0 1 1 9 (a tie at 2)
    MASKS = np.array([[1, 1, 1, 1, 9, 9], [1, 0, 0, 9, 1, 9], [1, 1, 9, 9, 9, 9]])

    def test_by_hand(self):
        labels, ties = majority_vote(self.MASKS, ignore_label=9)
        np.testing.assert_array_equal(labels, [1, 1, 0, 1, 1, 9])
        assert ties == 1
        # rater 0 has 1111 where the vote is 1101: 6/7; rater 1 1001 for 1101: 4/5; rater 2 11 for 11
        np.testing.assert_allclose(rater_dice(self.MASKS, ignore_label=9), [6 / 7, 4 / 5, 1])
        a, b, c = 6 / 7, 4 / 5, 1
        np.testing.assert_allclose(
            rater_weights(self.MASKS, ignore_label=9), np.array([a, b, c]) / (a + b + c)
        )
        nobody = [0, 0, 0, 0, 0, 1]
        for method, one in {
            "majority": [1, 1, 0, 1, 1, 0],
            "uniform": [1, 2 / 3, 1 / 2, 1, 1, 0],
            "weighted": [1, (a + c) / (a + b + c), a / (a + b), 1, 1, 0],
        }.items():
            expected = [1 - np.array(one) - nobody, one, nobody]
            np.testing.assert_allclose(fuse(self.MASKS, method=method, ignore_label=9), expected, atol=1e-6)

    def test_voters_without_weight_are_equal(self):
        # three raters agree; the other two miss the vote (1 1 0 0 and a tie, 0), and are alone in the last voxel
        masks = np.array([[1, 1, 0, 0, 9]] * 3 + [[0, 0, 1, 9, 0], [0, 0, 9, 1, 1]])
        np.testing.assert_array_equal(rater_dice(masks, ignore_label=9), [1, 1, 1, 0, 0])
        fused = fuse(masks, method="weighted", ignore_label=9)
        np.testing.assert_array_equal(fused, [[0, 0, 1, 1, 0.5], [1, 1, 0, 0, 0.5], [0] * 5])

    def test_a_rater_who_never_votes_changes_nothing(self):
        away = np.full((1, 4), 2)
        for method in STREAMING:
            fused = fuse(np.vstack([THREE, away]), method=method, ignore_label=2)
            np.testing.assert_array_equal(fused[:2], fuse(THREE, method=method))
            np.testing.assert_array_equal(fused[2], 0)
        assert rater_dice(np.vstack([THREE, away]), ignore_label=2)[3] == 1

    @pytest.mark.parametrize("method", STREAMING)
    @pytest.mark.parametrize("classes", [None, 3])
    def test_nobody_votes_anywhere(self, method, classes):
        masks = np.full((2, 4), 255, dtype=np.uint8)
        fused = fuse(masks, method=method, num_classes=classes, ignore_label=255)
        assert fused.shape == ((classes or 1) + 1, 4)
        np.testing.assert_array_equal(fused[-1], 1)
        np.testing.assert_array_equal(fused[:-1], 0)
        labels, ties = majority_vote(masks, num_classes=classes, ignore_label=255)
        assert (labels.tolist(), labels.dtype, ties) == ([255] * 4, np.uint8, 0)
        assert rater_weights(masks, num_classes=classes, ignore_label=255).tolist() == [0.5, 0.5]

    @pytest.mark.parametrize("method", FUSIONS)
    def test_nobody_abstains(self, method):
        fused = fuse(THREE, method=method, ignore_label=2)
        np.testing.assert_array_equal(fused, [*fuse(THREE, method=method), np.zeros(4)])

    def test_staple_refuses(self):
        with pytest.raises(ValueError, match="no way for abstaining raters; use uniform or weighted"):
            fuse(self.MASKS, method="staple", ignore_label=9)

    def test_dtype_holds_the_label(self):
        masks = np.array([[0, 300]])
        labels, _ = majority_vote(masks, ignore_label=300)
        assert (labels.tolist(), labels.dtype) == ([0, 300], np.uint16)

    def test_label_that_the_dtype_of_the_masks_cannot_hold(self):
        fused = fuse(THREE.astype(np.uint8), method="uniform", ignore_label=300)
        np.testing.assert_allclose(fused[1], [0, 1 / 3, 1, 2 / 3], rtol=1e-6)

    @pytest.mark.parametrize(
        ("masks", "classes", "ignore", "message"),
        [
            ([[0, 3, 9]], 3, 9, r"below `num_classes` = 3, got 3 \(rater 0\)"),
            ([[0, 9, 1]], 2, 8, r"below `num_classes` = 2, got 9 \(rater 0\)"),
            ([[0, 1]], 2, 1, "`ignore_label` above the labels of the 2 classes, got 1"),
            ([[0, 1, 2]], None, 1, "`ignore_label` above the labels of the 3 classes, got 1"),
            ([[0, 1]], None, -1, "`ignore_label` above the labels of the 2 classes, got -1"),
        ],
    )
    def test_refused(self, masks, classes, ignore, message):
        for function in (majority_vote, rater_dice, rater_weights):
            with pytest.raises(ValueError, match=message):
                function(np.array(masks), num_classes=classes, ignore_label=ignore)
        for method in FUSIONS:
            with pytest.raises(ValueError, match=message):
                fuse(np.array(masks), method=method, num_classes=classes, ignore_label=ignore)

    @given(abstaining(), st.randoms(use_true_random=False))
    @settings(max_examples=150, deadline=None)
    def test_equals_the_reference_in_any_order(self, example, random):
        classes, ignore, masks = example
        options = {"num_classes": classes, "ignore_label": ignore}
        labels, ties = majority_vote(masks, **options)
        wanted, wanted_ties = reference.majority(masks, classes, ignore)
        np.testing.assert_array_equal(labels, wanted)
        assert ties == wanted_ties
        np.testing.assert_allclose(rater_dice(masks, **options), reference.dice(masks, classes, ignore))
        np.testing.assert_allclose(rater_weights(masks, **options), reference.weights(masks, classes, ignore))
        order = list(range(len(masks)))
        random.shuffle(order)
        for method in STREAMING:
            fused = fuse(masks, method=method, **options)
            assert fused.dtype == np.float32
            np.testing.assert_allclose(fused, reference.fuse(masks, method, classes, ignore), atol=1e-6)
            np.testing.assert_allclose(fused.sum(axis=0), 1, atol=1e-6)
            np.testing.assert_array_equal(fused[-1], (masks == ignore).all(axis=0))
            shuffled = fuse([masks[r] for r in order], method=method, **options)
            np.testing.assert_allclose(shuffled, fused, atol=1e-6)

    @given(abstaining())
    @settings(max_examples=50, deadline=None)
    def test_default_number_of_classes(self, example):
        _, ignore, masks = example
        voted = masks[masks != ignore]
        classes = 1 + int(voted.max()) if voted.size else 1
        for method in STREAMING:
            expected = fuse(masks, method=method, num_classes=classes, ignore_label=ignore)
            np.testing.assert_array_equal(fuse(masks, method=method, ignore_label=ignore), expected)
