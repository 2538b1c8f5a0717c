"""Keys of a batch, which voxels are computed, and that what comes out is better calibrated."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_dml.calibration import calibrate_batch, choose_keys, kernel_calibrate, wrong_voxels
from nnunet_dml.calibration.keys import choose_weighted_keys
from tests.calibration.helpers import batch

SHAPES = [(40,), (9, 8), (5, 6, 4)]


def rows(tensor):
    return tensor.movedim(1, -1).flatten(0, -2)


def test_keys_are_equally_many_of_each_class_present():
    labels = torch.zeros(2, 4, 30, 20)
    classes = torch.zeros(2, 30, 20, dtype=torch.long)
    classes[0, :10], classes[1, :2, 0] = 1, 3  # class 2 is absent, class 3 has two voxels
    labels.scatter_(1, classes[:, None], 1.0)
    chosen = choose_keys(labels, keys=100)
    assert classes.flatten()[chosen].bincount(minlength=4).tolist() == [34, 34, 0, 2]
    assert torch.equal(chosen, chosen.unique())


@given(
    classes=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    keys=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_keys_are_different_voxels_and_as_many_as_there_can_be(classes, keys, seed):
    classes = torch.tensor(classes)
    labels = torch.nn.functional.one_hot(classes, 4).T[None].float()
    mask = torch.rand(1, 1, len(classes)) > 0.3
    chosen = choose_keys(labels, keys=keys, mask=mask, generator=torch.Generator().manual_seed(seed))
    valid = classes[mask[0, 0]]
    share = -(-keys // max(1, len(valid.unique())))
    assert mask[0, 0, chosen].all()
    assert torch.equal(chosen, chosen.unique())
    for label in range(4):
        assert (classes[chosen] == label).sum() == min(share, (valid == label).sum())


def test_every_voxel_can_become_a_key_and_all_alike():
    labels = torch.ones(1, 1, 7)
    counts = torch.zeros(7)
    for _ in range(4000):
        counts[choose_keys(labels, keys=3, independent=True)] += 1
    # stretches of 2, 2 and 3 voxels
    np.testing.assert_allclose(counts / 4000, [1 / 2] * 4 + [1 / 3] * 3, atol=0.05)


def test_a_generator_settles_the_keys():
    labels = batch((20, 20), 3)[1]
    first, again, other = (
        choose_keys(labels, keys=50, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_soft_labels_belong_to_their_greatest_share_and_regions_begin_above_a_half():
    labels = torch.tensor([[[0.6, 0.6, 0.2], [0.4, 0.4, 0.8]]])
    assert len(choose_keys(labels, keys=2)) == 2
    inside = torch.tensor([[[0.5, 0.5, 0.51]]])
    assert 2 in choose_keys(inside, keys=2, independent=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("independent", [False, True])
def test_only_chosen_voxels_are_computed_each_without_itself(shape, independent):
    probs, labels = batch(shape, 3)
    before = probs.clone(), labels.clone()
    where = torch.rand(2, 1, *shape) < 0.3
    mask = torch.rand(2, 1, *shape) < 0.8
    everything = int(mask.sum())  # as many keys as voxels: then there is nothing to draw
    got = calibrate_batch(
        probs, labels, bandwidth=0.1, where=where, mask=mask, keys=3 * everything, independent=independent
    )
    valid = rows(mask)[:, 0].nonzero()[:, 0]
    chosen = rows(where & mask)[:, 0].nonzero()[:, 0]
    own = torch.searchsorted(valid, chosen)
    expected = rows(probs).clone()
    expected[chosen] = kernel_calibrate(
        rows(probs)[chosen],
        rows(probs)[valid],
        rows(labels)[valid],
        bandwidth=0.1,
        own_key=own,
        kernel="beta" if independent else "dirichlet",
    )
    torch.testing.assert_close(rows(got), expected)
    assert (rows(got)[chosen] != rows(probs)[chosen]).all(1).any()
    assert torch.equal(probs, before[0])
    assert torch.equal(labels, before[1])


def test_all_voxels_are_computed_by_default():
    probs, labels = batch((9, 8), 3)
    every = calibrate_batch(probs, labels, bandwidth=0.1, keys=10000)
    where = torch.ones(2, 1, 9, 8, dtype=torch.bool)
    assert torch.equal(every, calibrate_batch(probs, labels, bandwidth=0.1, keys=10000, where=where))
    assert not torch.isclose(every, probs).all(1).any()


def test_a_region_can_have_voxels_of_its_own():
    probs, labels = batch((9, 8), 2)
    where = torch.zeros(2, 2, 9, 8, dtype=torch.bool)
    where[:, 1, :4] = True
    got = calibrate_batch(probs, labels, bandwidth=0.1, where=where, keys=50, independent=True)
    assert torch.equal(got[~where], probs[~where])
    assert (got[where] != probs[where]).float().mean() > 0.9


def test_no_voxel_to_calibrate_and_no_key_give_a_copy():
    probs, labels = batch((9, 8), 3)
    none = torch.zeros(2, 1, 9, 8)
    for options in ({"where": none.bool()}, {"mask": none}):
        for independent in (False, True):
            got = calibrate_batch(probs, labels, bandwidth=0.1, independent=independent, **options)
            assert torch.equal(got, probs)
            assert got.data_ptr() != probs.data_ptr()


def test_a_batch_of_one_class_stays_as_it_is():
    probs, labels = batch((9, 8), 3)
    labels = torch.zeros_like(labels)
    labels[:, 1] = 1
    torch.testing.assert_close(calibrate_batch(probs, labels, bandwidth=0.1), probs)


def test_half_precision_and_odd_strides():
    probs, labels = batch((6, 5, 4), 3)
    plain = calibrate_batch(probs, labels, bandwidth=0.1, keys=9999)
    strided = probs.to(memory_format=torch.channels_last_3d)
    got = calibrate_batch(strided, labels, bandwidth=0.1, keys=9999)
    torch.testing.assert_close(got, plain)
    half = calibrate_batch(probs.half(), labels.half(), bandwidth=0.1, keys=9999)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain, rtol=0, atol=5e-3)
    torch.testing.assert_close(half.sum(1), torch.ones(2, 6, 5, 4))


@pytest.mark.parametrize("independent", [False, True])
def test_wrong_voxels(independent):
    probs = torch.tensor([[[0.6, 0.3, 0.5], [0.4, 0.7, 0.5]]])
    labels = torch.tensor([[[0.0, 0.0, 0.4], [1.0, 1.0, 0.6]]])
    expected = [[True, False, False], [True, False, True]] if independent else [[True, False, True]]
    assert wrong_voxels(probs, labels, independent=independent)[0].tolist() == expected


def gap(probs, truth):
    return float((probs - truth).abs().sum(1).mean())


@pytest.mark.parametrize("independent", [False, True])
def test_an_overconfident_model_is_recovered(independent):
    """Labels are drawn from softmax(z) (sigmoid(z)), the model says softmax(3 z); the truth comes back."""
    torch.manual_seed(0)
    z = torch.randn(1, 3, 100, 100)
    truth = z.sigmoid() if independent else z.softmax(1)
    probs = (3 * z).sigmoid() if independent else (3 * z).softmax(1)
    if independent:
        labels = torch.bernoulli(truth)
    else:
        drawn = torch.multinomial(rows(truth), 1).view(1, 100, 100)
        labels = torch.nn.functional.one_hot(drawn, 3).movedim(-1, 1).float()
    got = calibrate_batch(probs, labels, bandwidth=0.03, keys=5000, independent=independent)
    assert gap(got, truth) < 0.4 * gap(probs, truth)


ONE = torch.full((2, 3, 4, 4), 1 / 3)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"bandwidth": 0.0}, ValueError, "`bandwidth` above 0"),
        ({"keys": 0}, ValueError, "`keys` to be at least 1"),
        ({"memory_mib": -1}, ValueError, "`memory_mib` above 0"),
        ({"probs": ONE[0, 0]}, ValueError, "`probs` of shape .B, C"),
        ({"probs": ONE.long(), "labels": ONE}, TypeError, "`probs` of a floating dtype"),
        ({"labels": ONE[:, :2]}, ValueError, "`labels` of shape .*one_hot"),
        ({"labels": ONE.long()}, TypeError, "`labels` of a floating dtype"),
        ({"mask": ONE}, ValueError, r"`mask` of shape \(2, 1, 4, 4\)"),
        ({"where": ONE[:, :2].bool()}, ValueError, r"`where` of shape \(2, 1, 4, 4\)"),
        ({"where": ONE.bool()}, ValueError, r"`where` of shape \(2, 1, 4, 4\)"),
        ({"where": ONE[:, :1]}, TypeError, "`where` of dtype bool"),
    ],
)
def test_bad_arguments_of_a_batch_are_named(changes, error, words):
    arguments = {"probs": ONE, "labels": ONE, "bandwidth": 0.1, **changes}
    first = [arguments.pop(name) for name in ("probs", "labels")]
    with pytest.raises(error, match=words):
        calibrate_batch(*first, **arguments)


@pytest.mark.parametrize(
    ("labels", "changes", "words"),
    [
        (ONE, {"keys": 0}, "`keys` to be at least 1"),
        (ONE[0, 0], {}, "`labels` of shape .B, C"),
        (ONE, {"mask": ONE}, "`mask` of shape"),
        (ONE, {"independent": True}, "one region"),
    ],
)
def test_bad_arguments_of_the_choice_of_keys_are_named(labels, changes, words):
    with pytest.raises(ValueError, match=words):
        choose_keys(labels, **{"keys": 10, **changes})


def test_wrong_voxels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="`labels` of shape"):
        wrong_voxels(ONE, ONE[:, :2])


def test_keys_stand_for_the_voxels_of_their_class():
    labels = torch.zeros(1, 2, 100)
    labels[:, 0, :96], labels[:, 1, 96:] = 1, 1
    voxels, stands_for = choose_weighted_keys(labels, keys=8)
    rare = voxels >= 96
    assert rare.sum() == (~rare).sum() == 4
    assert stands_for[rare].tolist() == [1] * 4
    assert stands_for[~rare].tolist() == [24] * 4


def test_weighted_keys_leave_a_calibrated_teacher_of_a_rare_class_as_it_is():
    random = torch.Generator().manual_seed(0)
    foreground = torch.rand(1, 1, 60_000, generator=random) ** 20  # 1 of 21 voxels
    probs = torch.cat((1 - foreground, foreground), 1)
    drawn = (torch.rand(foreground.shape, generator=random) < foreground).float()
    labels = torch.cat((1 - drawn, drawn), 1)
    error = {}
    for weighted in (True, False):
        found = calibrate_batch(
            probs,
            labels,
            bandwidth=0.02,
            weighted=weighted,
            keys=3000,
            generator=torch.Generator().manual_seed(1),
        )
        error[weighted] = (found - probs).abs().mean()
    assert error[True] < 0.015
    assert error[False] > 4 * error[True]
