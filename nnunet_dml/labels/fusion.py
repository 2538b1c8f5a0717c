"""From several raters' label maps to one consensus or one soft map, streaming over the raters.

Memory depends on the number of classes and voxels, not on the number of raters: `masks` may be any object
that can be iterated twice and yields one map at a time, such as a small class that reads files in `__iter__`.
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


def fuse(masks: Masks, *, method: str, num_classes: int | None = None) -> npt.NDArray[np.float32]:
    """Fuse several raters' label maps into one map of class probabilities.

    With R raters, rater r's label map m_r and his weight w_r, the probability of class c at voxel i is

        p_c(i) = Σ_r w_r [m_r(i) = c],   Σ_r w_r = 1

    `uniform`: w_r = 1/R. `weighted`: w_r is proportional to the rater's Dice against the majority vote, see
    `rater_weights`. `majority`: 1 for the class with the most votes, ties go to the lowest label. `staple`: the
    posterior of a model in which each rater errs in a way of his own, see `staple`; it needs all raters in memory.

    Args:
        masks: `(R, *spatial)` integer label maps, or any object that can be iterated twice and yields
            `(*spatial)` maps (a one-shot generator is refused). Labels in [0, num_classes), 0 is background.
        method: One of `FUSIONS`.
        num_classes: Number of classes including the background. Default: 1 + the largest label seen, so that
            masks with values 0 and 255 would make 256 channels.

    Returns:
        `(num_classes, *spatial)` float32 in [0, 1], background first, summing to one over the classes. A
        single rater comes back as an exact one-hot map; raters that are all empty give background only.

    Raises:
        ValueError: Unknown method, no rater, float maps, shapes that differ, labels that are negative or
            too large.
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
    votes, raters = _count_votes(masks, num_classes)
    shape = (len(votes), *votes[0].shape)
    if method == "majority":
        labels, _ = _most_votes(votes)
        return np.stack([labels == c for c in range(len(votes))]).astype(np.float32)
    fused = np.zeros(shape, dtype=np.float32)
    if method == "weighted":
        # The weights' sum is known only after the last rater, so it divides at the end: no third iteration.
        total = 0.0
        for mask, score in _scored(masks, votes, raters):
            if score > 0:
                total += score
                for c in range(len(votes)):
                    np.add(fused[c], np.float32(score), out=fused[c], where=mask == c)
        if total > 0:
            fused /= fused.sum(axis=0, keepdims=True)  # the rounded sum: unanimity is exactly 1
            return fused
    for c, count in enumerate(votes):
        np.divide(count, raters, out=fused[c], casting="unsafe")
    return staple(_again(masks, votes, raters), fused) if method == "staple" else fused


def majority_vote(
    masks: Masks, *, num_classes: int | None = None
) -> tuple[npt.NDArray[np.unsignedinteger[Any]], int]:
    """The label with the most votes in each voxel; ties go to the lowest label.

    With three or more classes the most votes need not be more than half of them.

    Args:
        masks: `(R, *spatial)` integer label maps, or an iterable of `(*spatial)` maps, see `fuse`.
        num_classes: Number of classes including the background. Default: 1 + the largest label seen.

    Returns:
        The consensus, `(*spatial)` in the smallest unsigned dtype that holds `num_classes - 1`, and the
        number of voxels in which two or more labels shared the most votes.

    Raises:
        ValueError: No rater, float maps, shapes that differ, labels that are negative or too large.
        TypeError: A generator.

    >>> majority_vote(np.array([[0, 1, 2, 2], [0, 2, 2, 1]]))
    (array([0, 1, 2, 1], dtype=uint8), 2)
    """
    votes, _ = _count_votes(masks, num_classes)
    return _most_votes(votes)


