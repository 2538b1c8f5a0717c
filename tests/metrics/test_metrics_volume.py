import numpy as np
import pytest
import torch

from nnunet_dml.metrics import volume_bias
from tests.reference import metrics as slow


def two(foreground):
    p = np.asarray(foreground, dtype=np.float64)
    return np.stack([1 - p, p])


def test_by_hand_and_signed():
    np.testing.assert_allclose(volume_bias(two([0.9, 0.6]), two([1.0, 0.0])), [0.5])
    np.testing.assert_allclose(volume_bias(two([0.0, 0.5]), two([1.0, 0.0])), [-0.5])


def test_equals_the_slow_version_per_class_and_in_any_dimension():
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(4), (2, 5, 3)), rng.dirichlet(np.ones(4), (2, 5, 3))
    p, y = np.moveaxis(p, -1, 0), np.moveaxis(y, -1, 0)
    np.testing.assert_allclose(volume_bias(p, y), slow.volume_bias(p, y))
    tensors = torch.from_numpy(p.copy()), torch.from_numpy(y.copy())
    np.testing.assert_allclose(volume_bias(*tensors), volume_bias(p, y), rtol=1e-12)
    keep = rng.random((2, 5, 3)) > 0.5
    np.testing.assert_allclose(volume_bias(p, y, mask=keep), slow.volume_bias(p[:, keep], y[:, keep]))


def test_empty_cases():
    assert np.isnan(volume_bias(two([0.2, 0.0]), two([0.0, 0.0]))[0])
    assert np.isnan(volume_bias(two([0.0, 0.0]), two([0.0, 0.0]))[0])
    assert volume_bias(two([0.0, 0.0]), two([0.0, 1.0]))[0] == -1


def test_refuses_logits():
    with pytest.raises(ValueError, match="Logits need a softmax first"):
        volume_bias(two([2.0, -1.0]), two([1.0, 0.0]))
