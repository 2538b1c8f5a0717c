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


def ctl(x, y, alpha, beta, gamma=1.0, power=1.0):
    v = _l1(x + y) - _l1(x - y)
    loss = 1 - v / (2 * alpha * _l1(x) + 2 * beta * _l1(y) + (1 - alpha - beta) * v)
    return max(loss, 0.0) ** (power / gamma)


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


def lovasz(x, y):
    """Sets of the i largest errors, for every i: the Jaccard loss of predicting just these wrongly."""
    errors = np.abs(x - y)
    order = np.argsort(-errors, kind="stable")
    total, before = 0.0, 0.0
    for i in range(len(order)):
        wrong = set(order[: i + 1].tolist())
        right = [k for k in range(len(y)) if y[k] == 1 and k not in wrong]
        union = [k for k in range(len(y)) if y[k] == 1 or k in wrong]
        jaccard = 1 - len(right) / len(union)
        total += errors[order[i]] * (jaccard - before)
        before = jaccard
    return total


def weighted_cross_entropy(logits, target, weights, mask):
    """Σ w y (−log p) / Σ w y over valid voxels; (B, C, *spatial), mask (B, *spatial)."""
    weights = np.ones(logits.shape[1]) if weights is None else weights
    above = below = 0.0
    for b, *voxel in np.argwhere(mask):
        z, t = logits[(b, slice(None), *voxel)], target[(b, slice(None), *voxel)]
        log_p = z - np.log(np.exp(z).sum())
        above += (weights * t * -log_p).sum()
        below += (weights * t).sum()
    return above / below if below else 0.0


def binary_cross_entropy(logits, target, weights, mask):
    """The mean over valid voxels and channels, weighted over channels."""
    weights = np.ones(logits.shape[1]) if weights is None else weights
    total = 0.0
    for b, *voxel in np.argwhere(mask):
        z, t = logits[(b, slice(None), *voxel)], target[(b, slice(None), *voxel)]
        p = 1 / (1 + np.exp(-z))
        total += (weights * -(t * np.log(p) + (1 - t) * np.log(1 - p))).sum()
    return total / (weights.sum() * mask.sum()) if mask.any() else 0.0


def active(x, y, mode, threshold):
    """Which classes of a set of voxels are active; lists of (C,) vectors."""
    found = []
    for c in range(len(x[0]) if x else 0):
        label, prob = max(v[c] for v in y) > threshold, max(v[c] for v in x) > threshold
        first = [int(np.argmax([1 - v.sum(), *v])) - 1 for v in y]  # the rest first: it wins a tie
        present = c in first or any(v[c] > 0.5 for v in y)
        rule = {"all": True, "present": present, "label": label, "prob": prob, "both": label and prob}
        found.append(rule[mode])
    return np.array(found, bool)


def over_sets(
    loss, x, y, *, reduction="batch", mode="all", threshold=0.01, weights=None, mask=None, log=False
):
    """The mean of `loss(set, set)` over the sets of a reduction or a mixture; (B, C, *spatial)."""
    batch, classes = x.shape[:2]
    if isinstance(reduction, dict):
        options = {"mode": mode, "threshold": threshold, "weights": weights, "mask": mask, "log": log}
        parts = [w * over_sets(loss, x, y, reduction=name, **options) for name, w in reduction.items() if w]
        return sum(parts) / sum(reduction.values())
    mask = np.ones((batch, *x.shape[2:]), bool) if mask is None else mask
    weights = np.ones(classes) if weights is None else np.asarray(weights, float)
    images = [range(batch)] if reduction == "batch" else [[b] for b in range(batch)]
    losses, counts = np.zeros((len(images), classes)), np.zeros((len(images), classes), bool)
    for i, members in enumerate(images):
        voxels = [(b, slice(None), *v) for b in members for v in np.argwhere(mask[b])]
        xs, ys = [x[v] for v in voxels], [y[v] for v in voxels]
        if not voxels:
            counts[i] = mode == "all"
            continue
        counts[i] = active(xs, ys, mode, threshold)
        for c in range(classes):
            delta = loss(np.array([v[c] for v in xs]), np.array([v[c] for v in ys]))
            losses[i, c] = -np.log(1 - delta) if log else delta
    if reduction == "class":
        columns = [(losses[counts[:, c], c].mean(), weights[c]) for c in range(classes) if counts[:, c].any()]
        total = sum(w for _, w in columns)
        return sum(v * w for v, w in columns) / total if total else 0.0
    rows = [(losses[i] * weights * counts[i]).sum() / (weights * counts[i]).sum()
            for i in range(len(images)) if (weights * counts[i]).any()]  # fmt: skip
    return float(np.mean(rows)) if rows else 0.0
