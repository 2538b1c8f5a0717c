"""How much several raters of one case agree, per class: Dice of each against the others, Fleiss' kappa, disputed voxels.

A rater may abstain in a voxel (nnU-Net's ignore label). A vote is then of those who voted, and a figure of two
masks is over the voxels in which both voted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml._checks import check_same_shape
from nnunet_dml.metrics.empty_cases import overlap_ratio

Labels: TypeAlias = npt.NDArray[np.integer[Any]]
Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How much the R raters of one case agree on one class. Dice values are in [0, 1]."""

    dice_majority: Floats
    """`(R,)`: each rater against the majority vote of all, himself included; NaN if he abstained everywhere."""
    dice_others: Floats
    """`(R,)`: each rater against the majority vote of the others; NaN where no other voted."""
    dice_pairs: Floats
    """`(R, R)`: each rater against each, symmetric, 1 on the diagonal; NaN where no voxel has both votes."""
    kappa: float
    """Fleiss' kappa of "this class or not"; see `fleiss_kappa`."""
    sizes: npt.NDArray[np.int64]
    """`(R,)`: how many voxels each rater gave the class."""
    majority_size: int
    """How many the majority vote gave it."""
    voxels: int
    """In how many voxels anybody voted."""
    union: int
    """How many any rater gave the class."""
    disputed: int
    """How many of them not every rater who voted there did."""
    tied: int
    """In how many a label of the class and another one shared the most votes."""
    majority_both_empty: int
    """How many of `dice_majority` the policy of `empty_cases` decided: 0/0."""


def agreement(
    labels: Labels, *, classes: Sequence[Collection[int]], num_classes: int, voted: Bools | None = None
) -> list[Agreement]:
    r"""How much the raters of one case agree on each class or region.

    With rater r's mask :math:`M_r` of a class and the majority vote's V (the label with the most votes; ties go to
    the lowest), over the voxels in which rater r voted,

    .. math:: D_r = 2 |M_r \cap V| / (|M_r| + |V|)

    A region is voted on label by label, as in `labelsTr`: its V are the voxels whose winning label belongs to it.

    Args:
        labels: `(R, *spatial)`, integers from 0 to `num_classes − 1`; where a rater abstains any value.
        classes: The labels of each class or region, such as `[{1}, {2}]` or `[{1, 2}, {2}]`.
        num_classes: How many labels there are, the background included.
        voted: `(R, *spatial)`, boolean: where a rater did not abstain. Everywhere by default.

    Returns:
        One `Agreement` per class. Dice of two empty masks is `empty_cases.BOTH_EMPTY`.

    Raises:
        TypeError: `labels` are not integers, or `voted` is not boolean.
        ValueError: There is no rater or no voxel, shapes differ, or a label is out of range.

    References:
        The mean of :math:`D_r` is Table 6 of Wang et al., Dice Semimetric Losses (MICCAI 2023).

    >>> raters = np.array([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0]])
    >>> (found,) = agreement(raters, classes=[{1}], num_classes=2)
    >>> found.dice_majority.round(3), found.dice_others.round(3), found.dice_pairs[0].round(3)
    (array([0.8  , 1.   , 0.667]), array([0.5  , 0.667, 0.667]), array([1. , 0.8, 0.5]))
    >>> round(found.kappa, 3), found.disputed, found.union, found.tied
    (0.333, 2, 3, 0)
    """
    _check(labels, num_classes, voted)
    flat = labels.reshape(len(labels), -1)
    keep = None if voted is None else voted.reshape(len(labels), -1)
    votes = _count_votes(flat, keep, num_classes)
    winner = votes.argmax(axis=0)
    others = [_winner_without(votes, flat[r], None if keep is None else keep[r]) for r in range(len(flat))]
    return [_of_class(flat, keep, votes, winner, others, sorted(members)) for members in classes]


