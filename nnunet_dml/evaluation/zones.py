"""The zones of a case that calibration is measured on by itself, slab by slab."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_dml.evaluation.layout import Layout
from nnunet_dml.metrics import at_boundary, near_foreground
from nnunet_dml.metrics.zones import RADIUS

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]


class Zones:
    """Near the foreground of anybody (prediction, consensus, raters), and at the boundary of the consensus.

    Both are cut out of the box around the foreground, with as many slices more on each side as they reach, so that
    they are the same whatever the slabs.
    """

    def __init__(
        self,
        segmentation: Array,
        labels: Array,
        raters: list[Array],
        layout: Layout,
        *,
        neighbourhood: int,
        ignore: int | None,
    ) -> None:
        self.labels, self.layout, self.neighbourhood, self.ignore = labels, layout, neighbourhood, ignore
        self.union = np.empty(labels.shape, dtype=np.bool_)
        self.rows = 1 if not layout.regions else len(layout.inside)
        across = np.zeros(labels.shape[1:], dtype=np.bool_)
        for z, found in enumerate(self.union):
            np.not_equal(segmentation[z], 0, out=found)
            for labelled in (labels[z], *(it[z] for it in raters)):
                found |= labelled != 0 if ignore is None else (labelled != 0) & (labelled != ignore)
            if ignore is not None:
                found &= labels[z] != ignore
            across |= found
        reach = max(RADIUS, neighbourhood // 2)
        self.reach = reach
        along = np.array([bool(found.any()) for found in self.union])
        lines = (along, np.asarray(across.any(1)), np.asarray(across.any(0)))
        self.box = tuple(_span(line, reach) for line in lines)

    def block(self, start: int, stop: int) -> tuple[Bools, Bools]:
        """The zones of the slices from `start` up to `stop`.

        Returns:
            `(z, y, x)`: near the foreground; `(B, z, y, x)`: at the boundary, of regions each region's own.
        """
        shape = (stop - start, *self.union.shape[1:])
        near, edge = np.zeros(shape, dtype=np.bool_), np.zeros((self.rows, *shape), dtype=np.bool_)
        slices, y, x = self.box
        if start >= slices.stop or stop <= slices.start:
            return near, edge
        low, high = max(start - self.reach, 0), min(stop + self.reach, len(self.union))
        inside, own = (slice(low, high), y, x), slice(start - low, stop - low)
        union = np.ascontiguousarray(self.union[inside])
        near[:, y, x] = near_foreground(union, union, radius=RADIUS)[own].numpy()
        labels = np.ascontiguousarray(self.labels[inside])
        keep = None if self.ignore is None else labels != self.ignore
        maps = [row[labels] for row in self.layout.inside] if self.layout.regions else [labels]
        for row, values in zip(edge, maps, strict=True):
            found = at_boundary(values, neighbourhood=self.neighbourhood, mask=keep)
            row[:, y, x] = found[own].numpy()
        return near, edge


def _span(line: Bools, reach: int) -> slice:
    """From the first to the last True, and `reach` more on both sides."""
    places = np.flatnonzero(line)
    if not len(places):
        return slice(0, 0)
    return slice(max(0, int(places[0]) - reach), min(len(line), int(places[-1]) + 1 + reach))
