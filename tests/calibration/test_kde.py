"""Kernel regression: a slow float64 version, hand-computed values, invariances, limits, bad arguments."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_dml.calibration import kernel_calibrate
from tests.calibration.helpers import one_hot_rows, probabilities
from tests.reference.calibration import kernel_regression, kernel_regression_of_regions

BANDWIDTHS = [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0]


def nearby(keys, n, seed):
    """Queries of which each lies near a key: there the weights of the keys are not simply 0 and 1."""
    random = np.random.default_rng(seed)
    logs = keys.double().clamp(min=1e-30).log()[random.integers(len(keys), size=n)]
    return (logs + torch.from_numpy(random.normal(size=tuple(logs.shape)) * 0.02)).softmax(1).float()


@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 5, 20])
@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
def test_it_equals_the_slow_version(bandwidth, classes, saturated):
    keys = probabilities(60, classes, seed=1, saturated=saturated)
    keys = torch.cat([keys, nearby(keys, 30, 5), keys[:4]])  # neighbours, and keys that are the same
    labels = one_hot_rows(94, classes, seed=2)
    probs = torch.cat(
        [probabilities(30, classes, seed=3, saturated=saturated), nearby(keys, 30, 4), keys[:9]]
    )
    own = torch.full((69,), -1)
    own[60:] = torch.arange(9)
    expected = kernel_regression(probs.numpy(), keys.numpy(), labels.numpy(), bandwidth, own.tolist())
    got = kernel_calibrate(probs, keys, labels, bandwidth=bandwidth, own_key=own)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-5)
    # the case is none in which one key decides everywhere
    if bandwidth > 1e-5:
        assert ((expected > 0.01) & (expected < 0.99)).any()


@pytest.mark.parametrize("bandwidth", BANDWIDTHS)
def test_regions_equal_the_slow_version(bandwidth):
    random = np.random.default_rng(0)
    keys, probs = (torch.from_numpy(random.beta(0.3, 0.3, size=(n, 3))).float() for n in (50, 20))
    keys[:5, 0], keys[5:9, 0], probs[:3] = 1.0, 0.0, torch.tensor([1.0, 0.0, 1.0])
    labels = torch.from_numpy(random.random((50, 3)) < keys.numpy()).float()
    probs = torch.cat([probs, keys[:9]])
    own = torch.cat([torch.full((20,), -1), torch.arange(9)])
    expected = kernel_regression_of_regions(
        probs.numpy(), keys.numpy(), labels.numpy(), bandwidth, own.tolist()
    )
    got = kernel_calibrate(probs, keys, labels, bandwidth=bandwidth, own_key=own, kernel="beta")
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-5)


def test_soft_key_labels_and_key_weights_equal_the_slow_version():
    keys, labels = probabilities(40, 4, seed=1), probabilities(40, 4, seed=2)
    probs, weights = probabilities(10, 4, seed=3), torch.rand(40) * 9 + 0.1
    expected = kernel_regression(
        probs.numpy(), keys.numpy(), labels.numpy(), 0.1, key_weights=weights.tolist()
    )
    got = kernel_calibrate(probs, keys, labels, bandwidth=0.1, key_weights=weights)
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-5)


def test_a_key_of_weight_two_is_a_key_twice():
    keys, labels = probabilities(6, 3, seed=1), one_hot_rows(6, 3, seed=2)
    probs = probabilities(5, 3, seed=3)
    for kernel in ("dirichlet", "beta"):
        twice = kernel_calibrate(
            probs, torch.cat([keys, keys[:1]]), torch.cat([labels, labels[:1]]), bandwidth=0.2, kernel=kernel
        )
        weights = torch.tensor([2.0, 1, 1, 1, 1, 1])
        once = kernel_calibrate(probs, keys, labels, bandwidth=0.2, kernel=kernel, key_weights=weights)
        torch.testing.assert_close(once, twice)


def test_two_keys_by_hand():
    """h = 1: k((p, 1 − p), (q, 1 − q)) = Γ(3) / (Γ(q + 1) Γ(2 − q)) p^q (1 − p)^(1 − q)."""
    p, q, r = 0.25, 1.0, 0.5
    first = 2 * p
    second = 2 / math.gamma(1.5) ** 2 * math.sqrt(p * (1 - p))
    got = kernel_calibrate(
        torch.tensor([[p, 1 - p]]),
        torch.tensor([[q, 1 - q], [r, 1 - r]]),
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        bandwidth=1.0,
    )
    torch.testing.assert_close(got, torch.tensor([[first, second]]) / (first + second))


@given(
    classes=st.integers(2, 20),
    log_bandwidth=st.floats(-5, 0),
    sharpness=st.floats(0.1, 200),
    seed=st.integers(0, 999),
    keys=st.integers(1, 30),
    saturated=st.booleans(),
)
def test_rows_sum_to_one(classes, log_bandwidth, sharpness, seed, keys, saturated):
    make = {"sharpness": sharpness, "saturated": saturated}
    probs = probabilities(20, classes, seed=seed, **make)
    key_probs, labels = (
        probabilities(keys, classes, seed=seed + 1, **make),
        one_hot_rows(keys, classes, seed=seed),
    )
    for own in (None, torch.arange(20) % (keys + 1) - 1):
        got = kernel_calibrate(probs, key_probs, labels, bandwidth=10**log_bandwidth, own_key=own)
        torch.testing.assert_close(got.sum(1), torch.ones(20), rtol=0, atol=1e-6)
        assert got.min() >= 0


@given(kernel=st.sampled_from(["dirichlet", "beta"]), rows=st.integers(1, 50), own=st.booleans())
def test_the_size_of_a_chunk_does_not_matter(kernel, rows, own):
    probs, keys, labels = probabilities(37, 3), probabilities(11, 3, seed=1), one_hot_rows(11, 3)
    options = {"bandwidth": 0.05, "kernel": kernel, "own_key": torch.arange(37) % 12 - 1 if own else None}
    chunked = kernel_calibrate(probs, keys, labels, memory_mib=rows * 11 * 24 / 2**20, **options)
    torch.testing.assert_close(chunked, kernel_calibrate(probs, keys, labels, **options))


class Greatest(TorchDispatchMode):
    """Notes the size in bytes of the greatest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.sizes.append(out.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("kernel", ["dirichlet", "beta"])
def test_beside_the_result_nothing_is_greater_than_the_bound(kernel):
    probs, keys = probabilities(20_000, 6), probabilities(50, 6, seed=1)
    own = torch.full((len(probs),), -1)
    with Greatest() as noted:
        kernel_calibrate(
            probs, keys, one_hot_rows(50, 6), bandwidth=0.1, kernel=kernel, own_key=own, memory_mib=0.1
        )
    result = probs.float().numel() * 4
    inputs = {it.untyped_storage().nbytes() for it in (probs, own)}
    assert max(set(noted.sizes) - {result} - inputs) < 0.1 * 2**20 < result


def test_less_memory_than_a_row_needs_is_a_row():
    probs, keys, labels = probabilities(3, 3), probabilities(11, 3, seed=1), one_hot_rows(11, 3)
    least = kernel_calibrate(probs, keys, labels, bandwidth=0.05, memory_mib=1e-9)
    torch.testing.assert_close(least, kernel_calibrate(probs, keys, labels, bandwidth=0.05))


@pytest.mark.parametrize("kernel", ["dirichlet", "beta"])
def test_the_order_of_keys_classes_and_rows_does_not_matter(kernel):
    probs, keys, labels = probabilities(9, 4), probabilities(20, 4, seed=1), one_hot_rows(20, 4)
    straight = kernel_calibrate(probs, keys, labels, bandwidth=0.1, kernel=kernel)
    keys_order, classes_order, rows_order = torch.randperm(20), torch.randperm(4), torch.randperm(9)
    shuffled = kernel_calibrate(
        probs[rows_order][:, classes_order],
        keys[keys_order][:, classes_order],
        labels[keys_order][:, classes_order],
        bandwidth=0.1,
        kernel=kernel,
    )
    torch.testing.assert_close(shuffled, straight[rows_order][:, classes_order])


def test_on_two_classes_beta_is_dirichlet():
    probs, keys, labels = probabilities(9, 2), probabilities(20, 2, seed=1), one_hot_rows(20, 2)
    for own in (None, torch.arange(9)):
        dirichlet, beta = (
            kernel_calibrate(probs, keys, labels, bandwidth=0.01, own_key=own, kernel=kernel)
            for kernel in ("dirichlet", "beta")
        )
        torch.testing.assert_close(beta, dirichlet)


def test_leave_one_out_is_the_estimate_without_that_key():
    keys, labels = probabilities(7, 3, seed=1), one_hot_rows(7, 3, seed=3)
    labels[5], labels[6] = labels[0], labels[1]  # no class has one key only
    for kernel in ("dirichlet", "beta"):
        got = kernel_calibrate(
            keys, keys, labels, bandwidth=0.3, own_key=torch.arange(7, dtype=torch.int32), kernel=kernel
        )
        for i in range(7):
            rest = [j for j in range(7) if j != i]
            alone = kernel_calibrate(keys[[i]], keys[rest], labels[rest], bandwidth=0.3, kernel=kernel)
            torch.testing.assert_close(got[[i]], alone)


def test_a_key_that_is_the_only_one_of_its_class_keeps_that_value():
    keys, labels = probabilities(5, 3, seed=1), torch.eye(3)[[0, 0, 1, 1, 2]]
    got = kernel_calibrate(keys, keys, labels, bandwidth=0.3, own_key=torch.arange(5))
    torch.testing.assert_close(got[4, 2], keys[4, 2])
    assert got[4, :2].sum() == pytest.approx(1 - float(keys[4, 2]))
    assert abs(float(got[0, 2] - keys[0, 2])) > 1e-3


def test_classes_without_a_key_keep_their_value_and_the_rest_is_spread():
    probs = torch.tensor([[0.5, 0.3, 0.2]])
    keys, labels = probabilities(9, 3, seed=1), torch.eye(3)[[0, 1, 0, 1, 1, 0, 1, 1, 1]]
    got = kernel_calibrate(probs, keys, labels, bandwidth=10.0)
    assert got[0, 2] == pytest.approx(0.2)
    full = kernel_calibrate(probs, keys, labels[:, [0, 2, 1]], bandwidth=10.0)[
        :, [0, 2, 1]
    ]  # the same weights
    torch.testing.assert_close(got[0, :2] / 0.8, full[0, :2] / full[0, :2].sum())


def test_keys_of_one_class_only_change_nothing():
    probs, keys = probabilities(9, 3, saturated=True), probabilities(5, 3, seed=1)
    labels = torch.eye(3)[[1] * 5]
    torch.testing.assert_close(kernel_calibrate(probs, keys, labels, bandwidth=0.1), probs)
    torch.testing.assert_close(kernel_calibrate(probs, keys, labels, bandwidth=0.1, kernel="beta"), probs)


def test_a_region_that_all_keys_contain_keeps_its_value():
    probs, keys = torch.rand(4, 2), torch.rand(6, 2)
    labels = torch.tensor([[1.0, 0.0], [1, 1], [1, 0], [1, 1], [1, 0], [1, 1]])
    got = kernel_calibrate(probs, keys, labels, bandwidth=0.1, kernel="beta")
    torch.testing.assert_close(got[:, 0], probs[:, 0])
    assert (got[:, 1] - probs[:, 1]).abs().max() > 0.01


@pytest.mark.parametrize("kernel", ["dirichlet", "beta"])
def test_without_keys_or_rows_comes_back_a_copy(kernel):
    probs = probabilities(4, 3)
    got = kernel_calibrate(probs, probs[:0], probs[:0], bandwidth=0.1, kernel=kernel)
    assert torch.equal(got, probs)
    assert got.data_ptr() != probs.data_ptr()
    assert kernel_calibrate(probs[:0], probs, probs, bandwidth=0.1, kernel=kernel).shape == (0, 3)


def test_its_own_only_key_leaves_a_row_as_it_is():
    probs = probabilities(1, 3)
    got = kernel_calibrate(probs, probs, torch.eye(3)[:1], bandwidth=0.1, own_key=torch.tensor([0]))
    torch.testing.assert_close(got, probs)


def test_a_single_class_is_certain():
    ones = torch.ones(3, 1)
    torch.testing.assert_close(kernel_calibrate(ones, ones, ones, bandwidth=0.1), ones)


def test_a_great_bandwidth_gives_the_mean_of_the_keys():
    probs, keys, labels = probabilities(9, 3), probabilities(20, 3, seed=1), one_hot_rows(20, 3)
    got = kernel_calibrate(probs, keys, labels, bandwidth=1e7)
    torch.testing.assert_close(got, labels.mean(0).expand(9, 3), rtol=0, atol=1e-4)


def test_a_tiny_bandwidth_gives_the_nearest_key():
    keys, labels = probabilities(20, 3, seed=1, sharpness=1.0), one_hot_rows(20, 3)
    probs = probabilities(9, 3, sharpness=1.0)
    divergence = (keys[None].double() * (keys[None].double().log() - probs[:, None].double().log())).sum(2)
    got = kernel_calibrate(probs, keys, labels, bandwidth=1e-8)
    torch.testing.assert_close(got, labels[divergence.argmin(1)])


def test_nothing_is_changed_and_no_gradient_flows():
    probs, keys, labels = probabilities(9, 3), probabilities(20, 3, seed=1), one_hot_rows(20, 3)
    own, weights = torch.arange(9), torch.rand(20) + 1
    given_tensors = (probs, keys, labels, own, weights)
    before = [it.clone() for it in given_tensors]
    for dtype in (torch.float32, torch.float64):
        for kernel in ("dirichlet", "beta"):
            p = probs.to(dtype, copy=True).requires_grad_()
            got = kernel_calibrate(
                p, keys, labels, bandwidth=0.1, own_key=own, key_weights=weights, kernel=kernel
            )
            assert not got.requires_grad
            assert got.dtype == dtype
            assert torch.equal(p.float(), before[0])
    assert all(torch.equal(*pair) for pair in zip(given_tensors, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_as_it_stands(dtype):
    probs, keys, labels = (
        it.to(dtype) for it in (probabilities(9, 3), probabilities(20, 3, seed=1), one_hot_rows(20, 3))
    )
    got = kernel_calibrate(probs, keys, labels, bandwidth=1e-3)
    assert got.dtype == torch.float32
    torch.testing.assert_close(
        got, kernel_calibrate(probs.float(), keys.float(), labels.float(), bandwidth=1e-3)
    )
    torch.testing.assert_close(got.sum(1), torch.ones(9))


def test_autocast_and_fast_products_change_nothing():
    probs, keys, labels = probabilities(9, 3), probabilities(500, 3, seed=1), probabilities(500, 3, seed=2)
    plain = kernel_calibrate(probs, keys, labels, bandwidth=0.1)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(kernel_calibrate(probs, keys, labels, bandwidth=0.1), plain)
    finally:
        torch.set_float32_matmul_precision(precision)


ROWS = torch.full((4, 2), 0.5)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"bandwidth": 0.0}, ValueError, "`bandwidth` above 0 and finite, got 0.0"),
        ({"bandwidth": -1e-3}, ValueError, "`bandwidth` above 0"),
        ({"bandwidth": float("nan")}, ValueError, "`bandwidth` above 0"),
        ({"bandwidth": float("inf")}, ValueError, "`bandwidth` above 0"),
        ({"kernel": "gauss"}, ValueError, "`kernel` to be one of .*beta"),
        ({"memory_mib": 0}, ValueError, "`memory_mib` above 0"),
        ({"probs": ROWS.long()}, TypeError, "`probs` of a floating dtype"),
        ({"key_labels": ROWS.bool()}, TypeError, "`key_labels` of a floating dtype"),
        ({"probs": ROWS[0]}, ValueError, "`probs` of two axes"),
        ({"key_probs": ROWS[None]}, ValueError, "`key_probs` of two axes"),
        ({"key_labels": ROWS[:3]}, ValueError, r"`key_labels` of shape \(4, 2\)"),
        ({"probs": ROWS[:, :1]}, ValueError, "same classes, at least one, got 1 and 2"),
        (
            {"probs": ROWS[:, :0], "key_probs": ROWS[:, :0], "key_labels": ROWS[:, :0]},
            ValueError,
            "same classes",
        ),
        ({"own_key": torch.zeros(4)}, TypeError, "`own_key` of an integer dtype"),
        ({"own_key": torch.zeros(3, dtype=torch.long)}, ValueError, r"`own_key` of shape \(4,\)"),
        ({"key_weights": torch.ones(3)}, ValueError, r"`key_weights` of shape \(4,\)"),
    ],
)
def test_bad_arguments_are_named(changes, error, words):
    arguments = {"probs": ROWS, "key_probs": ROWS, "key_labels": ROWS, "bandwidth": 0.1, **changes}
    first = [arguments.pop(name) for name in ("probs", "key_probs", "key_labels")]
    with pytest.raises(error, match=words):
        kernel_calibrate(*first, **arguments)
