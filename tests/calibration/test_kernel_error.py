"""The calibration error without bins: the slow version, what is known of it, bad arguments."""

import numpy as np
import pytest
import torch

from nnunet_dml.calibration import kernel_calibration_error
from tests.calibration.helpers import batch, one_hot_rows, probabilities
from tests.reference.calibration import canonical_error


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("bandwidth", [1e-3, 0.1])
def test_it_equals_the_slow_version(norm, bandwidth):
    probs, labels = probabilities(30, 3), one_hot_rows(30, 3)
    labels[:, 2], labels[:, 0] = 0, labels[:, 0] + labels[:, 2]  # a class without a label is an error, too
    got = kernel_calibration_error(probs, labels, bandwidth=bandwidth, norm=norm)
    assert float(got) == pytest.approx(
        canonical_error(probs.numpy(), labels.numpy(), bandwidth, norm), abs=1e-6
    )


@pytest.mark.parametrize("norm", [1, 2])
def test_top_label_and_marginal_are_two_class_problems(norm):
    probs, labels = probabilities(30, 3).double(), probabilities(30, 3, seed=1).double()
    top = probs.argmax(1)
    x, y = (a[range(30), top].numpy() for a in (probs, labels))
    factor = 2 ** (1 / norm)  # both of the two columns are off by the same
    pair = [np.stack([1 - a, a], 1) for a in (x, y)]
    got = kernel_calibration_error(probs, labels, bandwidth=0.1, norm=norm, kind="top_label")
    assert float(got) == pytest.approx(canonical_error(*pair, 0.1, norm) / factor, abs=1e-6)
    of_classes = [
        canonical_error(
            *(np.stack([1 - a[:, c], a[:, c]], 1) for a in (probs.numpy(), labels.numpy())), 0.1, norm
        )
        / factor
        for c in range(3)
    ]
    got = kernel_calibration_error(probs, labels, bandwidth=0.1, norm=norm, kind="marginal")
    assert float(got) == pytest.approx(np.mean(np.power(of_classes, norm)) ** (1 / norm), abs=1e-6)


@pytest.mark.parametrize("kind", ["canonical", "top_label", "marginal"])
def test_a_calibrated_model_has_a_smaller_error(kind):
    errors = []
    for sharpness in (1.0, 3.0, 6.0):
        probs, labels = (it.movedim(1, -1).flatten(0, -2) for it in batch((25, 40), 3, sharpness=sharpness))
        errors.append(float(kernel_calibration_error(probs, labels, bandwidth=0.05, kind=kind)))
    assert errors[0] < 0.5 * errors[1] < 0.5 * errors[2]


def test_two_voxels_by_hand():
    probs = torch.tensor([[0.8, 0.2], [0.6, 0.4]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # each is held against the other's label
    assert float(kernel_calibration_error(probs, labels, bandwidth=0.1)) == pytest.approx((1.6 + 0.8) / 2)
    root = np.sqrt((2 * 0.8**2 + 2 * 0.4**2) / 2)
    assert float(kernel_calibration_error(probs, labels, bandwidth=0.1, norm=2)) == pytest.approx(root)


def test_memory_does_not_matter_and_nothing_is_changed():
    probs, labels = probabilities(40, 3).double(), one_hot_rows(40, 3).double()
    before = probs.clone(), labels.clone()
    for kind in ("canonical", "top_label", "marginal"):
        whole, chunked = (
            kernel_calibration_error(probs, labels, bandwidth=0.1, kind=kind, memory_mib=memory)
            for memory in (8.0, 0.01)
        )
        torch.testing.assert_close(whole, chunked)
    assert torch.equal(probs, before[0])
    assert torch.equal(labels, before[1])


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_voxels_have_no_error(n):
    assert kernel_calibration_error(torch.ones(n, 2), torch.ones(n, 2), bandwidth=0.1).isnan()


ROWS = torch.full((4, 2), 0.5)


@pytest.mark.parametrize(
    ("labels", "changes", "error", "words"),
    [
        (ROWS, {"kind": "static"}, ValueError, "`kind` to be one of .*top_label"),
        (ROWS, {"norm": 3}, ValueError, "`norm` to be one of"),
        (ROWS, {"bandwidth": 0}, ValueError, "`bandwidth` above 0"),
        (ROWS, {"memory_mib": 0}, ValueError, "`memory_mib` above 0"),
        (ROWS[:3], {}, ValueError, "`labels` of shape"),
        (ROWS.long(), {}, TypeError, "`labels` of a floating"),
    ],
)
def test_bad_arguments_of_the_error_are_named(labels, changes, error, words):
    with pytest.raises(error, match=words):
        kernel_calibration_error(ROWS, labels, **{"bandwidth": 0.1, **changes})
