"""Calibrators of a trained model: what they recover, what they keep, how they are stored."""

import math

import numpy as np
import pytest
import torch

from nnunet_dml.calibration import (
    METHODS,
    IsotonicCalibrator,
    KernelCalibrator,
    OfRegions,
    Rows,
    TemperatureScaling,
    Uncalibrated,
    VectorScaling,
    VoxelSample,
    bandwidth_by_likelihood,
    calibrator_arrays,
    fit_calibrator,
    kernel_calibrate,
    read_calibrator,
)
from tests.calibration.helpers import batch, probabilities

CLASSES = {it.method: it for it in (TemperatureScaling, VectorScaling, IsotonicCalibrator, KernelCalibrator)}


def rows_of(probs, labels, weights=None):
    return Rows(probs, labels, torch.ones(len(probs)) if weights is None else weights)


def sample(*, independent=False, classes=3, cases=3, size=400):
    made = VoxelSample(size=size, independent=independent)
    for seed in range(cases):
        probs, labels = batch((20, 20), classes, seed=seed)
        made.update(probs, (labels > 0.5).float() if independent else labels)
    return made


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("shape", [(30,), (4, 3, 5)])
def test_any_dimension_and_exact_0_and_1(method, independent, shape):
    calibrator = fit_calibrator(method, sample(independent=independent), keys=60)
    probs = torch.cat([batch(shape, 3, seed=9)[0], torch.zeros(1, 3, *shape)])
    probs[2, 1] = 1  # exact
    before = probs.clone()
    got = calibrator.calibrate(probs.half())
    assert got.shape == probs.shape
    assert got.dtype == torch.float32
    assert torch.isfinite(got).all()
    assert 0 <= got.min() <= got.max() <= 1
    if not independent:
        torch.testing.assert_close(
            got.sum(1), torch.ones(3, *shape), atol=2e-3 if method == "none" else 1e-5, rtol=0
        )
    assert torch.equal(probs, before)
    assert calibrator.calibrate(probs.double()).dtype == torch.float64
    assert calibrator.method == method


def test_chunks_change_nothing(monkeypatch):
    probs = batch((11, 7), 3)[0]
    calibrator = fit_calibrator("vector", sample())
    whole = calibrator.calibrate(probs)
    monkeypatch.setattr("nnunet_dml.calibration.calibrators.CHUNK", 10)
    assert torch.equal(calibrator.calibrate(probs), whole)


@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_a_known_temperature_is_recovered(temperature):
    truth = probabilities(4000, 3, sharpness=2.0).double()
    spoiled = truth.log().mul(temperature).softmax(1)
    fit = TemperatureScaling.fit(rows_of(spoiled, truth))
    assert fit.temperature == pytest.approx(temperature, rel=1e-3)
    torch.testing.assert_close(fit.of_rows(spoiled), truth, atol=1e-3, rtol=0)


def test_a_known_scale_and_bias_are_recovered():
    truth = probabilities(4000, 3, sharpness=2.0).double()
    scale, bias = torch.tensor([2.0, 0.5, 1.0]).double(), torch.tensor([0.7, -0.7, 0.0]).double()
    # the map to find: softmax(a log p + b) = truth, so a log p = log truth − b up to a constant of the row, which the sum
    # over the classes settles; found by Newton's method in one unknown
    log, shift = truth.log() - bias, torch.zeros(4000, 1).double()
    for _ in range(60):
        values = ((log + shift) / scale).exp()
        shift -= (values.sum(1, keepdim=True) - 1) / (values / scale).sum(1, keepdim=True)
    spoiled = ((log + shift) / scale).exp()
    fit = VectorScaling.fit(rows_of(spoiled, truth))
    torch.testing.assert_close(fit.scale, scale, atol=0.02, rtol=0)
    torch.testing.assert_close(fit.bias - fit.bias[2], bias, atol=0.02, rtol=0)
    torch.testing.assert_close(fit.of_rows(spoiled), truth, atol=2e-3, rtol=0)


def test_a_known_monotone_map_is_recovered():
    p = torch.linspace(0, 1, 2001).double()
    truth = torch.where(p < 0.5, p**2, 1 - (1 - p) ** 2 / 2).clamp(0, 1)  # with a jump at 0.5
    fit = IsotonicCalibrator.fit(rows_of(torch.stack([1 - p, p], 1), torch.stack([1 - truth, truth], 1)))
    torch.testing.assert_close(fit.of_rows(torch.stack([1 - p, p], 1))[:, 1], truth, atol=1e-9, rtol=0)


