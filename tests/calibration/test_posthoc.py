"""The calibrator of a trained model: what it keeps, what it gives, how it is stored, that calibration improves."""

import json

import numpy as np
import pytest
import torch

from nnunet_dml.calibration import KernelCalibrator, bandwidth_by_likelihood, kernel_calibrate
from nnunet_dml.metrics import expected_calibration_error
from tests.calibration.helpers import batch


def case(seed, *, size=60, rare=0.0, independent=False):
    """probs and labels (1, 3, size, size) of a model that is 3 times too sure; `rare` makes class 0 common."""
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(1, 3, size, size, generator=random)
    z[:, 0] += rare
    if independent:
        return (3 * z).sigmoid(), torch.bernoulli(z.sigmoid(), generator=random), z.sigmoid()
    truth = z.softmax(1)
    drawn = torch.multinomial(truth.movedim(1, -1).reshape(-1, 3), 1, generator=random).view(1, size, size)
    return (3 * z).softmax(1), torch.nn.functional.one_hot(drawn, 3).movedim(-1, 1).float(), truth


def fitted(cases=3, **options):
    rare, independent = options.pop("rare", 0.0), options.get("independent", False)
    calibrator = KernelCalibrator(**{"bandwidth": 0.02, "keys": 1500, **options})
    for seed in range(cases):
        calibrator.update(*case(seed, rare=rare, independent=independent)[:2])
    return calibrator


@pytest.mark.parametrize("rare", [0.0, 3.0])
def test_a_new_case_is_better_calibrated(rare):
    probs, labels, truth = case(99, rare=rare)
    got = fitted(5, rare=rare).calibrate(probs)
    reference = labels.argmax(1)[0]
    before, after = (expected_calibration_error(it[0], reference) for it in (probs, got))
    assert after < 0.5 * before
    assert (got - truth).abs().mean() < 0.7 * (probs - truth).abs().mean()
    torch.testing.assert_close(got.sum(1), torch.ones(1, 60, 60))
    # rare classes are not made common by their many keys
    torch.testing.assert_close(got.mean((0, 2, 3)), truth.mean((0, 2, 3)), rtol=0.3, atol=0.01)


def test_regions_of_a_new_case_are_better_calibrated():
    probs, _, truth = case(99, independent=True)
    got = fitted(independent=True).calibrate(probs)
    assert (got - truth).abs().mean() < 0.4 * (probs - truth).abs().mean()


def test_it_keeps_equally_many_of_each_class_and_knows_what_they_stand_for():
    labels = torch.zeros(1, 3, 100)
    labels[:, 0, :90], labels[:, 1, 90:97], labels[:, 2, 97:] = 1, 1, 1
    probs = torch.rand(1, 3, 100).softmax(1)
    calibrator = KernelCalibrator(bandwidth=0.1, keys=12)
    calibrator.update(probs, labels)
    calibrator.update(probs, labels)
    (reservoir,) = calibrator._reservoirs
    assert reservoir.classes.bincount().tolist() == [12, 12, 6]
    assert reservoir.seen.tolist() == [180, 14, 6]
    keys, key_labels, weights = reservoir.keys(12)
    assert key_labels.sum(0).tolist() == [4, 4, 4]
    torch.testing.assert_close(key_labels.T @ weights, torch.tensor([180.0, 14, 6]))
    assert all(any(torch.equal(key, row) for row in probs[0].T) for key in keys)


