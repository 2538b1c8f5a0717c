"""Small random cases for the tests of metrics."""

import numpy as np


def two(foreground, dtype=np.float64):
    """Background and foreground."""
    p = np.asarray(foreground, dtype=dtype)
    return np.stack([1 - p, p])


def random_case(seed, shape=(6, 7), classes=3, raters=4, sharpness=2.0):
    """Probabilities (float32), label maps of raters, and the mean of these (float32)."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.standard_normal((classes, *shape))
    probs = np.exp(logits) / np.exp(logits).sum(0)
    votes = rng.integers(0, classes, (raters, *shape))
    soft = np.stack([(votes == c).mean(0) for c in range(classes)])
    return probs.astype(np.float32), votes, soft.astype(np.float32)


def one_hot(labels, classes=3):
    return np.stack([labels == c for c in range(classes)])