def fleiss_kappa(counts: npt.NDArray[np.integer[Any]], *, items: npt.ArrayLike | None = None) -> float:
    r"""Fleiss' kappa: agreement of many raters beyond what their frequencies alone would give.

    With :math:`n_{ij}` of the :math:`n_i` votes on item i for category j, over the items with two votes or more,

    .. math:: \kappa = \frac{\bar P - \bar P_e}{1 - \bar P_e},\quad
        \bar P = \mathrm{mean}_i \sum_j \frac{n_{ij} (n_{ij} - 1)}{n_i (n_i - 1)},\quad
        \bar P_e = \sum_j \left( \mathrm{mean}_i \frac{n_{ij}}{n_i} \right)^2

    Args:
        counts: `(N, K)`: how many raters put item i into category j.
        items: `(N,)`: how often each row occurs. Once by default.

    Returns:
        A value up to 1 (all agree); 0 is chance. NaN where kappa is undefined: no item has two votes, or all
        votes are for one category.

    Raises:
        ValueError: `counts` has not two axes, or holds negative numbers.

    References:
        Fleiss, Measuring nominal scale agreement among many raters (Psychological Bulletin 76, 1971). Its form for
        items with different numbers of raters: Gwet, Handbook of Inter-Rater Reliability (4th edition, 2014), §2.4,
        here on the items with two votes or more.

    >>> fleiss_kappa(np.array([[3, 0], [0, 3], [1, 2]])).__round__(3)
    0.55
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or (table < 0).any():
        raise ValueError(f"Expected `counts` of shape (N, K), none below 0, got shape {table.shape}.")
    often = np.ones(len(table)) if items is None else np.asarray(items, dtype=np.float64)
    check_same_shape("items", often.shape, "counts", table.shape[:1])
    total = table.sum(axis=1)
    rows = (total >= 2) & (often > 0)
    if not rows.any():
        return float("nan")
    table, total, often = table[rows], total[rows], often[rows] / often[rows].sum()
    if np.count_nonzero(table.any(axis=0)) < 2:
        return float("nan")
    observed = float(often @ ((table * (table - 1)).sum(axis=1) / (total * (total - 1))))
    expected = float(np.square(often @ (table / total[:, None])).sum())
    return (observed - expected) / (1 - expected)


def _check(labels: Labels, num_classes: int, voted: Bools | None) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"Expected `labels` to hold integers, got dtype {labels.dtype}.")
    if labels.ndim < 2 or labels.size == 0:
        raise ValueError(f"Expected `labels` of shape (raters, *spatial), got {labels.shape}.")
    if voted is not None:
        check_same_shape("voted", voted.shape, "labels", labels.shape)
        if voted.dtype != np.bool_:
            raise TypeError(f"Expected `voted` to be boolean, got dtype {voted.dtype}.")
    where = True if voted is None else voted
    low = int(labels.min(where=where, initial=0))
    high = int(labels.max(where=where, initial=0))
    if low < 0 or high >= num_classes:
        raise ValueError(f"Expected `labels` from 0 to {num_classes - 1}, got {low} to {high}.")


def _count_votes(labels: Labels, voted: Bools | None, num_classes: int) -> Labels:
    """`(num_classes, N)`: how many raters gave each label."""
    votes = np.zeros((num_classes, labels.shape[1]), dtype=np.min_scalar_type(len(labels)))
    for r, row in enumerate(labels):
        for c in range(num_classes):
            votes[c] += row == c if voted is None else (row == c) & voted[r]
    return votes


def _winner_without(votes: Labels, row: Labels, voted: Bools | None) -> tuple[Labels, Bools]:
    """The winning label of the other raters, and where any of them and the one left out voted."""
    rest = votes.copy()
    for c in range(len(rest)):
        rest[c] -= row == c if voted is None else (row == c) & voted
    any_vote = rest.any(axis=0)
    dtype = np.min_scalar_type(len(rest))
    return rest.argmax(axis=0).astype(dtype), any_vote if voted is None else any_vote & voted


def _of_class(
    labels: Labels,
    voted: Bools | None,
    votes: Labels,
    winner: Labels,
    others: list[tuple[Labels, Bools]],
    members: list[int],
) -> Agreement:
    raters = len(labels)
    masks = np.isin(labels, members)
    if voted is not None:
        masks &= voted
    vote = np.isin(winner, members)
    to_vote = [_dice(masks[r], vote, None if voted is None else voted[r]) for r in range(raters)]
    to_others = [_dice(masks[r], np.isin(w, members), keep) for r, (w, keep) in enumerate(others)]
    pairs = np.eye(raters)
    for r in range(raters):
        for s in range(r):
            both = None if voted is None else voted[r] & voted[s]
            pairs[r, s] = pairs[s, r] = _dice(masks[r], masks[s], both)[0]
    # how many voxels have p votes for the class of v in all: everything that counts voxels follows from it
    most = raters + 1
    place = masks.sum(axis=0, dtype=np.intp) * most
    place += raters if voted is None else voted.sum(axis=0, dtype=np.intp)
    table = np.bincount(place, minlength=most**2)
    p, v = np.divmod(np.arange(most**2), most)
    shared = (votes == votes.max(axis=0)) & (votes > 0)
    inside = np.zeros(len(votes), dtype=bool)
    inside[members] = True
    return Agreement(
        dice_majority=np.array([value for value, _ in to_vote]),
        dice_others=np.array([value for value, _ in to_others]),
        dice_pairs=pairs,
        kappa=fleiss_kappa(np.stack([p, v - p], axis=1).clip(0), items=table),
        sizes=np.count_nonzero(masks, axis=1),
        majority_size=int(np.count_nonzero(vote)),
        voxels=int(table[v > 0].sum()),
        union=int(table[p > 0].sum()),
        disputed=int(table[(p > 0) & (p < v)].sum()),
        tied=int(np.count_nonzero(shared[inside].any(axis=0) & shared[~inside].any(axis=0))),
        majority_both_empty=sum(empty for _, empty in to_vote),
    )


def _dice(first: Bools, second: Bools, keep: Bools | None) -> tuple[float, bool]:
    """Dice of two masks where both voted, NaN if that is nowhere; and whether both were empty there."""
    if keep is not None:
        if not keep.any():
            return float("nan"), False
        first, second = first & keep, second & keep
    common = int(np.count_nonzero(first & second))
    total = int(np.count_nonzero(first) + np.count_nonzero(second))
    return float(overlap_ratio(torch.tensor(2 * common), torch.tensor(total))), total == 0
