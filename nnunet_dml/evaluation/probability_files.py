"""Reading probabilities and soft maps: nnU-Net's `.npz`, or images with a channel per foreground class or region."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem
from nnunet_dml._images import Grid, count_not_finite, misfits, read
from nnunet_dml.evaluation.label_maps import LabelMap
from nnunet_dml.metrics._arrays import SUM_TOLERANCE

KEY = "probabilities"
NPZ_HINT = (
    "Train with --npz, or make them now with `nnUNetv2_train DATASET CONFIGURATION FOLD … --val --npz`."
)
HALF_STEP = 1 / 510
"""The most by which a fraction stored in 8 bit may be too large."""


def read_probabilities(
    path: Path, *, num_classes: int, regions: bool = False, like: LabelMap | None = None
) -> npt.NDArray[np.floating]:
    """The probabilities of a case, checked.

    Args:
        path: nnU-Net's `.npz`; or an image, see `read_fractions`.
        num_classes: How many classes `dataset.json` has, background included; or how many regions.
        regions: Whether the channels are regions, which need not sum to one.
        like: The case's reference, on whose grid an image must lie.

    Returns:
        `(C, z, y, x)`, in [0, 1] and, but for regions, summing to one, both within 1e-3.

    Raises:
        InputError: If the file is damaged or holds anything else.
    """
    if not path.name.endswith(".npz"):
        channels = num_classes if regions else num_classes - 1
        return read_fractions(path, channels=channels, exclusive=not regions, like=like)
    array = _read_array(path)
    if array.dtype.kind != "f":
        raise InputError(problem(path, expected=f"floating point `{KEY}`", found=f"dtype {array.dtype}"))
    if array.ndim != 4:
        raise InputError(
            problem(path, expected=f"`{KEY}` of shape (classes, z, y, x)", found=f"{array.shape}")
        )
    if array.shape[0] != num_classes:
        what = "regions" if regions else "classes"
        raise InputError(
            problem(
                path,
                expected=f"{num_classes} {what} as in dataset.json",
                found=f"{array.shape[0]}",
                todo="Was this model trained on another dataset or other labels?",
            )
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    lows, highs, sums = [], [], []
    for z in range(array.shape[1]):  # what is looked at twice stays in the processor's cache
        part = array[:, z]
        lows.append(float(part.min(initial=0.0)))
        highs.append(float(part.max(initial=0.0)))
        if not regions and part.size:
            total = part.sum(0, dtype=np.float32 if part.dtype.itemsize < 4 else part.dtype)
            sums += [float(total.min()), float(total.max())]
    _check_range(path, min(lows, default=0.0), max(highs, default=0.0), array)
    if sums and max(1 - min(sums), max(sums) - 1) > SUM_TOLERANCE:
        expected = f"probabilities that sum to one over the classes (tolerance {SUM_TOLERANCE:g})"
        found = f"sums from {min(sums):.4g} to {max(sums):.4g}"
        todo = "Are the channels regions? Then dataset.json has to say so."
        raise InputError(problem(path, expected=expected, found=found, todo=todo))
    return array


def read_fractions(
    path: Path, *, channels: int, exclusive: bool = True, like: LabelMap | None = None
) -> npt.NDArray[np.float32]:
    """The fractions of the foreground classes or of regions, from an image; soft labels or probabilities.

    Args:
        path: A volume of fractions for one class; for several, one with a fourth axis or with components. Integers
            with a scale factor (NIfTI's scl_slope) are fractions, too. Of a 2D case the same with one axis less.
        channels: How many are expected, the background not counted.
        exclusive: Whether they are classes, of which the background is the rest; or regions, which may overlap.
        like: The case's label map, on whose grid the image must lie. Not given, nothing is known of the grid.

    Returns:
        `(1 + channels, z, y, x)`, background first, summing to one; of regions `(channels, z, y, x)`.

    Raises:
        InputError: The file is missing, damaged, of another shape or grid, or holds no fractions. Sums may exceed
            1 by 0.001 and what 8 bit round: 1/510 a channel.
    """
    image = read(path)
    if bad := count_not_finite(path, image):
        raise InputError(problem(path, expected="fractions in [0, 1]", found=f"NaN in {bad} values"))
    view = sitk.GetArrayViewFromImage(image)
    if view.dtype.kind != "f":
        found = f"whole numbers ({view.dtype})"
        todo = "A segmentation? Its probabilities are wanted."
        raise InputError(problem(path, expected="fractions in [0, 1]", found=found, todo=todo))
    shape = None if like is None else like.array.shape
    parts = _channels_first(image, view, shape)
    if len(parts) != channels or (shape is not None and parts.shape[1:] != shape):
        expected = f"{channels} channels" + (
            "" if shape is None else f" of shape {shape}, on its reference's grid"
        )
        found = f"{len(parts)} of shape {parts.shape[1:]}"
        todo = "Both as (z, y, x)."
        if exclusive and len(parts) == channels + 1:
            todo += " The background is left out."
        raise InputError(problem(path, expected=expected, found=found, todo=todo))
    if like is not None and (problems := misfits(path, _grid(image, like), like.path, like.grid)):
        raise InputError(*problems)
    _check_range(path, float(parts.min()), float(parts.max()), parts)
    first = 1 if exclusive else 0
    result = np.empty((first + channels, *parts.shape[1:]), dtype=np.float32)
    worst = 0.0
    for z in range(result.shape[1]):
        np.clip(parts[:, z], 0, 1, out=result[first:, z], casting="same_kind")
        if exclusive:
            total = result[1:, z].sum(0)
            if (most := float(total.max(initial=0))) > 1:
                worst = max(worst, most)
                result[1:, z] /= np.maximum(total, 1)
                total = np.minimum(total, 1)
            result[0, z] = 1 - total
    if worst > 1 + SUM_TOLERANCE + channels * HALF_STEP:
        expected = "fractions that sum to at most 1 over the foreground classes"
        raise InputError(problem(path, expected=expected, found=f"a sum of {worst:.4g}"))
    return result


def is_fraction_image(path: Path) -> bool | None:
    """Whether an image holds fractions rather than labels, by its header; None where that cannot be read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return reader.GetPixelID() in (
        sitk.sitkFloat32,
        sitk.sitkFloat64,
        sitk.sitkVectorFloat32,
        sitk.sitkVectorFloat64,
    )


def _check_range(path: Path, low: float, high: float, values: npt.NDArray[Any]) -> None:
    expected = "probabilities in [0, 1]"
    if low != low or high != high:
        found = f"NaN in {int(np.isnan(values).sum())} values"
        raise InputError(problem(path, expected=expected, found=found, todo="Predict the case again."))
    if low >= -SUM_TOLERANCE and high <= 1 + SUM_TOLERANCE:
        return
    if low < -SUM_TOLERANCE:
        found = f"logits, by their range from {low:g} to {high:g}"
        todo = "Give what softmax (of regions: sigmoid) makes of them."
    else:
        found = f"logits, or integers without their scale, by values up to {high:g}"
        todo = "Logits need a softmax (of regions: sigmoid), integers a scale factor (scl_slope in NIfTI)."
    raise InputError(problem(path, expected=expected, found=found, todo=todo))


def _read_array(path: Path) -> npt.NDArray[Any]:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        found = "something else under that name"
        raise InputError(problem(path, expected="a whole .npz file", found=found, todo=NPZ_HINT))
    try:
        with path.open("rb") as file:  # which NumPy would leave open where it is damaged
            content = np.load(file, allow_pickle=False)
            if not isinstance(content, np.lib.npyio.NpzFile):
                raise InputError(problem(path, expected="an .npz archive", found="a single .npy array"))
            if KEY not in content.files:
                found = ", ".join(f"`{name}`" for name in content.files) or "nothing"
                raise InputError(problem(path, expected=f"the array `{KEY}`", found=found))
            array: npt.NDArray[Any] = content[KEY]
            if not isinstance(array, np.ndarray):  # whose bytes NumPy hands on where they are no array
                raise InputError(problem(path, expected=f"an array `{KEY}`", found="something else"))
            return array
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(problem(path, expected="a whole .npz file", found="no file")) from None
    except Exception as error:  # zipfile and NumPy raise whatever they do, MemoryError, too
        found = "an empty file" if path.stat().st_size == 0 else f"a damaged one ({error})"
        raise InputError(problem(path, expected="a whole .npz file", found=found, todo=NPZ_HINT)) from None


def _channels_first(
    image: sitk.Image, array: npt.NDArray[Any], shape: tuple[int, ...] | None
) -> npt.NDArray[Any]:
    """(C, z, y, x) from a volume, a volume with components, or a volume with an axis of channels."""
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif array.ndim == 2 or (array.ndim == 3 and (shape is None or shape[0] != 1 or array.shape == shape)):
        array = array[None]
    return array[:, None] if array.ndim == 3 else array  # a 2D image is one slice


def _grid(image: sitk.Image, like: LabelMap) -> Grid:
    return Grid.of(image, min(len(like.grid.size), image.GetDimension()))
