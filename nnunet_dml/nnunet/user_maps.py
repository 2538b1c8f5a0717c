"""Soft maps that users bring themselves: `softlabelsTr/<case>.nii.gz` in the raw data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient

from nnunet_dml._checks import InputError, problem
from nnunet_dml._images import NOT_FINITE, Grid, count_not_finite, misfits, read

FOLDER = "softlabelsTr"
TOLERANCE = (
    1e-3  # of fractions below 0, above 1, and of sums above 1: half precision, and resampling elsewhere
)


def user_map_file(raw: Path, case: str, file_ending: str) -> Path:
    """The soft map of a case: NIfTI, or the data set's own kind of file where that is another volume format."""
    own = raw / FOLDER / f"{case}{file_ending}"
    return own if own.is_file() else raw / FOLDER / f"{case}.nii.gz"


def read_user_map(
    path: Path, *, foreground: int, shape: tuple[int, ...], consensus: Path, reader: BaseReaderWriter
) -> np.ndarray:
    """Read the fractions of the foreground classes.

    Args:
        path: A floating volume (one foreground class), or one with a channel per class as a last axis or as
            components, in the order of the labels.
        foreground: Number of foreground classes.
        shape: (z, y, x) of the image as nnU-Net reads it; (1, y, x) of a 2D one.
        consensus: The case's file in `labelsTr`, on whose grid the map must lie.
        reader: nnU-Net's reader of the data set.

    Returns:
        (foreground, z, y, x) float32 in [0, 1], sums at most 1.

    Raises:
        InputError: The file is missing, damaged, of another shape or grid, or holds values that are no fractions.
    """
    if isinstance(reader, NibabelIOWithReorient):
        todo = "Plan with nnU-Net's SimpleITKIO (overwrite_image_reader_writer in dataset.json)."
        expected = "a data set whose axes are not reordered"
        raise InputError(
            problem(path, expected=expected, found="the reader NibabelIOWithReorient", todo=todo)
        )
    image = read(path)
    if bad := count_not_finite(path, image):
        found, todo = f"{bad} that are {NOT_FINITE}", "Replace them; 0 leaves a voxel to the background."
        raise InputError(problem(path, expected="fractions in [0, 1]", found=found, todo=todo))
    reference = Grid.of(read(consensus))
    maps = _channels_first(image, shape)
    expected_shape = (foreground, *shape)
    if maps.shape != expected_shape:
        found = f"{maps.shape[0]} of shape {maps.shape[1:]}"
        expected = f"{foreground} channels of shape {shape}, one per foreground class"
        raise InputError(
            problem(
                path, expected=expected, found=found, todo="Write one channel per class, on the image's grid."
            )
        )
    if problems := misfits(path, Grid.of(image, len(reference.size)), consensus, reference):
        raise InputError(*problems)
    low, high = float(maps.min()), float(maps.max())
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        expected = f"fractions in [0, 1] (tolerance {TOLERANCE:g})"
        raise InputError(
            problem(path, expected=expected, found=f"{low:.4g} … {high:.4g}", todo="Rescale it.")
        )
    maps = np.clip(maps, 0, 1).astype(np.float32)
    total = maps.sum(0, keepdims=True)
    if (worst := float(total.max())) > 1 + TOLERANCE:
        expected = f"fractions that sum to at most 1 over the classes (tolerance {TOLERANCE:g})"
        todo = "Give the fraction of each label, not of overlapping regions."
        raise InputError(problem(path, expected=expected, found=f"a sum of {worst:.4g}", todo=todo))
    scaled: np.ndarray = maps / np.maximum(total, 1)
    return scaled


def _channels_first(image: sitk.Image, shape: tuple[int, ...]) -> np.ndarray:
    """(C, z, y, x) from a volume, a volume with components, or a volume with an axis of channels."""
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif array.ndim == 2 or array.shape == shape or (array.ndim == 3 and shape[0] != 1):
        array = array[None]
    return array[:, None] if array.ndim == 3 else array  # a 2D image is one slice
