"""Slow, obvious versions of the metrics: loops over voxels, plain Python numbers."""

from fractions import Fraction

import numpy as np


def dice(prediction, reference):
    both = pred = ref = 0
    for p, r in zip(prediction.ravel().tolist(), reference.ravel().tolist(), strict=True):
        both += bool(p) and bool(r)
        pred += bool(p)
        ref += bool(r)
    return 1.0 if pred + ref == 0 else 2 * both / (pred + ref)


def bdice(probs, soft_reference, thresholds=tuple(Fraction(k, 10) for k in range(1, 10))):
    """Per foreground class; exact for values that are meant as fractions with a small denominator."""
    result = []
    for p, y in zip(probs[1:], soft_reference[1:], strict=True):
        exact = [np.array([Fraction(v).limit_denominator(1000) for v in a.ravel().tolist()]) for a in (p, y)]
        cuts = [[np.array([v >= t for v in a]) for a in exact] for t in thresholds]
        result.append(sum(dice(*pair) for pair in cuts) / len(cuts))
    return np.array(result)


def ece(probs, labels, bins=10):
    confidences = [[] for _ in range(bins)]
    hits = [[] for _ in range(bins)]
    columns = probs.reshape(len(probs), -1).T.tolist()
    for column, label in zip(columns, labels.ravel().tolist(), strict=True):
        top = max(range(len(column)), key=lambda c: (column[c], -c))
        place = next(b for b in range(bins) if b == bins - 1 or column[top] < (b + 1) / bins)
        confidences[place].append(column[top])
        hits[place].append(top == label)
    return sum(abs(sum(h) - sum(c)) for h, c in zip(hits, confidences, strict=True)) / labels.size


def volume_bias(probs, soft_reference):
    pairs = zip(probs[1:], soft_reference[1:], strict=True)
    return np.array([(p.sum() - y.sum()) / y.sum() if y.sum() else np.nan for p, y in pairs])


def bdice_in_floats(probs, soft_reference):
    """`bdice` for values that are nowhere near a threshold."""
    cuts = [
        [(p >= k / 10, y >= k / 10) for k in range(1, 10)]
        for p, y in zip(probs[1:], soft_reference[1:], strict=True)
    ]
    return np.array([np.mean([dice(*pair) for pair in of_class]) for of_class in cuts])
