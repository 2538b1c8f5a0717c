"""Label maps of a dataset: the consensus and each rater's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._image_bytes import SET_IT, SOMEWHERE, nowhere
from nnunet_dml._images import PICTURES, Grid, misfits, read_mask, split_ending
from nnunet_dml.evaluation.dataset import RawDataset


@dataclass(frozen=True)
class LabelMap:
    """A label map and where it lies."""

    path: Path
    array: npt.NDArray[np.integer[Any]]
    """`(z, y, x)`; z is 1 for a 2D file, as in nnU-Net."""
    grid: Grid

    @property
    def spacing(self) -> tuple[float, ...]:
        """mm, in the order (z, y, x). A 2D file has no thickness: it counts as 1 mm."""
        sizes = tuple(float(size) for size in self.grid.spacing[:3][::-1])
        return (1.0,) * (3 - len(sizes)) + sizes

    @property
    def has_millimetres(self) -> bool:
        """Whether the voxel size means anything: in pictures it does not."""
        return split_ending(self.path.name)[1] not in PICTURES


def read_labels(path: Path, dataset: RawDataset, *, like: LabelMap | None = None) -> LabelMap:
    """Read a label map of a dataset.

    Args:
        path: The file.
        dataset: Says which labels there may be.
        like: A map on whose grid this one must lie.

    Raises:
        InputError: If the file cannot be read whole, is not a 2D or 3D map of the dataset's labels, or lies on another
            grid.
    """
    array, grid = read_mask(path)
    shape = array.shape
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise InputError(problem(path, expected="a 2D or 3D label map", found=f"shape {shape}"))
    allowed = dataset.label_values
    if wrong := _strangers(array, allowed):
        expected = f"the labels {some(sorted(allowed), 20)} of dataset.json"
        raise InputError(problem(path, expected=expected, found=some(wrong)))
    if like is None and (found := nowhere(path, grid.origin)):
        raise InputError(problem(path, expected=SOMEWHERE, found=found, todo=SET_IT))
    if like is not None and (problems := misfits(path, grid, like.path, like.grid)):
        raise InputError(*problems)
    return LabelMap(path, array.astype(np.uint8 if max(allowed) < 256 else np.int32, copy=False), grid)


def _strangers(array: npt.NDArray[Any], allowed: set[int]) -> list[int]:
    """The values that are not allowed; sorting a large volume would take seconds."""
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    if low >= 0 and high <= max(allowed):
        if len(allowed) == max(allowed) + 1:
            return []
        known = np.array([value in allowed for value in range(max(allowed) + 1)])
        if known[array].all():
            return []
    return [value for value in np.unique(array).tolist() if value not in allowed]
