"""How much raters agree, against hand-computed values and a slow version."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_dml.metrics.agreement import agreement, fleiss_kappa
from tests.reference import agreement as slow

FIGURES = (
    "dice_majority", "dice_others", "dice_pairs", "kappa", "sizes", "majority_size", "voxels", "union", "disputed", "tied",
)  # fmt: skip


def one(raters, members=(1,), num_classes=2, voted=None):
    return agreement(np.array(raters), classes=[members], num_classes=num_classes, voted=voted)[0]


def as_floats(value):
    return np.array(value, dtype=float)  # None becomes NaN


def test_four_voxels_by_hand():
    found = one([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0]])
    # the vote is voxels 2 and 3
    np.testing.assert_allclose(found.dice_majority, [4 / 5, 1, 2 / 3])
    # of two others a voxel needs both: {2}; {2}; {2, 3}
    np.testing.assert_allclose(found.dice_others, [2 / 4, 2 / 3, 2 / 3])
    np.testing.assert_allclose(found.dice_pairs, [[1, 4 / 5, 2 / 4], [4 / 5, 1, 2 / 3], [2 / 4, 2 / 3, 1]])
    assert found.sizes.tolist() == [3, 2, 1]
    assert (found.majority_size, found.voxels, found.union, found.disputed, found.tied) == (2, 4, 3, 2, 0)
    assert found.kappa == pytest.approx((2 / 3 - 1 / 2) / (1 / 2))
    assert found.majority_both_empty == 0


def test_ties_go_to_the_lowest_label_and_a_tie_within_a_region_is_none_of_it():
    raters = np.array([[1, 1, 0], [2, 0, 2]])
    whole, first, second = agreement(raters, classes=[(1, 2), (1,), (2,)], num_classes=3)
    assert (whole.tied, first.tied, second.tied) == (2, 2, 2)
    assert (whole.majority_size, first.majority_size, second.majority_size) == (1, 1, 0)
    assert (whole.disputed, first.disputed, second.disputed) == (2, 2, 2)


def test_the_label_with_the_most_votes_wins_without_half_of_them():
    found = one([[1], [1], [2], [0], [3]], num_classes=4)
    assert found.majority_size == 1


def test_figures_are_over_the_voxels_in_which_both_voted():
    raters = [[1, 1, 0, 0], [1, 0, 0, 1]]
    voted = np.array([[True, True, True, False], [True, False, True, True]])
    found = one(raters, voted=voted)
    assert found.dice_pairs[0, 1] == 1  # voxel 1 is the first one's alone, voxel 3 the second one's
    assert (found.voxels, found.union, found.disputed, found.majority_size) == (4, 3, 0, 3)
    assert found.dice_others.tolist() == [1, 1]


def test_a_rater_who_abstains_everywhere():
    found = one([[1, 0], [1, 0], [0, 0]], voted=np.array([[True, True], [True, True], [False, False]]))
    assert np.isnan(found.dice_majority).tolist() == [False, False, True]
    assert np.isnan(found.dice_others).tolist() == [False, False, True]
    assert np.isnan(found.dice_pairs[2]).tolist() == [True, True, False]
    assert found.kappa == 1
    assert found.majority_both_empty == 0


def test_empty_masks():
    found = one(np.zeros((3, 5), int))
    assert found.dice_majority.tolist() == [1, 1, 1]
    assert found.majority_both_empty == 3
    assert np.isnan(found.kappa)
    assert (found.union, found.disputed, found.voxels) == (0, 0, 5)


def test_a_single_rater_has_no_others():
    found = one([[0, 1]])
    assert found.dice_majority.tolist() == [1]
    assert np.isnan(found.dice_others[0])
    assert np.isnan(found.kappa)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 4).flatmap(
        lambda raters: st.lists(
            st.lists(st.sampled_from([0, 0, 1, 2, None]), min_size=raters, max_size=raters),
            min_size=1,
            max_size=9,
        )
    )
)
def test_equals_the_slow_version(columns):
    votes = [list(row) for row in zip(*columns, strict=True)]
    labels = np.array([[0 if vote is None else vote for vote in row] for row in votes], dtype=np.uint8)
    voted = np.array([[vote is not None for vote in row] for row in votes])
    regions = [(1,), (2,), (1, 2)]
    found = agreement(labels, classes=regions, num_classes=3, voted=voted)
    for members, its in zip(regions, found, strict=True):
        wanted = slow.agreement(votes, members)
        pairs = as_floats(wanted["dice_pairs"])
        np.fill_diagonal(pairs, 1)  # also of a rater who abstains everywhere
        wanted["dice_pairs"] = pairs
        for name in FIGURES:
            np.testing.assert_allclose(
                as_floats(getattr(its, name)), as_floats(wanted[name]), atol=1e-12, err_msg=name
            )


@pytest.mark.parametrize("shape", [(24,), (4, 6), (2, 3, 4)])
def test_any_dimension_and_order_of_raters(shape):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (4, *shape)).astype(np.uint8)
    flat, order = labels.reshape(4, -1), [2, 0, 3, 1]
    for a, b, c in zip(
        *(agreement(x, classes=[(1,), (2,)], num_classes=3) for x in (labels, flat, labels[order])),
        strict=True,
    ):
        for name in FIGURES:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        np.testing.assert_allclose(a.dice_others[order], c.dice_others)
        assert a.kappa == pytest.approx(c.kappa)


def test_everybody_voting_is_the_default():
    labels = np.random.default_rng(1).integers(0, 2, (3, 20))
    with_mask = one(labels, voted=np.ones(labels.shape, dtype=bool))
    for name in FIGURES:
        np.testing.assert_array_equal(getattr(one(labels), name), getattr(with_mask, name))


def test_kappa_of_fleiss_own_kind_of_table():
    # 10 items, 14 raters, 5 categories: the worked example of many textbooks, 0.210 (statsmodels: 0.2099307044)
    table = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(np.array(table)) == pytest.approx(0.20993070442195522, abs=1e-12)


def test_kappa_of_repeated_items():
    table, often = np.array([[3, 0], [1, 2], [0, 3]]), [5, 2, 0]
    assert fleiss_kappa(table, items=often) == pytest.approx(fleiss_kappa(table.repeat(often, axis=0)))


def test_kappa_is_one_where_all_agree_and_undefined_where_nothing_varies():
    assert fleiss_kappa(np.array([[3, 0], [0, 3]])) == 1
    assert np.isnan(fleiss_kappa(np.array([[3, 0], [3, 0]])))
    assert np.isnan(fleiss_kappa(np.array([[1, 0], [0, 1]])))  # nobody to agree with


def test_bad_arguments():
    labels = np.array([[0, 1], [1, 2]])
    with pytest.raises(ValueError, match="`labels` from 0 to 1, got 0 to 2"):
        agreement(labels, classes=[(1,)], num_classes=2)
    with pytest.raises(ValueError, match="got -1 to 0"):
        agreement(-labels.clip(0, 1), classes=[(1,)], num_classes=2)
    with pytest.raises(TypeError, match="`labels` to hold integers, got dtype float64"):
        agreement(labels / 2, classes=[(1,)], num_classes=2)
    with pytest.raises(ValueError, match=r"`voted` of shape \(2, 2\)"):
        agreement(labels, classes=[(1,)], num_classes=3, voted=np.ones((2, 1), bool))
    with pytest.raises(TypeError, match="`voted` to be boolean"):
        agreement(labels, classes=[(1,)], num_classes=3, voted=labels)
    with pytest.raises(ValueError, match=r"shape \(raters, \*spatial\)"):
        agreement(np.zeros((0, 4), int), classes=[(1,)], num_classes=2)
    with pytest.raises(ValueError, match=r"`counts` of shape \(N, K\)"):
        fleiss_kappa(np.array([1, 2]))


def test_what_a_rater_who_abstains_wrote_there_does_not_matter():
    voted = np.array([[True, False], [True, True]])
    for value in (0, 1, 99, -5):
        found = one([[1, value], [1, 0]], voted=voted)
        assert found.sizes.tolist() == [1, 1]
        assert (found.majority_size, found.union, found.disputed, found.tied) == (1, 1, 0, 0)
