"""Masks: label numbers in an image file, and values that cannot be some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem
from nnunet_dml._image_bytes import nifti_header, open_unpacked
from nnunet_dml._images.endings import split_ending
from nnunet_dml._images.files import read
from nnunet_dml._images.grid import Grid

NOT_FINITE = "NaN, infinite or beyond 32-bit floats"
_LARGEST_LABEL = 2**31 - 1
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_NEARLY_WHOLE = 1e-3  # what scaling and resampling leave of a label that was stored as float


def read_mask(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a mask of label numbers.

    Returns:
        Integers in SimpleITK's order of array axes, (z, y, x) or (y, x), and their grid, whose axes are x, y, z.

    Raises:
        InputError: The file cannot be read whole, has several values per voxel, or others than whole numbers.
    """
    image = read(path)
    return mask_of(image, path), Grid.of(image)


def mask_of(image: sitk.Image, path: Path) -> np.ndarray:
    """The label numbers of an image that was read from a file; see `read_mask`."""
    if (count := image.GetNumberOfComponentsPerPixel()) > 1:
        found = f"{count} ({ {3: 'RGB or a colour palette', 4: 'RGBA'}.get(count, 'a vector image') })"
        todo = "Save it as a grey picture of label numbers."
        raise InputError(problem(path, expected="a mask with one value per pixel", found=found, todo=todo))
    return whole_numbers(sitk.GetArrayFromImage(image), path, not_finite=count_not_finite(path, image))


def whole_numbers(array: np.ndarray, path: Path, *, not_finite: int | None = None) -> np.ndarray:
    """A file's values as integers; floats become int64, those within a thousandth of a whole number that one.

    Args:
        array: The values.
        path: The file, for messages.
        not_finite: What `count_not_finite` says of the file; None counts NaN and infinity in `array`, as which
            nnU-Net's readers give what is beyond 32-bit floats.

    Raises:
        InputError: Values are `NOT_FINITE`, fractions, or too large for a label.
    """
    if array.dtype.kind != "f":
        return array
    expected = "whole numbers as labels"
    if bad := np.count_nonzero(~np.isfinite(array)) if not_finite is None else not_finite:
        found, todo = f"{bad} voxels that are {NOT_FINITE}", "Replace them by a label; 0 is the background."
        raise InputError(problem(path, expected=expected, found=found, todo=todo))
    whole = np.rint(array)
    broken = array[(np.abs(array - whole) > _NEARLY_WHOLE) | (np.abs(array) > _LARGEST_LABEL)]
    if broken.size:
        found = f"{broken.size} voxels with others, such as {broken[0]!s}"
        todo = "A rater's mask holds label numbers; threshold or round the map first."
        raise InputError(problem(path, expected=expected, found=found, todo=todo))
    return whole.astype(np.int64)


def count_not_finite(path: Path, image: sitk.Image) -> int:
    """How many values of a file are `NOT_FINITE`; nnU-Net reads it in 32 bit.

    The image that was read does not tell for NIfTI: ITK replaces them by 0 without a word.
    """
    array = sitk.GetArrayViewFromImage(image)
    if array.dtype.kind != "f":
        return 0
    count = _count_beyond(array)
    if not split_ending(path.name)[1].startswith(".nii"):
        return count
    with open_unpacked(path) as file:
        header = nifti_header(file.read(1024))
        if header is None or header.dtype.kind != "f":
            return count
        file.seek(header.offset)
        count = 0
        left = header.end - header.offset
        while left > 0 and (chunk := file.read(min(left, 1 << 20))):
            left -= len(chunk)
            values = np.frombuffer(
                chunk[: len(chunk) // header.dtype.itemsize * header.dtype.itemsize], header.dtype
            )
            count += _count_beyond(values)
    return count


def _count_beyond(values: np.ndarray) -> int:
    """How many values are none in 32 bit."""
    if values.dtype.itemsize <= 4:
        return int(np.count_nonzero(~np.isfinite(values)))
    return int(np.count_nonzero(~(np.abs(values) <= _LARGEST_FLOAT)))  # NaN is never less
