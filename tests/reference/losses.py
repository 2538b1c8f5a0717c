"""The losses as the papers write them, one set at a time: slow, in NumPy, float64."""

import numpy as np


def _l1(a):
    return np.abs(a).sum()


def dml(x, y, variant=1):
    if variant == 1:
        return 1 - (_l1(x + y) - _l1(x - y)) / _l1(x + y)
    return 1 - 2 * _l1(x * y) / (2 * _l1(x * y) + _l1(x - y))


def jml(x, y, variant=1):
    if variant == 1:
        return 1 - (_l1(x + y) - _l1(x - y)) / (_l1(x + y) + _l1(x - y))
    return 1 - _l1(x * y) / (_l1(x * y) + _l1(x - y))


def ctl(x, y, alpha, beta, gamma=1.0):
    v = _l1(x + y) - _l1(x - y)
    loss = 1 - v / (2 * alpha * _l1(x) + 2 * beta * _l1(y) + (1 - alpha - beta) * v)
    return max(loss, 0.0) ** (1 / gamma)


def stl(x, y, alpha, beta):
    v = (x * y).sum()
    return 1 - v / (alpha * _l1(x) + beta * _l1(y) + (1 - alpha - beta) * v)


def sdl(x, y):
    return 1 - 2 * (x * y).sum() / (_l1(x) + _l1(y))


def sjl(x, y, norm=1):
    v = (x * y).sum()
    return 1 - v / ((x**norm).sum() + (y**norm).sum() - v)


def cross_entropy(logits, target):
    """Mean over voxels; (B, C, *spatial)."""
    total, count = 0.0, 0
    batch, classes = logits.shape[:2]
    for b in range(batch):
        for z, t in zip(logits[b].reshape(classes, -1).T, target[b].reshape(classes, -1).T, strict=True):
            log_sum = np.log(np.exp(z - z.max()).sum()) + z.max()
            total += -(t * (z - log_sum)).sum()
            count += 1
    return total / count


def over_sets(loss, x, y, *, reduction="batch"):
    """The mean of `loss(set, set)` over classes (and images); (B, C, *spatial)."""
    classes = range(x.shape[1])
    if reduction == "batch":
        return np.mean([loss(x[:, c].ravel(), y[:, c].ravel()) for c in classes])
    return np.mean([loss(x[b, c].ravel(), y[b, c].ravel()) for b in range(x.shape[0]) for c in classes])
