"""What every pair of `…_counts` and `…_from_counts` has in common."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_dml import metrics
from nnunet_dml.metrics import _voxels
from tests.metrics.cases import random_case

STREAMS = {
    name: getattr(metrics, name)
    for name in (
        "reliability_counts",
        "classwise_counts",
        "adaptive_counts",
        "adaptive_classwise_counts",
        "brier_counts",
        "nll_counts",
        "soft_overlap_counts",
    )
}


@pytest.fixture(params=STREAMS)
def counts(request):
    return STREAMS[request.param]


def both_references(seed, **kwargs):
    probs, votes, soft = random_case(seed, **kwargs)
    return probs, (votes[0], soft)


@pytest.mark.parametrize("soft", [False, True])
def test_blocks_add_up(counts, soft):
    probs, references = both_references(0, shape=(5, 6, 7))
    truth = references[soft]
    at_once = counts(probs[None], truth[None])
    parts = [
        counts(probs[:, z][None], (truth[:, z] if soft else truth[z])[None])
        for z in (slice(0, 2), slice(2, 5))
    ]
    torch.testing.assert_close(parts[0] + parts[1], at_once, rtol=1e-12, atol=1e-12)
    assert at_once.dtype == torch.float64


@pytest.mark.parametrize("soft", [False, True])
def test_cases_of_a_batch_add_up(counts, soft):
    cases = [both_references(seed) for seed in (1, 2)]
    p = np.stack([probs for probs, _ in cases])
    y = np.stack([references[soft] for _, references in cases])
    parts = sum(counts(p[i][None], y[i][None]) for i in range(2))
    torch.testing.assert_close(counts(p, y), parts, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("device", ["cpu", "as on an accelerator"])
def test_voxels_that_do_not_count_are_as_if_they_were_not_there(counts, soft, device, monkeypatch):
    cases = [both_references(seed) for seed in (3, 4)]
    p = np.stack([probs for probs, _ in cases])
    y = np.stack([references[soft] for _, references in cases])
    keep = np.random.default_rng(0).random((2, 6, 7)) > 0.4
    wanted = sum(counts(p[i][None][..., keep[i]], y[i][None][..., keep[i]]) for i in range(2))
    if device != "cpu":  # where the mask goes along instead
        whole = _voxels._cut

        def masked(p, y, mask):
            for piece in whole(p, y, None):
                yield _voxels.Piece(piece.probs, piece.reference, mask.reshape(-1))

        monkeypatch.setattr(_voxels, "_cut", masked)
    torch.testing.assert_close(counts(p, y, mask=keep), wanted, rtol=1e-12, atol=1e-12)


def test_pieces_of_any_size_add_up(counts, monkeypatch):
    probs, (labels, _) = both_references(5)
    keep = np.random.default_rng(1).random((6, 7)) > 0.6
    wanted = counts(probs[None], labels[None], mask=keep[None])
    monkeypatch.setattr(_voxels, "PIECE", 5)
    torch.testing.assert_close(
        counts(probs[None], labels[None], mask=keep[None]), wanted, rtol=1e-12, atol=1e-12
    )


def test_one_hot_fractions_equal_labels(counts):
    probs, (labels, _) = both_references(6)
    hot = np.stack([labels == c for c in range(3)]).astype(np.float32)
    torch.testing.assert_close(
        counts(probs[None], hot[None]), counts(probs[None], labels[None]), rtol=0, atol=1e-12
    )


def test_dimensions_and_order_of_the_voxels_do_not_matter(counts):
    probs, (labels, _) = both_references(7, shape=(4, 3, 5))
    flat, order = probs.reshape(3, -1), np.random.default_rng(2).permutation(60)
    torch.testing.assert_close(
        counts(flat[None][..., order], labels.ravel()[None, order]), counts(probs[None], labels[None])
    )


def test_no_voxel_is_nothing(counts):
    probs, (labels, _) = both_references(8)
    nothing = counts(probs[None], labels[None], mask=np.zeros((1, 6, 7), bool))
    assert nothing.shape == counts(probs[None], labels[None]).shape
    assert not nothing.any()
    empty = counts(probs[None][..., :0], labels[None][..., :0])
    assert empty.shape == nothing.shape


def test_half_precision_is_added_up_in_double(counts):
    probs, (labels, _) = both_references(9)
    half = probs.astype(np.float16)
    wanted = counts(half.astype(np.float32)[None], labels[None])
    torch.testing.assert_close(counts(half[None], labels[None]), wanted, rtol=0, atol=0)


def test_wrong_probabilities_are_refused(counts):
    with pytest.raises(TypeError, match="`probs` to be a NumPy array or a tensor, got list"):
        counts([0.5, 0.5], np.array([0, 1]))
    with pytest.raises(ValueError, match=r"`probs` of shape \(B, C, \*spatial\)"):
        counts(np.ones(3), np.zeros(3, int))
    with pytest.raises(TypeError, match="floating point probabilities"):
        counts(np.ones((1, 2, 3), int), np.zeros((1, 3), int))
    with pytest.raises(ValueError, match=r"`reference` of shape \(1, 3\) to match"):
        counts(np.ones((1, 2, 3)), np.zeros((1, 4), int))


def test_a_wrong_mask_is_refused(counts):
    probs, (labels, _) = both_references(10)
    with pytest.raises(ValueError, match=r"`mask` of shape \(1, 6, 7\), got \(6, 7\)"):
        counts(probs[None], labels[None], mask=np.ones((6, 7), bool))
    with pytest.raises(TypeError, match="`mask` to be boolean"):
        counts(probs[None], labels[None], mask=np.ones((1, 6, 7), int))


def test_bdice_counts_of_pieces_and_with_a_mask_that_goes_along(monkeypatch):
    p, soft = (np.stack(side) for side in zip(*(random_case(seed)[::2] for seed in (1, 2)), strict=True))
    keep = np.random.default_rng(3).random((2, 6, 7)) > 0.4
    wanted = sum(
        metrics.bdice_counts(p[i][None][..., keep[i]], soft[i][None][..., keep[i]]) for i in range(2)
    )
    monkeypatch.setattr(_voxels, "PIECE", 7)
    assert torch.equal(metrics.bdice_counts(p, soft, mask=keep), wanted)
    whole = _voxels._cut

    def masked(p, y, mask):
        for piece in whole(p, y, None):
            yield _voxels.Piece(piece.probs, piece.reference, mask.reshape(-1))

    monkeypatch.setattr(_voxels, "PIECE", 10**6)
    monkeypatch.setattr(_voxels, "_cut", masked)
    assert torch.equal(metrics.bdice_counts(p, soft, mask=keep), wanted)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(0, 42))
def test_label_counts_add_up(seed, cut):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 4, (2, 42))
    parts = [
        metrics.overlap_counts(first[part], second[part], num_classes=4)
        for part in (slice(cut), slice(cut, None))
    ]
    assert torch.equal(parts[0] + parts[1], metrics.overlap_counts(first, second, num_classes=4))
    masks = rng.random((2, 3, 42)) > 0.5
    parts = [
        metrics.mask_overlap_counts(masks[0][:, part], masks[1][:, part])
        for part in (slice(cut), slice(cut, None))
    ]
    assert torch.equal(parts[0] + parts[1], metrics.mask_overlap_counts(*masks))
    pairs = [
        metrics.pair_counts(masks[:1, :, part], masks[1:, :, part]) for part in (slice(cut), slice(cut, None))
    ]
    assert torch.equal(pairs[0] + pairs[1], metrics.pair_counts(masks[:1], masks[1:]))
