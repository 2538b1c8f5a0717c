"""Slow, obvious versions of the fusions: loops over voxels, lists of votes."""

import numpy as np


def majority(masks, num_classes):
    labels = np.zeros(masks.shape[1:], dtype=int)
    ties = 0
    for index in np.ndindex(labels.shape):
        votes = [sum(int(mask[index]) == c for mask in masks) for c in range(num_classes)]
        winners = [c for c in range(num_classes) if votes[c] == max(votes)]
        labels[index] = winners[0]
        ties += len(winners) > 1
    return labels, ties


def dice(masks, num_classes):
    vote, _ = majority(masks, num_classes)
    scores = []
    for mask in masks:
        per_class = []
        for c in range(1, num_classes):
            a, b = set(map(tuple, np.argwhere(mask == c))), set(map(tuple, np.argwhere(vote == c)))
            per_class.append(2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0)
        scores.append(sum(per_class) / len(per_class) if per_class else 1.0)
    return scores


def weights(masks, num_classes):
    scores = dice(masks, num_classes)
    if sum(scores) == 0:
        return [1 / len(scores)] * len(scores)
    return [score / sum(scores) for score in scores]


def fuse(masks, method, num_classes):
    if method == "majority":
        labels, _ = majority(masks, num_classes)
        return np.array([labels == c for c in range(num_classes)], dtype=float)
    each = weights(masks, num_classes) if method == "weighted" else [1 / len(masks)] * len(masks)
    fused = np.zeros((num_classes, *masks.shape[1:]))
    for weight, mask in zip(each, masks, strict=True):
        for index in np.ndindex(mask.shape):
            fused[(int(mask[index]), *index)] += weight
    return fused
