"""What the tests of this room share: probabilities of every kind, one-hot labels, a miscalibrated model."""

import numpy as np
import torch


def probabilities(n, classes, *, seed=0, sharpness=4.0, saturated=False):
    """(n, classes) float32, summing to one; `saturated` puts exact 0 and 1 into a third of the rows."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, classes)) * sharpness
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    if saturated:
        p[::3] = np.eye(classes)[random.integers(classes, size=len(p[::3]))]
        if classes > 2:  # two classes share, the rest is exactly 0
            share = random.random(len(p[1::3]))
            p[1::3] = 0
            p[1::3, 0], p[1::3, 1] = share, 1 - share
    return torch.from_numpy(p.astype(np.float32))


def one_hot_rows(n, classes, *, seed=0):
    random = np.random.default_rng(seed)
    return torch.eye(classes)[torch.from_numpy(random.integers(classes, size=n))]


def batch(shape, classes, *, seed=0, sharpness=3.0):
    """probs and one-hot labels (2, C, *shape), the labels drawn from a flatter distribution than the probabilities."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *shape, generator=random)
    true = logits.softmax(1).movedim(1, -1)
    drawn = torch.multinomial(true.reshape(-1, classes), 1, generator=random).view(true.shape[:-1])
    labels = torch.nn.functional.one_hot(drawn, classes).movedim(-1, 1).float()
    return (logits * sharpness).softmax(1), labels
