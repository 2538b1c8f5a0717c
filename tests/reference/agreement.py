"""Slow, obvious versions of the figures of agreement: lists of votes, voxel by voxel. None is an abstention."""

from collections import Counter
from itertools import product


def winner(votes):
    """The label with the most votes, the lowest on ties; None where nobody voted."""
    counts = Counter(vote for vote in votes if vote is not None)
    return min(counts, key=lambda label: (-counts[label], label)) if counts else None


def dice(first, second, members):
    """Over the voxels in which both voted; None where there are none."""
    pairs = [(a in members, b in members) for a, b in zip(first, second, strict=True) if None not in (a, b)]
    sizes = sum(a + b for a, b in pairs)
    if not pairs:
        return None
    return 1.0 if sizes == 0 else 2 * sum(a and b for a, b in pairs) / sizes


def kappa(columns, members):
    """Every pair of votes on a voxel is looked at."""
    agreeing, shares = [], []
    for votes in columns:
        inside = [vote in members for vote in votes if vote is not None]
        if len(inside) < 2:
            continue
        pairs = [(a, b) for (i, a), (j, b) in product(enumerate(inside), repeat=2) if i != j]
        agreeing.append(sum(a == b for a, b in pairs) / len(pairs))
        shares.append(sum(inside) / len(inside))
    if not shares or set(shares) in ({0.0}, {1.0}):
        return None
    observed, share = sum(agreeing) / len(agreeing), sum(shares) / len(shares)
    chance = share**2 + (1 - share) ** 2
    return (observed - chance) / (1 - chance)


def agreement(raters, members):
    """All figures of one class as a dict; `raters` are lists of votes."""
    columns = list(zip(*raters, strict=True))
    vote = [winner(column) for column in columns]
    others = [[winner(c[:r] + c[r + 1 :]) for c in columns] for r in range(len(raters))]
    cast = [[vote for vote in column if vote is not None] for column in columns]
    given = [[v in members for v in votes] for votes in cast]
    return {
        "dice_majority": [dice(rater, vote, members) for rater in raters],
        "dice_others": [dice(rater, rest, members) for rater, rest in zip(raters, others, strict=True)],
        "dice_pairs": [[dice(a, b, members) for b in raters] for a in raters],
        "kappa": kappa(columns, members),
        "sizes": [sum(v in members for v in rater) for rater in raters],
        "majority_size": sum(v in members for v in vote if v is not None),
        "voxels": sum(bool(votes) for votes in cast),
        "union": sum(any(votes) for votes in given),
        "disputed": sum(any(votes) and not all(votes) for votes in given),
        "tied": sum(_tied(votes, members) for votes in cast),
    }


def _tied(votes, members):
    counts = Counter(votes)
    best = [label for label in counts if counts[label] == max(counts.values())]
    return {label in members for label in best} == {True, False}
