"""Probability maps as NIfTI files: small, with the geometry of the image, read as fractions by any viewer."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt

from nnunet_dml._checks import check_one_of
from nnunet_dml._files import atomic_file
from nnunet_dml._images import Grid

ENDING = ".nii.gz"
MAPS = "probabilities"
"""The folder of maps in that of predictions."""
BITS = {8: np.uint8, 16: np.uint16}


def write_maps(path: Path, maps: npt.NDArray[np.floating], grid: Grid, *, bits: int = 16) -> None:
    """Write maps of probabilities or fractions, whole or not at all.

    They are stored as unsigned integers with the scale factor that makes fractions of them again (scl_slope,
    1/255 or 1/65535): NIfTI knows no half precision.

    Args:
        path: The file, `….nii.gz`; its folder must exist.
        maps: `(F, z, y, x)` in [0, 1], a map for each foreground class or region, in their order. With one map
            the file is a volume, with several it has a fourth axis. A 2D image is a volume of one slice.
        grid: Of the image.
        bits: 8 (error at most 1/510) or 16 (1/131070).

    Raises:
        ValueError: Unknown `bits`, or maps that do not fit the grid.
        OSError: The file cannot be written.
    """
    check_one_of("bits", bits, BITS)
    size = grid.size + (1,) * (3 - len(grid.size))
    if maps.ndim != 4 or maps.shape[:0:-1] != size:
        raise ValueError(f"Expected `maps` of shape (F, z, y, x) on a grid of {size}, got {maps.shape}.")
    scale = np.iinfo(BITS[bits]).max
    stored = np.empty(maps.shape, BITS[bits])
    for source, target in zip(maps, stored, strict=True):
        target[...] = np.rint(np.clip(source, 0, 1) * np.float64(scale))
    array = stored.T  # (x, y, z, F)
    image = nibabel.Nifti1Image(array[..., 0] if len(maps) == 1 else array, affine(grid), dtype=BITS[bits])
    image.header.set_slope_inter(1 / scale, 0)
    image.header.set_xyzt_units("mm")
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    with atomic_file(path) as temporary:
        nibabel.save(image, temporary)


def affine(grid: Grid) -> npt.NDArray[np.float64]:
    """NIfTI's matrix from voxel to position: its first two axes point the other way than SimpleITK's."""
    axes = len(grid.size)
    spacing, origin, direction = np.ones(3), np.zeros(3), np.eye(3)
    spacing[:axes], origin[:axes] = grid.spacing, grid.origin
    direction[:axes, :axes] = np.reshape(grid.direction, (axes, axes))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = direction * spacing, origin
    matrix[:2] *= -1
    return matrix
