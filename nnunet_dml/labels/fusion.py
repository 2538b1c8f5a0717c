"""From several raters' label maps to one consensus or one soft map, streaming over the raters.

Memory depends on the number of classes and voxels, not on the number of raters: `masks` may be any object
that can be iterated twice and yields one map at a time, such as a small class that reads files in `__iter__`.
(`staple` keeps them all.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nnunet_dml._checks import check_one_of, check_same_shape
from nnunet_dml.labels.staple import staple

FUSIONS = ("majority", "uniform", "weighted", "staple")

Labels: TypeAlias = npt.NDArray[np.integer[Any]]
Masks: TypeAlias = Iterable[npt.ArrayLike]
# per class, in the narrowest dtype that holds the number of raters: what is counted is as fast as it is small
Votes: TypeAlias = list[npt.NDArray[np.unsignedinteger[Any]]]

_PIECE = 1 << 18  # voxels that are counted at once, few enough for the cache


def fuse(
    masks: Masks, *, method: str, num_classes: int | None = None, ignore_label: int | None = None
) -> npt.NDArray[np.float32]:
    """Fuse several raters' label maps into one map of class probabilities.

    With R raters, rater r's label map m_r and his weight w_r, the probability of class c at voxel i is

        p_c(i) = Σ_r w_r [m_r(i) = c],   Σ_r w_r = 1

    `uniform`: w_r = 1/R. `weighted`: w_r is proportional to the rater's Dice against the majority vote, see
    `rater_weights`. `majority`: 1 for the class with the most votes, ties go to the lowest label.

    `staple`: the posterior of a model in which each rater errs in a way of his own; it needs all raters in memory
    (uint8 where there are fewer than 255 labels). What the model leaves open is the raters' mean, as `uniform`:
    voxels where the posterior is undefined or labels share its maximum (one rater marks everything and one
    nothing: 0.5), or where it is for a label because whoever gave that is held to mean another. A label that
    nobody gave at the voxel has 0 there; unanimous voxels have their label exactly. See `labels.staple`.

    A rater who gives `ignore_label` at a voxel abstains: the sum is over those who voted there, their weights
    divided by their sum (equal weights where all of these are 0).

    Args:
        masks: `(R, *spatial)` integer label maps, or any object that can be iterated twice and yields
            `(*spatial)` maps (a one-shot generator is refused). Labels in [0, num_classes), 0 is background.
        method: One of `FUSIONS`.
        num_classes: Number of classes including the background. Default: 1 + the largest label seen, so that
            masks with values 0 and 255 would make 256 channels.
        ignore_label: Label of abstention, at least `num_classes`, which does not count it. None: no such label.

    Returns:
        `(num_classes, *spatial)` float32 in [0, 1], background first, summing to one over the classes. A
        single rater comes back as an exact one-hot map; raters that are all empty give background only; a class
        that nobody marked is 0. With `ignore_label` `(num_classes + 1, *spatial)`: the last channel is 1 where
        every rater abstains, with 0 in all others, and 0 elsewhere.

    Raises:
        ValueError: Unknown method, no rater, float maps, shapes that differ, labels that are negative or
            too large, `ignore_label` among the classes, `staple` with raters who abstain.
        TypeError: A generator.

    Weighted fusion follows Wang et al., "Dice Semimetric Losses", MICCAI 2023, section 2.3.

    >>> raters = np.array([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0]])
    >>> fuse(raters, method="majority")[1]
    array([0., 0., 1., 1.], dtype=float32)
    >>> fuse(raters, method="uniform")[1].round(3)
    array([0.   , 0.333, 1.   , 0.667], dtype=float32)
    >>> fuse(raters, method="weighted")[1].round(3)
    array([0.   , 0.324, 1.   , 0.73 ], dtype=float32)
    """
    check_one_of("method", method, FUSIONS)
    votes, raters = _count_votes(masks, num_classes, ignore_label)
    if method == "majority":
        labels, _ = _most_votes(votes, ignore_label)
        channels = [*range(len(votes)), *([] if ignore_label is None else [ignore_label])]
        return np.stack([labels == c for c in channels]).astype(np.float32)
    fused = np.zeros((len(votes) + (ignore_label is not None), *votes[0].shape), dtype=np.float32)
    shares = fused[: len(votes)]
    voted: Any = raters  # where nobody can abstain, a number and True serve for all voxels
    left: Any = True  # voxels to be given the mean of those who voted
    if ignore_label is not None:
        voted = np.sum(votes, axis=0)
        left = voted > 0
        fused[-1] = ~left
        if method == "staple" and voted.min() < raters:
            raise ValueError(
                f"Expected `masks` without abstentions (label {ignore_label}) for method 'staple': staple has no "
                f"way for abstaining raters; use uniform or weighted."
            )
    if method == "weighted":
        # The weights' sum is known only after the last rater, so it divides at the end: no third iteration.
        for mask, score in _scored(masks, votes, raters, ignore_label):
            if score > 0:
                flat = mask.ravel()
                for here in _pieces(mask.size):
                    for c, share in enumerate(shares):
                        share.reshape(-1)[here] += np.float32(score) * (flat[here] == c)
        total = shares.sum(axis=0)  # rounded as its parts are: unanimity is exactly 1
        np.divide(shares, total, out=shares, where=total > 0)
        left = left & (total == 0)
        if not left.any():
            return fused
    for count, share in zip(votes, shares, strict=True):
        np.divide(count, voted, out=share, dtype=np.float32, where=left)
    if method == "staple":
        staple(_again(masks, votes, raters), shares)
    return fused


def majority_vote(
    masks: Masks, *, num_classes: int | None = None, ignore_label: int | None = None
) -> tuple[npt.NDArray[np.unsignedinteger[Any]], int]:
    """The label with the most votes in each voxel; ties go to the lowest label.

    With three or more classes the most votes need not be more than half of them.

    Args:
        masks: `(R, *spatial)` integer label maps, or an iterable of `(*spatial)` maps, see `fuse`.
        num_classes: Number of classes including the background. Default: 1 + the largest label seen.
        ignore_label: Label of abstention, which is no vote, see `fuse`.

    Returns:
        The consensus, `(*spatial)` in the smallest unsigned dtype that holds `num_classes - 1` (and
        `ignore_label`, which stands where every rater abstains), and the number of voxels in which two or more
        labels shared the most votes.

    Raises:
        ValueError: No rater, float maps, shapes that differ, labels that are negative or too large.
        TypeError: A generator.

    >>> majority_vote(np.array([[0, 1, 2, 2], [0, 2, 2, 1]]))
    (array([0, 1, 2, 1], dtype=uint8), 2)
    >>> majority_vote(np.array([[0, 9, 9], [0, 1, 9]]), ignore_label=9)
    (array([0, 1, 9], dtype=uint8), 0)
    """
    votes, _ = _count_votes(masks, num_classes, ignore_label)
    return _most_votes(votes, ignore_label)


def rater_dice(
    masks: Masks, *, num_classes: int | None = None, ignore_label: int | None = None
) -> npt.NDArray[np.float64]:
    """Each rater's Dice against the majority vote, averaged over the foreground classes.

        d_r = mean_c 2 |m_r = c ∧ v = c| / (|m_r = c| + |v = c|),   c = 1 … num_classes − 1

    Args:
        masks: `(R, *spatial)` integer label maps, or an object that can be iterated twice, see `fuse`.
        num_classes: Number of classes including the background. Default: 1 + the largest label seen.
        ignore_label: Label of abstention, see `fuse`: d_r is computed over the voxels where rater r voted.

    Returns:
        `(R,)` float64 in [0, 1]. A class that is empty in the rater and in the vote counts 1; without any
        foreground class every rater has 1, as has one who abstains everywhere.

    Raises:
        ValueError: No rater, float maps, shapes that differ, labels that are negative or too large.
        TypeError: A generator.

    >>> rater_dice(np.array([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0]])).round(3)
    array([0.8  , 1.   , 0.667])
    """
    votes, raters = _count_votes(masks, num_classes, ignore_label)
    return np.array([score for _, score in _scored(masks, votes, raters, ignore_label)])


def rater_weights(
    masks: Masks, *, num_classes: int | None = None, ignore_label: int | None = None
) -> npt.NDArray[np.float64]:
    """Each rater's weight: his Dice against the majority vote, divided by the sum over the raters.

        w_r = d_r / Σ_s d_s

    Args:
        masks: `(R, *spatial)` integer label maps, or an object that can be iterated twice, see `fuse`.
        num_classes: Number of classes including the background. Default: 1 + the largest label seen.
        ignore_label: Label of abstention, see `rater_dice`.

    Returns:
        `(R,)` float64 in [0, 1], summing to one. A Dice of 0 stays a weight of 0; where all are 0 (raters who
        have no voxel of any class in common with the vote) the weights are 1/R.

    Raises:
        ValueError: No rater, float maps, shapes that differ, labels that are negative or too large.
        TypeError: A generator.

    >>> rater_weights(np.array([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0]])).round(3)
    array([0.324, 0.405, 0.27 ])
    >>> rater_weights(np.array([[0, 1], [1, 0]]))  # the vote is empty, neither rater is
    array([0.5, 0.5])
    """
    scores = rater_dice(masks, num_classes=num_classes, ignore_label=ignore_label)
    total = scores.sum()
    return scores / total if total > 0 else np.full(len(scores), 1 / len(scores))


def _maps(masks: Masks) -> Iterator[Labels]:
    """The raters' maps one after the other: integer arrays of one shape, without negative labels."""
    if isinstance(masks, Iterator):
        raise TypeError(
            f"Expected `masks` to be an array or an object that can be iterated twice, got a "
            f"{type(masks).__name__}. Pass a list, or a class whose `__iter__` starts anew."
        )
    first: tuple[int, ...] | None = None
    for r, item in enumerate(masks):
        mask = np.asarray(item)
        if mask.dtype == np.bool_:
            mask = mask.astype(np.uint8)
        if not np.issubdtype(mask.dtype, np.integer):
            raise ValueError(
                f"Expected `masks` of an integer dtype, got {mask.dtype} (rater {r}). Cast with "
                f"`.astype(np.uint8)` after checking that all values are whole."
            )
        if mask.ndim == 0 or mask.size == 0:
            raise ValueError(f"Expected `masks` of shape (raters, *spatial), got {mask.shape} for rater {r}.")
        if first is None:
            first = mask.shape
        check_same_shape(f"masks[{r}]", mask.shape, "masks[0]", first, hint="Resample to one grid.")
        if mask.min() < 0:
            raise ValueError(f"Expected labels in `masks` of at least 0, got {mask.min()} (rater {r}).")
        yield mask