def test_isotonic_regression_by_hand():
    p = torch.tensor([0.1, 0.4, 0.6, 0.9])
    y = torch.tensor([0.0, 1.0, 0.0, 1.0])  # the middle two are out of order: their weighted mean, 0.25
    weights = torch.tensor([1.0, 1.0, 3.0, 1.0])
    fit = IsotonicCalibrator.fit(rows_of(torch.stack([1 - p, p], 1), torch.stack([1 - y, y], 1), weights))
    got = fit.of_rows(torch.tensor([[0.5, 0.5], [0.25, 0.75]]).double())
    torch.testing.assert_close(got, torch.tensor([[0.75, 0.25], [0.375, 0.625]]).double(), atol=1e-6, rtol=0)


def test_where_isotonic_regression_says_0_for_all_classes_the_voxel_stays():
    step = np.array([[0.5, 0.6], [0.0, 1.0]])
    probs = torch.tensor([[0.4, 0.3, 0.3], [0.8, 0.1, 0.1]]).double()
    got = IsotonicCalibrator([step] * 3).of_rows(probs)
    torch.testing.assert_close(got, torch.tensor([[0.4, 0.3, 0.3], [1.0, 0.0, 0.0]]).double())


def test_the_kernel_regression_is_that_of_its_rows():
    probs, labels, weights = probabilities(50, 3), probabilities(50, 3, seed=1), torch.rand(50) + 0.5
    fit = KernelCalibrator.fit(Rows(probs, labels, weights), grid=[0.01, 0.2])
    expected = bandwidth_by_likelihood(probs, labels, key_weights=weights, grid=[0.01, 0.2]).bandwidth
    assert fit.bandwidth == expected
    queries = probabilities(20, 3, seed=2)
    estimate = kernel_calibrate(queries, probs, labels, bandwidth=expected, key_weights=weights)
    torch.testing.assert_close(fit.of_rows(queries.double()).float(), estimate)


@pytest.mark.parametrize("method", CLASSES)
def test_a_row_of_weight_3_counts_as_three_rows(method):
    probs, labels = batch((12,), 3, seed=4)
    p, y = (it.movedim(1, -1).flatten(0, -2) for it in (probs, labels))
    weights = torch.tensor([1.0, 3.0] * 12)
    weighted = CLASSES[method].fit(Rows(p, y, weights))
    once = CLASSES[method].fit(rows_of(p, y))
    times = weights.long()
    queries = probabilities(15, 3, seed=5).double()
    if method != "kernel":  # whose rows leave themselves out, and a copy of themselves would be left in
        repeated = CLASSES[method].fit(rows_of(p.repeat_interleave(times, 0), y.repeat_interleave(times, 0)))
        torch.testing.assert_close(weighted.of_rows(queries), repeated.of_rows(queries), atol=1e-4, rtol=0)
    assert (weighted.of_rows(queries) - once.of_rows(queries)).abs().max() > 1e-3


@pytest.mark.parametrize("method", ["none", "temperature"])
@pytest.mark.parametrize("independent", [False, True])
def test_the_greatest_class_is_kept(method, independent):
    calibrator = fit_calibrator(method, sample(independent=independent))
    assert calibrator.keeps_argmax
    probs = batch((40, 40), 3, seed=7, sharpness=6.0)[0].double()
    got = calibrator.calibrate(probs)
    if independent:
        assert torch.equal(got > 0.5, probs > 0.5)
    else:
        assert torch.equal(got.argmax(1), probs.argmax(1))


def test_the_others_do_not_promise_to_keep_it():
    for method in ("vector", "isotonic", "kernel"):
        assert not fit_calibrator(method, sample(), keys=60).keeps_argmax


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("independent", [False, True])
def test_it_comes_back_from_a_file_without_pickles(tmp_path, method, independent):
    calibrator = fit_calibrator(method, sample(independent=independent), keys=60)
    np.savez(tmp_path / "c.npz", **calibrator_arrays(calibrator))
    with np.load(tmp_path / "c.npz", allow_pickle=False) as arrays:
        again = read_calibrator(dict(arrays))
    probs = batch((9,), 3, seed=8)[0]
    assert torch.equal(again.calibrate(probs), calibrator.calibrate(probs))
    assert (again.method, again.keeps_argmax, again.channels) == (
        calibrator.method,
        calibrator.keeps_argmax,
        calibrator.channels,
    )


def test_regions_are_fitted_each_for_itself():
    made = sample(independent=True)
    calibrator = fit_calibrator("vector", made)
    probs = batch((9,), 3, seed=8)[0]
    got = calibrator.calibrate(probs)
    for c, rows in enumerate(made.rows()):
        one = VectorScaling.fit(rows)
        pair = torch.stack([1 - probs[:, c].double(), probs[:, c].double()], 1)
        torch.testing.assert_close(got[:, c].double(), one.calibrate(pair)[:, 1], atol=1e-6, rtol=0)


