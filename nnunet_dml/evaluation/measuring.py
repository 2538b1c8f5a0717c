"""All voxels of a case, slab by slab, into its sums."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_dml.evaluation.counting import Counts, Voxels
from nnunet_dml.evaluation.layout import Layout
from nnunet_dml.evaluation.npz_files import Slabs
from nnunet_dml.evaluation.options import Options
from nnunet_dml.evaluation.references import References
from nnunet_dml.evaluation.zones import Zones

Array = npt.NDArray[Any]

BLOCK = 2**21
"""Voxels of a slab along z, at least one slice: 8 slices of 512 × 512. The working memory is a few tens of bytes for each
of them."""
PIECE = 2**18
"""Voxels that are looked at together: their arrays stay in a processor's cache."""
KERNEL_VOXELS = 2048
"""Voxels of the kernel calibration error, drawn alike from all that count. Its time grows with their square (0.2 s for
these), and its own scatter over such samples is far below the differences between cases."""


class Measurement:
    """A case's arrays, and what is counted of them."""

    def __init__(
        self, probs: Slabs, references: References, layout: Layout, options: Options, *, ignore: int | None
    ) -> None:
        """Find the segmentation and the zones.

        Args:
            probs: `(channels, z, y, x)`.
            references: On the same grid.
            layout: Of the dataset.
            options: Of the evaluation.
            ignore: The ignore label of the dataset.
        """
        self.probs, self.references, self.ignore = probs, references, ignore
        self.layout, self.options = layout, options
        self.labels = references.labels.array
        self.raters = list(references.raters.values())
        self.segmentation = layout.segmentation(probs)
        self.zones = Zones(
            self.segmentation,
            self.labels,
            self.raters,
            layout,
            neighbourhood=options.neighbourhood,
            ignore=ignore,
        )

    def count(self, *, block: int = BLOCK) -> Counts:
        """Count all voxels.

        Args:
            block: Voxels of a slab. It changes nothing but the rounding of sums.
        """
        counts = Counts(
            self.layout, self.options, kind=self.references.kind, raters=len(self.raters), ignore=self.ignore
        )
        waiting: list[Voxels] = []
        slices, size = len(self.labels), self.labels[0].size
        step = max(1, block // size)
        for start in range(0, slices, step):
            stop = min(start + step, slices)
            near, edge = self.zones.block(start, stop)
            near, edge = near.reshape(-1), edge.reshape(len(edge), -1)
            probs = _flat(self.probs.slab(start, stop), 1)
            for first in range(start * size, stop * size, PIECE):
                part = slice(first, min(first + PIECE, stop * size))
                own = slice(part.start - start * size, part.stop - start * size)
                channels = [row[own].astype(np.float32, copy=False) for row in probs]
                rest = self._split(counts, channels, part, near[own] | edge[:, own].any(0))
                if len(rest):
                    waiting.append(self._voxels(channels, part, rest, near[own], edge[:, own]))
                if sum(len(it.labels) for it in waiting) >= PIECE:
                    counts.add(_together(waiting))
                    waiting = []
        if waiting:
            counts.add(_together(waiting))
        return counts

    def _split(
        self,
        counts: Counts,
        channels: list[npt.NDArray[np.float32]],
        part: slice,
        zone: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.intp]:
        """Count the sure background of a piece, and say where the other voxels are that count."""
        sure = self.layout.sure_background(channels, counts.least)
        sure &= ~zone
        if self.references.soft is not None:
            sure &= _flat(self.references.soft[0])[part] >= 1
        rest = ~sure
        if self.ignore is not None:
            ignored = _flat(self.labels)[part] == self.ignore
            for rater in self.raters:
                rest |= _flat(rater)[part] == self.ignore  # an abstention is no vote for the background
            sure = ~(rest | ignored)
            rest &= ~ignored
        if (
            not counts.sums and not rest.any()
        ):  # one voxel at least takes the long way, so that every sum is there
            one = int(np.argmax(sure))
            rest[one], sure[one] = sure[one], False
        whole = sure.all()
        counts.add_sure(channels if whole else [values[sure] for values in channels])
        return np.flatnonzero(rest)

    def _voxels(
        self,
        channels: list[npt.NDArray[np.float32]],
        part: slice,
        chosen: npt.NDArray[np.intp],
        near: npt.NDArray[np.bool_],
        edge: npt.NDArray[np.bool_],
    ) -> Voxels:
        """The chosen voxels of a piece."""
        soft = self.references.soft
        raters = [_flat(rater)[part][chosen] for rater in self.raters]
        return Voxels(
            probs=np.stack([values[chosen] for values in channels]),
            segmentation=_flat(self.segmentation)[part][chosen],
            labels=_flat(self.labels)[part][chosen],
            raters=np.stack(raters) if raters else np.empty((0, len(chosen)), dtype=np.uint8),
            soft=None if soft is None else np.stack([row[part][chosen] for row in _flat(soft, 1)]),
            near=near[chosen],
            edge=edge[:, chosen],
        )

    def sample(self, name: str) -> Voxels:
        """`KERNEL_VOXELS` voxels that count, or all if there are fewer, drawn by the case's name; in no zone."""
        total, number = self.labels.size, KERNEL_VOXELS
        random = np.random.default_rng(zlib.crc32(name.encode()))
        kept = 1.0 if self.ignore is None else np.count_nonzero(self.labels != self.ignore) / total
        drawn = random.choice(total, size=min(total, int(2 * number / kept)), replace=False)
        if self.ignore is not None:
            drawn = drawn[_flat(self.labels)[drawn] != self.ignore]
        chosen = np.sort(drawn[:number])
        nowhere = np.zeros((self.zones.rows, len(chosen)), dtype=np.bool_)
        soft = self.references.soft
        return Voxels(
            probs=self.probs.at(chosen).astype(np.float32, copy=False),
            segmentation=_flat(self.segmentation)[chosen],
            labels=_flat(self.labels)[chosen],
            raters=np.stack([_flat(it)[chosen] for it in self.raters] or [np.empty(0, dtype=np.uint8)]),
            soft=None if soft is None else np.stack([row[chosen] for row in _flat(soft, 1)]),
            near=nowhere[0],
            edge=nowhere,
        )


def _flat(array: Array, leading: int = 0) -> Array:
    """The same with its voxels in one axis; nothing is copied."""
    return array.reshape(*array.shape[:leading], -1)


def _together(parts: list[Voxels]) -> Voxels:
    if len(parts) == 1:
        return parts[0]
    soft = [it.soft for it in parts if it.soft is not None]
    return Voxels(
        probs=np.concatenate([it.probs for it in parts], 1),
        segmentation=np.concatenate([it.segmentation for it in parts]),
        labels=np.concatenate([it.labels for it in parts]),
        raters=np.concatenate([it.raters for it in parts], 1),
        soft=np.concatenate(soft, 1) if soft else None,
        near=np.concatenate([it.near for it in parts]),
        edge=np.concatenate([it.edge for it in parts], 1),
    )