def rater_dice(masks: Masks, *, num_classes: int | None = None) -> npt.NDArray[np.float64]:
    """Each rater's Dice against the majority vote, averaged over the foreground classes.

        d_r = mean_c 2 |m_r = c ∧ v = c| / (|m_r = c| + |v = c|),   c = 1 … num_classes − 1

    Args:
        masks: `(R, *spatial)` integer label maps, or an object that can be iterated twice, see `fuse`.
        num_classes: Number of classes including the background. Default: 1 + the largest label seen.

    Returns:
        `(R,)` float64 in [0, 1]. A class that is empty in the rater and in the vote counts 1; without any
        foreground class every rater has 1.

    Raises:
        ValueError: No rater, float maps, shapes that differ, labels that are negative or too large.
        TypeError: A generator.

    >>> rater_dice(np.array([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 0]])).round(3)
    array([0.8  , 1.   , 0.667])
    """
    votes, raters = _count_votes(masks, num_classes)
    return np.array([score for _, score in _scored(masks, votes, raters)])


def rater_weights(masks: Masks, *, num_classes: int | None = None) -> npt.NDArray[np.float64]:
    """Each rater's weight: his Dice against the majority vote, divided by the sum over the raters.

        w_r = d_r / Σ_s d_s

    Args:
        masks: `(R, *spatial)` integer label maps, or an object that can be iterated twice, see `fuse`.
        num_classes: Number of classes including the background. Default: 1 + the largest label seen.

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
    scores = rater_dice(masks, num_classes=num_classes)
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


def _count_votes(masks: Masks, num_classes: int | None) -> tuple[list[npt.NDArray[np.int32]], int]:
    """How many raters gave each label, one array per class, and the number of raters."""
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"Expected argument `num_classes` of at least 1, got {num_classes}.")
    votes: list[npt.NDArray[np.int32]] = []
    raters = 0
    for mask in _maps(masks):
        largest = int(mask.max())
        if num_classes is not None and largest >= num_classes:
            raise ValueError(
                f"Expected labels in `masks` below `num_classes` = {num_classes}, got {largest} "
                f"(rater {raters}). Raise `num_classes`, or renumber the labels from 0."
            )
        wanted = num_classes or max(largest + 1, len(votes))
        votes.extend(np.zeros(mask.shape, dtype=np.int32) for _ in range(wanted - len(votes)))
        for c, count in enumerate(votes):
            count += mask == c
        raters += 1
    if not raters:
        raise ValueError("Expected `masks` of at least one rater, got none.")
    return votes, raters


def _most_votes(votes: list[npt.NDArray[np.int32]]) -> tuple[npt.NDArray[np.unsignedinteger[Any]], int]:
    """The lowest label with the most votes per voxel, and the number of voxels in which it shared them."""
    most = votes[0].copy()
    labels = np.zeros(most.shape, dtype=np.min_scalar_type(len(votes) - 1))
    tied = np.zeros(most.shape, dtype=bool)
    for c, count in enumerate(votes[1:], start=1):
        more = count > most
        tied = (tied & ~more) | (count == most)
        labels[more] = c
        np.maximum(most, count, out=most)
    return labels, int(np.count_nonzero(tied))


def _scored(masks: Masks, votes: list[npt.NDArray[np.int32]], raters: int) -> Iterator[tuple[Labels, float]]:
    """The raters once more: each map with its Dice against the majority vote."""
    classes = len(votes)
    vote = _most_votes(votes)[0].astype(np.intp).ravel()
    size_vote = np.bincount(vote, minlength=classes)
    for mask in _again(masks, votes, raters):
        flat = mask.astype(np.intp).ravel()
        common = np.bincount(flat[flat == vote], minlength=classes)
        sizes = np.bincount(flat, minlength=classes) + size_vote
        dice = np.divide(2 * common, sizes, out=np.ones(classes), where=sizes > 0)
        yield mask, float(dice[1:].mean()) if classes > 1 else 1.0


def _again(masks: Masks, votes: list[npt.NDArray[np.int32]], raters: int) -> Iterator[Labels]:
    """A second iteration over the raters, who must be as many as in the first."""
    seen = 0
    for mask in _maps(masks):
        check_same_shape(f"masks[{seen}]", mask.shape, "masks[0]", votes[0].shape)
        yield mask
        seen += 1
    if seen != raters:
        raise ValueError(f"Expected `masks` to yield {raters} raters again, got {seen} the second time.")
