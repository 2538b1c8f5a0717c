"""Nodules from single radiologists' outlines: which belong together, and their masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from skimage.draw import polygon2mask

from nnunet_dml.nnunet.layouts.lidc_database import Annotation, Scan

READERS = 4  # radiologists who read each scan
_FACTOR, _LEAST = 0.9, 0.1

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First and behind the last voxel along x, y and z."""


def nodules(scan: Scan) -> list[list[Annotation]]:
    """Annotations that mark the same nodule, as pylidc groups them by default.

    Two belong together where their outlines come as near as a slice's thickness; where more than four would, the distance
    is lowered by tenths, to 0.1 mm at least.

    Returns:
        Groups in the order of their first annotation, which are in the database's order. A group may still be larger than
        four where nodules touch.
    """
    count = len(scan.annotations)
    points = [it.points(scan.spacing) for it in scan.annotations]
    trees = [cKDTree(it) for it in points]
    distances = np.zeros((count, count))
    for i in range(count):
        for j in range(i + 1, count):
            distances[i, j] = distances[j, i] = trees[i].query(points[j])[0].min()
    limit = scan.thickness
    while True:
        groups = connected_components(distances <= limit, directed=False)[1] if count else np.zeros(0, int)
        limit *= _FACTOR
        if count == 0 or np.bincount(groups).max() <= READERS or limit < _LEAST:
            break
    made: dict[int, list[Annotation]] = {}
    for annotation, group in zip(scan.annotations, groups.tolist(), strict=True):
        made.setdefault(group, []).append(annotation)
    return list(made.values())


def slice_of(z: float, zs: Sequence[float]) -> int:
    """The slice that is nearest to a height."""
    return int(np.abs(np.asarray(zs) - z).argmin())


def box_around(
    annotations: Sequence[Annotation], scan: Scan, margin: float, size: tuple[int, int] = (512, 512)
) -> Box:
    """The part of a scan that holds outlines and a margin around them.

    Args:
        annotations: Whose outlines.
        scan: Theirs.
        margin: In mm, on each side; cut off at the scan's border.
        size: Of a slice, in pixels. LIDC-IDRI's are all 512 × 512.
    """
    points = np.concatenate([it.points(scan.spacing) for it in annotations])
    ranges = []
    for axis in range(2):
        low, high = points[:, axis].min() - margin, points[:, axis].max() + margin
        first = max(0, round(low / scan.spacing))
        ranges.append((first, min(size[axis], round(high / scan.spacing) + 1)))
    zs = np.asarray(scan.zs)
    first, last = (slice_of(it, scan.zs) for it in (points[:, 2].min(), points[:, 2].max()))
    inside = np.flatnonzero((zs >= zs[first] - margin) & (zs <= zs[last] + margin))
    return ranges[0], ranges[1], (int(inside[0]), int(inside[-1]) + 1)


def fill(annotations: Sequence[Annotation], zs: Sequence[float], box: Box) -> np.ndarray:
    """The nodules within outlines.

    Args:
        annotations: Whose outlines; nodules unite.
        zs: Heights of the scan's slices.
        box: The part of the scan.

    Returns:
        0 and 1, (z, y, x) of the box. As in pylidc, the points of an outline are outside; what an excluding outline holds is
        taken out, with its points.
    """
    (x0, x1), (y0, y1), (z0, z1) = box
    mask = np.zeros((z1 - z0, y1 - y0, x1 - x0), np.uint8)
    for annotation in annotations:
        own = np.zeros_like(mask)
        for outline in sorted(annotation.outlines, key=lambda it: not it.inside):
            k = slice_of(outline.z, zs) - z0
            if not 0 <= k < len(own):
                continue
            rows = outline.points[:, ::-1] - (y0, x0)
            area, on = polygon2mask(own.shape[1:], rows), np.zeros(own.shape[1:], bool)
            points = rows[((rows >= 0) & (rows < on.shape)).all(axis=1)]
            on[points[:, 0], points[:, 1]] = True
            if outline.inside:
                own[k] |= area & ~on
            else:
                own[k] &= ~(area | on)
        mask |= own
    return mask