def test_a_region_that_is_nowhere_stays_as_it_is():
    probs, labels = batch((20, 20), 3)
    labels[:, 2] = 0
    made = VoxelSample(independent=True)
    made.update(probs, labels)
    calibrator = fit_calibrator("temperature", made)
    got = calibrator.calibrate(probs)
    torch.testing.assert_close(got[:, 2], probs[:, 2])
    assert not torch.allclose(got[:, 0], probs[:, 0], atol=1e-3)
    assert calibrator.method == "temperature"


@pytest.mark.parametrize("method", ["vector", "isotonic", "kernel"])
def test_a_class_that_nobody_labelled_does_not_vanish(method):
    probs, labels = batch((20, 20), 3)
    labels[:, 0] += labels[:, 2]
    labels[:, 2] = 0
    rows = rows_of(*(it.movedim(1, -1).flatten(0, -2) for it in (probs, labels)))
    got = CLASSES[method].fit(rows).of_rows(torch.tensor([[0.2, 0.2, 0.6]]).double())
    assert got[0, 2] > 0.3


ROWS = rows_of(torch.full((4, 2), 0.5), torch.full((4, 2), 0.5))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: TemperatureScaling(0.0), ValueError, "`temperature` above 0"),
        (lambda: TemperatureScaling(math.nan), ValueError, "`temperature` above 0"),
        (lambda: VectorScaling(torch.ones(2), torch.ones(3)), ValueError, "`scale` and `bias` of one length"),
        (lambda: IsotonicCalibrator([np.array([[0.2, 0.1], [0, 1]])] * 2), ValueError, "`curves` that ascend"),
        (lambda: IsotonicCalibrator([np.array([[0.1, 0.2], [0, 2]])] * 2), ValueError, "`curves` that ascend"),
        (lambda: IsotonicCalibrator([np.array([[0.1, 0.2], [0, 1]])]), ValueError, "at least two classes"),
        (lambda: KernelCalibrator(ROWS, bandwidth=0.0), ValueError, "`bandwidth` above 0"),
        (lambda: OfRegions([]), ValueError, "at least one calibrator"),
        (lambda: VectorScaling.fit(ROWS._replace(weights=torch.ones(3))), ValueError, "`weights` of shape"),
        (lambda: VectorScaling.fit(ROWS._replace(labels=torch.ones(4))), ValueError, "`labels` of shape.*one_hot"),
        (lambda: VectorScaling.fit(ROWS._replace(labels=torch.ones(4, 2).int())), TypeError, "`labels` of a float"),
        (lambda: IsotonicCalibrator.fit(rows_of(torch.ones(0, 2), torch.ones(0, 2))), ValueError, "one row and two"),
        (lambda: TemperatureScaling.fit(rows_of(torch.ones(4, 1), torch.ones(4, 1))), ValueError, "one row and two"),
        (lambda: fit_calibrator("platt", sample()), ValueError, "`method` to be one of"),
        (lambda: fit_calibrator("none", VoxelSample()), ValueError, "call `update`"),
        (lambda: Uncalibrated().calibrate(torch.ones(2, 3)), ValueError, "`probs` of shape"),
        (lambda: Uncalibrated().calibrate(torch.ones(2, 3, 4).int()), TypeError, "`probs` of a floating"),
        (lambda: fit_calibrator("vector", sample()).calibrate(torch.ones(1, 2, 4)), ValueError, "3 classes, got 2"),
        (lambda: read_calibrator({}), ValueError, "an array `methods`"),
        (lambda: read_calibrator({"methods": [], "regions": False}), ValueError, "at least one name"),
        (lambda: read_calibrator({"methods": ["x"], "regions": False}), ValueError, "to be one of"),
        (lambda: read_calibrator({"methods": ["vector"], "regions": False}), ValueError, "an array `scale`"),
        (
            lambda: read_calibrator({"methods": ["temperature"], "regions": 0, "temperature_0": math.nan}),
            ValueError,
            "`temperature` of 0 axes and finite",
        ),
        (
            lambda: read_calibrator({"methods": ["isotonic"], "regions": 0, "curves_0": [[0, 1]] * 2, "lengths_0": [1]}),
            ValueError,
            "of lengths",
        ),
    ],
)  # fmt: skip
def test_bad_arguments_of_calibrators_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("independent", [False, True])
def test_one_class_is_too_few_to_fit_on(independent):
    probs = batch((20, 20), 3)[0]
    made = VoxelSample(independent=independent)
    made.update(probs, torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand_as(probs).contiguous())
    with pytest.raises(ValueError, match="at least two classes"):
        fit_calibrator("temperature", made)
