"""Slow, obvious versions of the fusions: loops over voxels, lists of votes."""

import numpy as np


def majority(masks, num_classes, ignore_label=None):
    labels = np.zeros(masks.shape[1:], dtype=int)
    ties = 0
    for index in np.ndindex(labels.shape):
        votes = [sum(int(mask[index]) == c for mask in masks) for c in range(num_classes)]
        winners = [c for c in range(num_classes) if votes[c] == max(votes)]
        labels[index] = winners[0] if any(votes) else ignore_label
        ties += len(winners) > 1 and any(votes)
    return labels, ties


def dice(masks, num_classes, ignore_label=None):
    vote, _ = majority(masks, num_classes, ignore_label)
    scores = []
    for mask in masks:
        per_class = []
        for c in range(1, num_classes):
            a = set(map(tuple, np.argwhere(mask == c)))
            b = {i for i in map(tuple, np.argwhere(vote == c)) if mask[i] != ignore_label}
            per_class.append(2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0)
        scores.append(sum(per_class) / len(per_class) if per_class else 1.0)
    return scores


def weights(masks, num_classes, ignore_label=None):
    scores = dice(masks, num_classes, ignore_label)
    if sum(scores) == 0:
        return [1 / len(scores)] * len(scores)
    return [score / sum(scores) for score in scores]


def fuse(masks, method, num_classes, ignore_label=None):
    each = weights(masks, num_classes, ignore_label) if method == "weighted" else [1] * len(masks)
    consensus, _ = majority(masks, num_classes, ignore_label)
    fused = np.zeros((num_classes + 1, *masks.shape[1:]))
    for index in np.ndindex(masks.shape[1:]):
        voters = [r for r, mask in enumerate(masks) if mask[index] != ignore_label]
        if not voters:
            fused[(-1, *index)] = 1
        elif method == "majority":
            fused[(consensus[index], *index)] = 1
        else:
            mine = [each[r] for r in voters]
            mine = [w / sum(mine) if sum(mine) else 1 / len(mine) for w in mine]
            for r, weight in zip(voters, mine, strict=True):
                fused[(int(masks[r][index]), *index)] += weight
    return fused[:num_classes] if ignore_label is None else fused


def expectation_maximisation(votes, num_classes, *, steps=200, close=1e-7):
    """STAPLE without fallbacks: (C, N) posteriors and (R, given, true) confusion matrices of (R, N) votes."""
    one_hot = np.array([votes == c for c in range(num_classes)], dtype=float)  # C, R, N
    prior = one_hot.mean(axis=(1, 2))
    truth = one_hot.mean(axis=1)
    if num_classes > 2:  # starts at the decided votes, that of two labels at the mean
        most = truth == truth.max(axis=0)
        truth = most * (most.sum(axis=0) == 1)
    before = None
    for _ in range(steps):
        theta = np.einsum("cn,grn->rgc", truth, one_hot)
        with np.errstate(invalid="ignore"):  # a label that is nowhere true any more
            theta = np.nan_to_num(theta / truth.sum(axis=1))
        likelihood = np.array([[theta[r, v] for v in vote] for r, vote in enumerate(votes)])  # R, N, C
        truth = prior[:, None] * likelihood.prod(axis=0).T
        with np.errstate(invalid="ignore"):
            truth = truth / truth.sum(axis=0)
        if before is not None and np.abs(theta - before).max() <= close:
            break
        before, truth = theta, np.nan_to_num(truth)
    return truth, theta, prior


def staple(masks, num_classes):
    votes = masks.reshape(len(masks), -1)
    fused = np.array([(votes == c).mean(axis=0) for c in range(num_classes)])
    labels = sorted(set(votes.ravel().tolist()))
    if len(labels) > 1:
        numbered = np.vectorize(labels.index)(votes)
        truth, theta, prior = expectation_maximisation(numbered, len(labels))
        for i in range(votes.shape[1]):
            given = sorted(set(numbered[:, i].tolist()))
            posterior = truth[given, i] / truth[given, i].sum() if truth[given, i].sum() > 0 else [0] * 9
            ranked = sorted(posterior)
            if len(given) == 1 or not ranked[-1] - ranked[-2] > 1e-6:
                continue
            best = given[int(np.argmax(posterior))]
            others = [c for c in range(len(labels)) if c != best]
            for r in np.flatnonzero(numbered[:, i] == best):
                elsewhere = sum(theta[r, best, c] * prior[c] for c in others) / sum(prior[others])
                if theta[r, best, best] >= elsewhere - 1e-6:  # his label says something for it
                    for c, p in zip(given, posterior, strict=True):
                        fused[labels[c], i] = p
                    break
    return fused.reshape(num_classes, *masks.shape[1:])