def _count_votes(masks: Masks, num_classes: int | None, ignore_label: int | None) -> tuple[Votes, int]:
    """How many raters gave each label, one array per class, and the number of raters."""
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"Expected argument `num_classes` of at least 1, got {num_classes}.")
    votes: Votes = []
    raters = 0
    first = (
        1 if ignore_label is None else 0
    )  # who does not abstain has voted for the background or for another
    for mask in _maps(masks):
        largest = int(mask.max() if ignore_label is None else mask.max(initial=0, where=mask != ignore_label))
        if num_classes is not None and largest >= num_classes:
            raise ValueError(
                f"Expected labels in `masks` below `num_classes` = {num_classes}, got {largest} "
                f"(rater {raters}). Raise `num_classes`, or renumber the labels from 0."
            )
        wanted = num_classes or max(largest + 1, len(votes))
        dtype = np.min_scalar_type(raters + 1)  # of the most votes that there can be by now
        votes = [count.astype(dtype, copy=False) for count in votes]
        votes.extend(np.zeros(mask.shape, dtype=dtype) for _ in range(wanted - len(votes)))
        flat = mask.ravel()
        for here in _pieces(mask.size):
            for c, count in enumerate(votes[first:], first):
                count.reshape(-1)[here] += flat[here] == c
        raters += 1
    if not raters:
        raise ValueError("Expected `masks` of at least one rater, got none.")
    if ignore_label is not None and ignore_label < len(votes):
        raise ValueError(
            f"Expected argument `ignore_label` above the labels of the {len(votes)} classes, got {ignore_label}."
        )
    if first == 1:
        votes[0] += raters
        for count in votes[1:]:
            votes[0] -= count
    return votes, raters