def test_every_voxel_of_every_case_is_kept_as_often():
    counts = np.zeros((3, 20))
    labels = torch.ones(1, 1, 20)
    for seed in range(600):
        calibrator = KernelCalibrator(keys=6, seed=seed)
        for i in range(3):
            calibrator.update((torch.arange(20) + 100 * i).view(1, 1, 20).float(), labels)
        kept = calibrator._reservoirs[0].probs[:, 0].long().numpy()
        assert len(set(kept.tolist())) == 6
        counts[kept // 100, kept % 100] += 1
    np.testing.assert_allclose(counts / 600, 6 / 60, atol=0.05)
    np.testing.assert_allclose(counts.sum(1) / 600, 2, atol=0.2)


def test_it_calibrates_with_its_keys_and_weights():
    calibrator = fitted(keys=90)
    probs = case(7, size=5)[0]
    before = probs.clone()
    got = calibrator.calibrate(probs)
    keys, labels, weights = calibrator._reservoirs[0].keys(90)
    rows = kernel_calibrate(
        probs.movedim(1, -1).reshape(-1, 3), keys, labels, bandwidth=0.02, key_weights=weights
    )
    torch.testing.assert_close(got.movedim(1, -1).reshape(-1, 3), rows)
    assert torch.equal(probs, before)


@pytest.mark.parametrize("shape", [(30,), (6, 5), (4, 3, 5)])
@pytest.mark.parametrize("independent", [False, True])
def test_any_dimension(shape, independent):
    probs, labels = batch(shape, 3)
    calibrator = KernelCalibrator(bandwidth=0.1, keys=50, independent=independent)
    calibrator.update(probs, labels)
    got = calibrator.calibrate(probs.half())
    assert got.shape == probs.shape
    assert got.dtype == torch.float32
    flat = KernelCalibrator(bandwidth=0.1, keys=50, independent=independent)
    flat.update(probs.flatten(2), labels.flatten(2))
    torch.testing.assert_close(flat.calibrate(probs.half().flatten(2)), got.flatten(2))


def test_voxels_outside_the_mask_do_not_count():
    probs, labels = batch((10, 10), 3)
    mask = torch.zeros(2, 1, 10, 10)
    mask[..., :4] = 1
    masked, cropped = (KernelCalibrator(bandwidth=0.1) for _ in range(2))
    masked.update(probs, labels, mask=mask)
    cropped.update(probs[..., :4], labels[..., :4])
    assert masked._reservoirs[0].seen.tolist() == cropped._reservoirs[0].seen.tolist()
    torch.testing.assert_close(masked.calibrate(probs), cropped.calibrate(probs))


@pytest.mark.parametrize("independent", [False, True])
def test_it_goes_on_from_its_arrays(tmp_path, independent):
    straight = fitted(independent=independent, keys=40)
    broken = fitted(2, independent=independent, keys=40)
    np.savez(tmp_path / "keys.npz", **broken.to_arrays())
    with np.load(tmp_path / "keys.npz") as stored:
        from_npz = KernelCalibrator.from_arrays(stored)
    text = json.dumps({name: values.tolist() for name, values in broken.to_arrays().items()})
    for again in (from_npz, KernelCalibrator.from_arrays(json.loads(text))):
        again.update(*case(2, independent=independent)[:2])
        assert all(np.array_equal(v, again.to_arrays()[k]) for k, v in straight.to_arrays().items())
        probs = case(9, size=8)[0]
        assert torch.equal(again.calibrate(probs), straight.calibrate(probs))


def test_without_data_it_goes_through_its_arrays_too():
    again = KernelCalibrator.from_arrays(KernelCalibrator(seed=5).to_arrays())
    assert (again.seed, again.bandwidth, again.updates) == (5, None, 0)


def test_the_seed_settles_the_keys():
    first, again, other = (fitted(1, keys=30, seed=seed).to_arrays()["probs_0"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_bandwidth_is_chosen_by_the_likelihood_of_the_keys():
    calibrator = fitted(bandwidth=None)
    search = calibrator.choose_bandwidth([1e-4, 0.02, 10.0])
    keys, labels, weights = calibrator._reservoirs[0].keys(1500)
    expected = bandwidth_by_likelihood(keys, labels, key_weights=weights, grid=[1e-4, 0.02, 10.0])
    assert search.scores == pytest.approx(expected.scores)
    assert calibrator.bandwidth == search.bandwidth == expected.bandwidth == 0.02


def test_regions_share_a_bandwidth():
    calibrator = fitted(bandwidth=None, keys=300, independent=True)
    search = calibrator.choose_bandwidth([1e-4, 0.02, 10.0])
    of_each = []
    for reservoir in calibrator._reservoirs:
        keys, labels, weights = reservoir.keys(300)
        options = {"kernel": "beta", "key_weights": weights, "grid": search.grid}
        of_each.append(bandwidth_by_likelihood(keys, labels, **options).scores)
    np.testing.assert_allclose(search.scores, np.mean(of_each, 0))
    assert calibrator.bandwidth == search.bandwidth == 0.02


PROBS = torch.full((1, 2, 4), 0.5)


def with_keys():
    calibrator = KernelCalibrator(bandwidth=0.1)
    calibrator.update(PROBS, PROBS)
    return calibrator


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: KernelCalibrator(bandwidth=0.0), ValueError, "`bandwidth` above 0"),
        (lambda: KernelCalibrator(keys=0), ValueError, "`keys` to be at least 1"),
        (lambda: KernelCalibrator(seed=-1), ValueError, "`seed` to be at least 0"),
        (lambda: KernelCalibrator(bandwidth=0.1).calibrate(PROBS), ValueError, "call `update` with held-out"),
        (lambda: KernelCalibrator().choose_bandwidth(), ValueError, "call `update` with held-out"),
        (lambda: KernelCalibrator().update(PROBS[0], PROBS[0]), ValueError, "`probs` of shape"),
        (lambda: KernelCalibrator().update(PROBS.long(), PROBS), TypeError, "`probs` of a floating"),
        (lambda: KernelCalibrator().update(PROBS, PROBS[:, 0]), ValueError, "`labels` of shape .*one_hot"),
        (lambda: KernelCalibrator().update(PROBS, PROBS.long()), TypeError, "`labels` of a floating"),
        (lambda: KernelCalibrator().update(PROBS, PROBS, mask=PROBS), ValueError, "`mask` of shape"),
        (lambda: with_keys().calibrate(PROBS[:, :1]), ValueError, "2 classes as before, got 1"),
        (lambda: with_keys().update(PROBS[:, :1], PROBS[:, :1]), ValueError, "2 classes as before, got 1"),
        (lambda: KernelCalibrator.from_arrays({"bandwidth": 0.1}), ValueError, "an array 'keys'"),
        (
            lambda: KernelCalibrator.from_arrays({**with_keys().to_arrays(), "priorities_0": [0.5]}),
            ValueError,
            "Expected arrays of 4 keys",
        ),
    ],
)
def test_bad_arguments_of_the_calibrator_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_calibrator_without_a_bandwidth_says_so():
    calibrator = fitted(1, bandwidth=None, keys=20)
    with pytest.raises(ValueError, match="call `choose_bandwidth`"):
        calibrator.calibrate(PROBS[:, [0, 1, 1]])
