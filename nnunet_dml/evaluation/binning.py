"""Histograms of several references and zones in one pass: the sums of the metrics' `…_counts`, many at once.

What does not depend on the reference (the bin of a voxel, its confidence) is found once, and zones are told apart by the
bin's number. Tests hold the sums against `reliability_counts`, `classwise_counts` and `adaptive_counts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml.metrics._bins import FINE_BINS, equal_width, fine

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

ZONES = 4
"""Codes of a voxel: 1 near the foreground, 2 at a boundary, 3 both, 0 neither."""
LANES = 4
"""Copies of each bin that are filled in turn: additions to one place would wait for one another."""

CHUNK = 2**16
"""Voxels that are counted together: the numbers of their bins stay in a processor's cache."""


class Histograms(NamedTuple):
    """Sums over the voxels of one row of a batch. The references are those of `histograms` in their order."""

    top: Doubles
    """`(ZONES, 2 + references, bins)`: voxels, sum of confidences, sum of each reference's accuracies."""
    classes: Doubles
    """`(classes, ZONES, 2 + references, bins)`: voxels, sum of probabilities, sum of each reference's shares."""
    adaptive: Doubles
    """`(2 + references, fine bins)`: as `top`."""


def histograms(
    probs: npt.NDArray[np.float32],
    references: Sequence[Array],
    zones: npt.NDArray[np.uint8],
    *,
    bins: int,
    classes: Sequence[int],
    top_only: Sequence[Array] = (),
) -> Histograms:
    """Count some voxels.

    Args:
        probs: `(C, N)`, background first.
        references: Integer labels `(N,)`, or soft labels `(C, N)`.
        zones: `(N,)`, codes below `ZONES`.
        bins: How many bins of equal width.
        classes: Those that `classes` of the result is of.
        top_only: References, of which only `top` is wanted; they come behind the others there.
    """
    found: Histograms | None = None
    for start in range(0, probs.shape[1], CHUNK):
        cut = slice(start, start + CHUNK)
        more = _of_chunk(
            np.ascontiguousarray(probs[:, cut]),
            [it[..., cut] for it in references],
            [it[cut] for it in top_only],
            zones[cut],
            bins,
            classes,
        )
        if found is None:
            found = more
        else:
            for total, part in zip(found, more, strict=True):
                total += part
    if found is None:
        raise ValueError("Expected `probs` of one voxel at least, got none.")
    return found


def _of_chunk(
    probs: npt.NDArray[np.float32],
    references: Sequence[Array],
    top_only: Sequence[Array],
    zones: npt.NDArray[np.uint8],
    bins: int,
    classes: Sequence[int],
) -> Histograms:
    best = np.zeros(probs.shape[1], dtype=np.uint8 if len(probs) <= 256 else np.int32)
    confidence = probs[0].copy()
    for c in range(1, len(probs)):
        np.putmask(best, probs[c] > confidence, c)
        np.maximum(confidence, probs[c], out=confidence)
    accuracies = [_share_of(it, best) for it in (*references, *top_only)]
    return Histograms(
        top=_zoned(confidence, [confidence, *accuracies], zones, bins),
        classes=np.stack(
            [
                _zoned(probs[c], [probs[c], *(_share(it, c) for it in references)], zones, bins)
                for c in classes
            ]
        ),
        adaptive=_sums(
            fine(torch.from_numpy(confidence)).numpy(),
            [confidence, *accuracies[: len(references)]],
            FINE_BINS,
            lanes=1,
        ),
    )


def _share(reference: Array, c: int) -> Array:
    """`(N,)`: the share of each voxel that is of class c."""
    return reference[c] if reference.ndim == 2 else reference == c


def _share_of(reference: Array, best: Array) -> Array:
    """`(N,)`: the share of each voxel that is of its predicted class."""
    if reference.ndim == 1:
        return np.equal(reference, best)
    found = reference[0].copy()
    for c in range(1, len(reference)):
        np.putmask(found, best == c, reference[c])
    return found


def _zoned(values: Array, rows: Sequence[Array], zones: npt.NDArray[np.uint8], bins: int) -> Doubles:
    """`(ZONES, 1 + rows, bins)`."""
    place = equal_width(torch.from_numpy(values), bins).numpy()
    sums = _sums(place + bins * zones.astype(np.int32), rows, bins * ZONES, lanes=LANES)
    return np.ascontiguousarray(sums.reshape(len(sums), ZONES, bins).swapaxes(0, 1))


def _sums(place: Array, rows: Sequence[Array], number: int, *, lanes: int) -> Doubles:
    """`(1 + rows, number)`: how many voxels each place has, and their sums."""
    index = place.astype(np.intp)
    if lanes > 1:
        index *= lanes
        index += np.arange(len(index)) % lanes
    size = number * lanes
    found = [
        np.bincount(index, minlength=size),
        *(np.bincount(index, weights=it, minlength=size) for it in rows),
    ]
    sums: Doubles = np.stack(found).reshape(len(found), number, lanes).sum(2, dtype=np.float64)
    return sums
