"""The sample of voxels: strata, what the rows stand for, merging."""

import numpy as np
import pytest
import torch

from nnunet_dml.calibration import VoxelSample
from tests.calibration.helpers import batch


def test_strata_are_the_classes_and_whether_they_are_surely_right():
    sure = torch.tensor([0.999, 0.001])
    probs = torch.stack([sure, sure, 1 - sure, torch.tensor([0.6, 0.4])]).T[None].repeat(1, 1, 25)
    truth = torch.tensor([0, 1, 1, 0]).repeat(25)  # sure and right, sure and wrong, sure and right, not sure
    sample = VoxelSample(size=10)
    sample.update(probs, torch.nn.functional.one_hot(truth, 2).T[None].float())
    (rows,) = sample.rows()
    assert sample.voxels == 100
    assert len(rows.probs) == 40
    torch.testing.assert_close(rows.weights, torch.full((40,), 2.5).double())
    assert rows.probs[:, 0].unique(return_counts=True)[1].tolist() == [10, 10, 20]


@pytest.mark.parametrize("independent", [False, True])
def test_weighted_means_are_those_of_all_voxels(independent):
    probs, labels = batch((60, 60), 3)
    means = []
    for seed in range(40):
        sample = VoxelSample(size=100, independent=independent, seed=seed)
        sample.update(probs, labels)
        means.append([float((it.probs[:, -1] * it.weights).sum() / it.weights.sum()) for it in sample.rows()])
        assert all(it.weights.sum() == pytest.approx(7200) for it in sample.rows())
    expected = probs.mean((0, 2, 3)).tolist() if independent else [float(probs[:, 2].mean())]
    np.testing.assert_allclose(np.mean(means, 0), expected, rtol=0.02)


def test_a_merged_sample_is_as_uniform_as_one_of_all():
    counts = np.zeros((3, 20))
    labels = torch.ones(1, 1, 20)
    for seed in range(600):
        parts = []
        for i in range(3):
            part = VoxelSample(size=6, independent=True, seed=3 * seed + i)
            part.update((torch.arange(20) + 100 * i).view(1, 1, 20).float() / 1000, labels)
            parts.append(part)
        merged = VoxelSample.merged(parts)
        (rows,) = merged.rows()
        kept = (rows.probs[:, 1] * 1000).round().long().numpy()
        assert len(set(kept.tolist())) == 6
        torch.testing.assert_close(rows.weights, torch.full((6,), 10.0).double())
        counts[kept // 100, kept % 100] += 1
    np.testing.assert_allclose(counts / 600, 6 / 60, atol=0.05)
    np.testing.assert_allclose(counts.sum(1) / 600, 2, atol=0.2)


def test_merging_leaves_the_parts_alone_and_adds_up_what_they_saw():
    parts = [VoxelSample(size=7, seed=seed) for seed in range(3)]
    for part in parts[:2]:
        part.update(*batch((8, 9), 3, seed=part.seed))
    before = [it.rows()[0].probs.clone() for it in parts[:2]]
    merged = VoxelSample.merged(parts)  # the third is empty
    assert merged.voxels == 2 * 2 * 72
    assert merged.rows()[0].weights.sum() == pytest.approx(288)
    assert all(torch.equal(it.rows()[0].probs, old) for it, old in zip(parts, before, strict=False))


def test_fewer_rows_are_as_many_of_each_stratum():
    sample = VoxelSample(size=50)
    sample.update(*batch((40, 40), 3))
    few = sample.rows(30)[0]
    assert len(few.probs) <= 36
    assert few.weights.sum() == pytest.approx(3200)


def test_the_mask_and_the_chunks(monkeypatch):
    probs, labels = batch((10, 10), 3)
    mask = torch.zeros(2, 1, 10, 10)
    mask[..., :4] = 1
    masked, cropped = VoxelSample(), VoxelSample()
    masked.update(probs, labels, mask=mask)
    cropped.update(probs[..., :4], labels[..., :4])
    assert masked.voxels == cropped.voxels == 80
    torch.testing.assert_close(masked.rows()[0].probs.sort(0).values, cropped.rows()[0].probs.sort(0).values)
    monkeypatch.setattr("nnunet_dml.calibration.samples._CHUNK", 7)
    pieces = VoxelSample()
    pieces.update(probs, labels, mask=mask)
    torch.testing.assert_close(pieces.rows()[0].probs.sort(0).values, masked.rows()[0].probs.sort(0).values)


def test_the_seed_settles_the_sample():
    def drawn(seed):
        sample = VoxelSample(size=5, seed=seed)
        sample.update(*batch((8, 8), 3))
        return sample.rows()[0].probs

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


PROBS = torch.full((1, 2, 4), 0.5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: VoxelSample(size=0), ValueError, "`size` to be at least 1"),
        (lambda: VoxelSample(seed=-1), ValueError, "`seed` to be at least 0"),
        (lambda: VoxelSample().rows(), ValueError, "call `update`"),
        (lambda: VoxelSample.merged([VoxelSample()]), ValueError, "`samples` with voxels"),
        (lambda: VoxelSample().update(PROBS[0], PROBS[0]), ValueError, "`probs` of shape"),
        (lambda: VoxelSample().update(PROBS.long(), PROBS), TypeError, "`probs` of a floating"),
        (lambda: VoxelSample().update(PROBS, PROBS[:, 0]), ValueError, "`labels` of shape .*one_hot"),
        (lambda: VoxelSample().update(PROBS, PROBS, mask=PROBS), ValueError, "`mask` of shape"),
    ],
)
def test_bad_arguments_of_samples_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_samples_of_other_classes_do_not_mix():
    one, two = VoxelSample(), VoxelSample(seed=1)
    one.update(PROBS, PROBS)
    two.update(*batch((4,), 3))
    with pytest.raises(ValueError, match="2 classes as before, got 3"):
        one.update(*batch((4,), 3))
    with pytest.raises(ValueError, match="one size, kind and number"):
        VoxelSample.merged([one, two])
