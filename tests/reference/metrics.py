"""Slow, obvious versions of the metrics: loops over voxels, plain Python numbers."""

from fractions import Fraction
from statistics import NormalDist, fmean, pstdev

import numpy as np
from scipy.integrate import trapezoid


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


def iou(prediction, reference):
    both = int((prediction & reference).sum())
    either = int((prediction | reference).sum())
    return both / either if either else 1.0


def soft_dice(p, y):
    both = total = 0.0
    for a, b in zip(p.ravel().tolist(), y.ravel().tolist(), strict=True):
        both += min(a, b)
        total += a + b
    return 2 * both / total if total else 1.0


def binned_gaps(values, truths, bins):
    """(voxels, |sum of truths − sum of values|) of each bin of equal width."""
    rows = [[0, 0.0] for _ in range(bins)]
    for value, truth in zip(values.ravel().tolist(), truths.ravel().tolist(), strict=True):
        row = rows[next(b for b in range(bins) if b == bins - 1 or value < (b + 1) / bins)]
        row[0] += 1
        row[1] += truth - value
    return [(n, abs(gap)) for n, gap in rows]


def top_label(probs, soft):
    """Confidence of each voxel, and the share of its predicted class."""
    columns = zip(
        probs.reshape(len(probs), -1).T.tolist(), soft.reshape(len(soft), -1).T.tolist(), strict=True
    )
    pairs = []
    for p, y in columns:
        top = max(range(len(p)), key=lambda c: (p[c], -c))
        pairs.append((p[top], y[top]))
    return tuple(np.array(side) for side in zip(*pairs, strict=True))


def adaptive_error(values, truths, bins):
    """Sort, then fill one bin after the other; voxels of one value share what they have evenly."""
    groups = {}
    for value, truth in zip(values.tolist(), truths.tolist(), strict=True):
        groups.setdefault(Fraction(value), []).append(Fraction(truth) - Fraction(value))
    size = Fraction(len(values), bins)
    gaps, room, gap = [], size, Fraction(0)
    for _, members in sorted(groups.items()):
        left, mean = Fraction(len(members)), sum(members) / len(members)
        while left:
            taken = min(left, room)
            gap += taken * mean
            left, room = left - taken, room - taken
            if not room:
                gaps.append(abs(gap))
                room, gap = size, Fraction(0)
    return float(sum(gaps) / len(values))


def brier(probs, soft):
    return sum(((p - y) ** 2).sum() for p, y in zip(probs, soft, strict=True)) / probs[0].size


def nll(probs, soft, least=1e-7):
    return (
        sum(-(y * np.log(np.maximum(p, least))).sum() for p, y in zip(probs, soft, strict=True))
        / probs[0].size
    )


def energy_distance(samples, raters):
    """Of one class: lists of masks."""

    def mean_distance(first, second):
        return np.mean([1 - iou(a, b) for a in first for b in second])

    return (
        2 * mean_distance(samples, raters) - mean_distance(samples, samples) - mean_distance(raters, raters)
    )


def normal_cdf(t, mean, deviation):
    normal = NormalDist(mean, deviation)
    return np.array([normal.cdf(x) for x in t])


def crps(predicted, volumes, steps=20_001):
    """The integral, by a fine sum; standard deviation of the volumes themselves."""
    mean, deviation = fmean(volumes), pstdev(volumes)
    low, high = min(mean - 9 * deviation, predicted), max(mean + 9 * deviation, predicted)
    parts = [np.linspace(low, predicted, steps), np.linspace(predicted, high, steps)]
    wanted = [0, 1]
    pieces = zip(parts, wanted, strict=True)
    return float(sum(trapezoid((normal_cdf(t, mean, deviation) - w) ** 2, t) for t, w in pieces))


def dilated(mask, radius):
    """Every voxel that has one of the mask in its box."""
    result = np.zeros_like(mask)
    for index in np.ndindex(mask.shape):
        box = tuple(slice(max(0, i - radius), i + radius + 1) for i in index)
        result[index] = mask[box].any()
    return result


def surface_distances(first, second, spacing):
    """Of each surface voxel of the first mask, to the nearest one of the second."""

    def surface(mask):
        padded = np.pad(mask, 1)
        found = []
        for index in np.argwhere(padded):
            moves = [d * step for d in np.eye(mask.ndim, dtype=int) for step in (-1, 1)]
            if not all(padded[tuple(index + move)] for move in moves):
                found.append((index - 1) * np.array(spacing))
        return found

    return [min(np.linalg.norm(a - b) for b in surface(second)) for a in surface(first)]
