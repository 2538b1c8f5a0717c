"""Label smoothing: hand-computed values, a slow definition, any dimension, ignored voxels, regions."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_dml.labels import boundary_voxels, smooth_boundary, smooth_labels
from nnunet_dml.losses import one_hot


def slow_boundary(labels, k, valid):
    """The definition, voxel by voxel."""
    edge = np.zeros(labels.shape, dtype=bool)
    reach = range(-(k // 2), k // 2 + 1)
    for here in np.ndindex(labels.shape):
        for step in itertools.product(reach, repeat=labels.ndim):
            there = tuple(i + d for i, d in zip(here, step, strict=True))
            if all(0 <= i < n for i, n in zip(there, labels.shape, strict=True)):
                edge[here] |= valid[here] and valid[there] and labels[there] != labels[here]
    return edge


@given(
    shape=st.sampled_from([(9,), (6, 7), (4, 5, 3)]),
    k=st.sampled_from([1, 3, 5]),
    seed=st.integers(0, 999),
    ignore=st.booleans(),
)
def test_the_boundary_is_as_defined(shape, k, seed, ignore):
    random = np.random.default_rng(seed)
    labels = random.choice(4, size=shape, p=[0.7, 0.1, 0.1, 0.1])
    valid = random.random(shape) > 0.3 if ignore else np.ones(shape, bool)
    target = one_hot(torch.from_numpy(labels)[None, None], 4)
    mask = torch.from_numpy(valid)[None, None] if ignore else None
    edge = boundary_voxels(target, neighbourhood=k, mask=mask)
    np.testing.assert_array_equal(edge[0, 0].numpy(), slow_boundary(labels, k, valid))


def test_only_the_boundary_is_smoothed():
    labels = torch.zeros(1, 1, 5, 5, dtype=torch.long)
    labels[..., 2:] = 1
    target = one_hot(labels, 3)
    smoothed = smooth_boundary(target, epsilon=0.3)
    assert torch.equal(smoothed[..., [0, 3, 4]], target[..., [0, 3, 4]])
    torch.testing.assert_close(smoothed[0, :, 0, 1], torch.tensor([0.8, 0.1, 0.1]))
    torch.testing.assert_close(smoothed[0, :, 0, 2], torch.tensor([0.1, 0.8, 0.1]))
    torch.testing.assert_close(smoothed.sum(1), torch.ones(1, 5, 5))


def test_soft_labels_keep_their_fractions_and_are_smoothed_where_the_greatest_changes():
    soft = torch.tensor([[[1.0, 0.8, 0.6, 0.3, 0.0], [0.0, 0.2, 0.4, 0.7, 1.0]]])
    smoothed = smooth_boundary(soft, epsilon=0.5)
    torch.testing.assert_close(smoothed[0, 1], torch.tensor([0.0, 0.2, 0.45, 0.6, 1.0]))


def test_every_voxel_is_smoothed_without_a_neighbourhood():
    soft = torch.rand(2, 3, 4, 4).softmax(1)
    smoothed = smooth_labels(soft, epsilon=0.1)
    torch.testing.assert_close(smoothed, 0.9 * soft + 0.1 / 3)
    torch.testing.assert_close(smoothed.sum(1), torch.ones(2, 4, 4))


def test_ignored_voxels_make_no_boundary_and_stay():
    labels = torch.tensor([[[0, 0, 9, 1, 1]]])
    target = one_hot(labels, 2, ignore_label=9)
    mask = labels != 9
    assert torch.equal(smooth_boundary(target, epsilon=0.5, mask=mask), target)
    assert smooth_boundary(target, epsilon=0.5, neighbourhood=5, mask=mask)[0, 0].tolist() == [
        1,
        0.75,
        0,
        0.25,
        0,
    ]


def test_regions_are_smoothed_at_their_own_boundaries_towards_one_half():
    whole = torch.tensor([0.0, 1, 1, 1, 1, 1, 1])
    core = torch.tensor([0.0, 0, 0, 0, 1, 1, 1])
    smoothed = smooth_boundary(torch.stack([whole, core])[None], epsilon=0.4, independent=True)
    torch.testing.assert_close(smoothed[0, 0], torch.tensor([0.2, 0.8, 1, 1, 1, 1, 1]))
    torch.testing.assert_close(smoothed[0, 1], torch.tensor([0.0, 0, 0, 0.2, 0.8, 1, 1]))
    torch.testing.assert_close(
        smooth_labels(torch.tensor([[[1.0], [0.0], [1.0]]]), epsilon=0.4, independent=True).flatten(),
        torch.tensor([0.8, 0.2, 0.8]),  # each against its own rest, however many regions there are
    )


def test_the_target_given_is_not_changed():
    target = one_hot(torch.randint(0, 2, (1, 1, 6, 6)), 2)
    before = target.clone()
    smooth_labels(target, epsilon=0.2)
    smooth_boundary(target, epsilon=0.2)
    assert torch.equal(target, before)


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, float("nan")])
def test_epsilon_out_of_range(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        smooth_labels(torch.ones(1, 1, 2), epsilon=epsilon)


@pytest.mark.parametrize("k", [0, 2, -3])
def test_an_even_neighbourhood(k):
    with pytest.raises(ValueError, match=r"`neighbourhood` to be odd"):
        smooth_boundary(torch.ones(1, 1, 2), epsilon=0.1, neighbourhood=k)


def test_wrong_tensors():
    with pytest.raises(TypeError, match="floating"):
        smooth_labels(torch.ones(1, 1, 2, dtype=torch.long), epsilon=0.1)
    with pytest.raises(ValueError, match=r"\(B, C, \*spatial\)"):
        smooth_labels(torch.ones(2, 2), epsilon=0.1)
    with pytest.raises(ValueError, match=r"`mask` of shape \(1, 1, 2\)"):
        smooth_boundary(torch.ones(1, 2, 2), epsilon=0.1, mask=torch.ones(1, 2, 2))
