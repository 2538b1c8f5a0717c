"""Slow, obvious versions of kernel regression and of what is built on it: float64, one pair after the other."""

import math

import numpy as np

FLOOR = float(np.finfo(np.float32).tiny)  # what a probability of 0 is taken for


def log_kernel(x, key, bandwidth):
    """The logarithm of the Dirichlet kernel, Eq. 23 of Dice Semimetric Losses (two classes: Eq. 22)."""
    alpha = [float(k) / bandwidth + 1 for k in key]
    terms = [(a - 1) * math.log(max(float(p), FLOOR)) - math.lgamma(a) for a, p in zip(alpha, x, strict=True)]
    return math.lgamma(sum(alpha)) + math.fsum(terms)


def kernel_regression(probs, key_probs, key_labels, bandwidth, own_key=None, key_weights=None):
    """Eq. 21 for each row; classes without a key keep their value. Arrays (N, C), (M, C), (M, C)."""
    result = probs.astype(np.float64)
    for j, x in enumerate(probs):
        others = [i for i in range(len(key_probs)) if own_key is None or own_key[j] != i]
        known = [c for c in range(probs.shape[1]) if any(key_labels[i, c] > 0 for i in others)]
        if not known:
            continue
        logs = np.array([log_kernel(x, key_probs[i], bandwidth) for i in others])
        if key_weights is not None:
            logs += np.log([key_weights[i] for i in others])
        kernels = np.exp(logs - logs.max())
        estimate = sum(k * key_labels[i].astype(np.float64) for k, i in zip(kernels, others, strict=True))
        left = 1 - sum(float(x[c]) for c in range(len(x)) if c not in known)
        for c in known:
            result[j, c] = left * estimate[c] / sum(estimate[known])
    return result


def kernel_regression_of_regions(probs, key_probs, key_labels, bandwidth, own_key=None, key_weights=None):
    """Each column against the rest: a Beta kernel, as a Dirichlet kernel of two classes."""
    result = probs.astype(np.float64)
    for c in range(probs.shape[1]):
        x, k, y = (
            np.stack([1 - a[:, c].astype(np.float64), a[:, c].astype(np.float64)], 1)
            for a in (probs, key_probs, key_labels)
        )
        for j in range(len(x)):
            others = np.array([i for i in range(len(k)) if own_key is None or own_key[j] != i], dtype=int)
            if (y[others] > 0).any(0).all():
                one = kernel_regression(
                    x[[j]],
                    k[others],
                    y[others],
                    bandwidth,
                    key_weights=None if key_weights is None else key_weights[others],
                )
                result[j, c] = one[0, 1]
    return result


def canonical_error(probs, labels, bandwidth, norm):
    total = 0.0
    for j, x in enumerate(probs):
        others = [i for i in range(len(probs)) if i != j]
        logs = np.array([log_kernel(x, probs[i], bandwidth) for i in others])
        kernels = np.exp(logs - logs.max())
        estimate = sum(k * labels[i] for k, i in zip(kernels, others, strict=True)) / kernels.sum()
        total += sum(abs(e - p) ** norm for e, p in zip(estimate, x, strict=True))
    return (total / len(probs)) ** (1 / norm)


def negative_log_likelihood(logits, labels, temperature):
    total = 0.0
    for z, y in zip(logits.tolist(), labels.tolist(), strict=True):
        scaled = [v / temperature for v in z]
        top = max(scaled)
        norm = top + math.log(sum(math.exp(v - top) for v in scaled))
        total -= sum(share * (v - norm) for share, v in zip(y, scaled, strict=True))
    return total / len(logits)