def _most_votes(votes: Votes, ignore_label: int | None) -> tuple[npt.NDArray[np.unsignedinteger[Any]], int]:
    """The lowest label with the most votes per voxel, and the number of voxels in which it shared them."""
    labels = np.zeros(votes[0].shape, dtype=np.min_scalar_type(ignore_label or len(votes) - 1))
    shared = 0
    for here in _pieces(labels.size):
        most, *others = (count.reshape(-1)[here] for count in votes)
        winner = labels.reshape(-1)[here]
        tied = np.zeros(most.shape, dtype=bool)
        for c, count in enumerate(others, start=1):
            more = count > most
            tied = (tied & ~more) | (count == most)
            np.putmask(winner, more, c)
            most = np.maximum(most, count)
        if ignore_label is not None:
            np.putmask(winner, most == 0, ignore_label)
            tied &= most > 0
        shared += int(np.count_nonzero(tied))
    return labels, shared


def _scored(
    masks: Masks, votes: Votes, raters: int, ignore_label: int | None
) -> Iterator[tuple[Labels, float]]:
    """The raters once more: each map with its Dice against the majority vote."""
    foreground = range(1, len(votes))
    vote = _most_votes(votes, ignore_label)[0].ravel()
    for mask in _again(masks, votes, raters):
        flat = mask.ravel()
        common, sizes = (np.zeros(len(foreground), dtype=np.intp) for _ in range(2))
        for here in _pieces(mask.size):
            for i, c in enumerate(foreground):
                own, seen = flat[here] == c, vote[here] == c
                if ignore_label is not None:
                    seen &= flat[here] != ignore_label
                common[i] += np.count_nonzero(own & seen)
                sizes[i] += np.count_nonzero(own) + np.count_nonzero(seen)
        dice = np.divide(2 * common, sizes, out=np.ones(len(foreground)), where=sizes > 0)
        yield mask, float(dice.mean()) if foreground else 1.0


def _pieces(voxels: int) -> Iterator[slice]:
    """Slices of the flattened voxels."""
    return (slice(start, start + _PIECE) for start in range(0, voxels, _PIECE))


def _again(masks: Masks, votes: Votes, raters: int) -> Iterator[Labels]:
    """A second iteration over the raters, who must be as many as in the first."""
    seen = 0
    for mask in _maps(masks):
        check_same_shape(f"masks[{seen}]", mask.shape, "masks[0]", votes[0].shape)
        yield mask
        seen += 1
    if seen != raters:
        raise ValueError(f"Expected `masks` to yield {raters} raters again, got {seen} the second time.")
