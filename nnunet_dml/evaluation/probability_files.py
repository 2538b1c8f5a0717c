"""Reading probabilities and soft maps: nnU-Net's `.npz`, or images with a channel per foreground class or region."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem
from nnunet_dml._images import NOT_FINITE, Grid, check_name, count_not_finite, misfits, read
from nnunet_dml.evaluation.label_maps import LabelMap
from nnunet_dml.evaluation.npz_files import KEY, NPZ_HINT, Slabs, open_npz
from nnunet_dml.metrics._arrays import SUM_TOLERANCE

HALF_STEP = 1 / 510
"""The most by which a fraction stored in 8 bit may be too large."""

__all__ = ["NPZ_HINT", "is_fraction_image", "open_probabilities", "read_fractions", "read_probabilities"]


def open_probabilities(
    path: Path,
    *,
    num_classes: int,
    regions: bool = False,
    like: LabelMap | None = None,
    large: float | None = None,
) -> Slabs:
    """The probabilities of a case, checked, to be read slab by slab.

    Args:
        path: nnU-Net's `.npz`; or an image, see `read_fractions`.
        num_classes: How many classes `dataset.json` has, background included; or how many regions.
        regions: Whether the channels are regions, which need not sum to one.
        like: The case's reference, on whose grid an image must lie.
        large: Bytes from which on the array of an `.npz` is put into a temporary file, see `npz_files.open_npz`. An
            image is read whole.

    Returns:
        `(C, z, y, x)`, in [0, 1] and, but for regions, summing to one, both within 1e-3. To be closed.

    Raises:
        InputError: If the file is damaged or holds anything else.
    """
    if not path.name.endswith(".npz"):
        channels = num_classes if regions else num_classes - 1
        return Slabs(read_fractions(path, channels=channels, exclusive=not regions, like=like))
    with ExitStack() as opened:
        found = opened.enter_context(open_npz(path, large=large))
        _check_form(path, found, num_classes, regions=regions)
        _check_values(path, found, regions=regions)
        opened.pop_all()
    return found


def read_probabilities(
    path: Path, *, num_classes: int, regions: bool = False, like: LabelMap | None = None
) -> npt.NDArray[np.floating]:
    """The same as an array in memory; see `open_probabilities`."""
    with open_probabilities(
        path, num_classes=num_classes, regions=regions, like=like, large=math.inf
    ) as found:
        return found.slab(0, found.shape[1])


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
        found = f"{bad} values that are {NOT_FINITE}"
        raise InputError(problem(path, expected="fractions in [0, 1]", found=found))
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
    """Whether an image holds fractions rather than labels, by its header; None where that cannot be read.

    Raises:
        InputError: See `check_name`.
    """
    check_name(path)
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


def _check_form(path: Path, found: Slabs, num_classes: int, *, regions: bool) -> None:
    if found.dtype.kind != "f":
        raise InputError(problem(path, expected=f"floating point `{KEY}`", found=f"dtype {found.dtype}"))
    if len(found.shape) != 4:
        raise InputError(
            problem(path, expected=f"`{KEY}` of shape (classes, z, y, x)", found=f"{found.shape}")
        )
    if found.shape[0] != num_classes:
        what = "regions" if regions else "classes"
        raise InputError(
            problem(
                path,
                expected=f"{num_classes} {what} as in dataset.json",
                found=f"{found.shape[0]}",
                todo="Was this model trained on another dataset or other labels?",
            )
        )


def _check_values(path: Path, found: Slabs, *, regions: bool) -> None:
    lows, highs, sums = [0.0], [0.0], []
    for part in found.slices():  # what is looked at twice stays in the processor's cache
        lows.append(float(part.min(initial=0.0)))
        highs.append(float(part.max(initial=0.0)))
        if not regions and part.size:
            total = part.sum(0, dtype=np.float32 if part.dtype.itemsize < 4 else part.dtype)
            sums += [float(total.min()), float(total.max())]
    low, high = float(np.min(lows)), float(np.max(highs))  # NaN where any is; Python's own lose it
    _check_range(path, low, high, found.slices())
    if sums and max(1 - min(sums), max(sums) - 1) > SUM_TOLERANCE:
        expected = f"probabilities that sum to one over the classes (tolerance {SUM_TOLERANCE:g})"
        total_found = f"sums from {min(sums):.4g} to {max(sums):.4g}"
        todo = "Are the channels regions? Then dataset.json has to say so."
        raise InputError(problem(path, expected=expected, found=total_found, todo=todo))


def _check_range(path: Path, low: float, high: float, parts: Iterable[npt.NDArray[Any]]) -> None:
    """The parts are gone through only to count what is not a number."""
    expected = "probabilities in [0, 1]"
    if low != low or high != high:
        found = f"NaN in {sum(int(np.isnan(it).sum()) for it in parts)} values"
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
