"""Reading, comparing and writing image files with SimpleITK, without its silent failures.

SimpleITK reads a truncated `.nii.gz`, `.nii`, `.gipl`, `.bmp` or multi-page `.tif` as if it were whole, and
writes the first four on a full disk without an error. So the length of every file is checked when it is read,
and what is written is read back.
"""

from __future__ import annotations

import errno
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem
from nnunet_dml._image_bytes import missing_bytes, nifti_header, open_unpacked

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")  # those of nnU-Net
PICTURES = (".png", ".bmp", ".tif", ".tiff")  # no geometry that nnU-Net would read; RGB stays in one file
TOLERANCE = (
    1e-6  # SimpleITK's default: of the first voxel size for spacing and origin, absolute for directions
)
_LARGEST_LABEL = 2**31 - 1
_COPY = "Copy it again from its source."
_NEARLY_WHOLE = 1e-3  # what scaling and resampling leave of a label that was stored as float

sitk.ProcessObject.GlobalWarningDisplayOff()


def split_ending(name: str) -> tuple[str, str]:
    """A file's name without its ending, and the ending in lower case; "" where nnU-Net cannot read it.

    >>> split_ending("case.1.nii.gz"), split_ending("notes.txt")
    (('case.1', '.nii.gz'), ('notes.txt', ''))
    """
    for ending in ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)], ending
    return name, ""


def ending_of_dataset(dataset_json: Mapping[str, Any], path: Path) -> str:
    """The `file_ending` of a data set.

    Args:
        dataset_json: What its dataset.json holds.
        path: That file, for the message.

    Raises:
        InputError: It is missing or none of nnU-Net's.
    """
    ending = dataset_json.get("file_ending")
    if not isinstance(ending, str) or ending not in ENDINGS:
        expected = "one of nnU-Net's endings as `file_ending`"
        todo = "Mend it or convert the data set again."
        raise InputError(problem(path, expected=expected, found=repr(ending), todo=todo))
    return ending


@dataclass(frozen=True)
class Grid:
    """Where an image's voxels lie, in SimpleITK's order of axes."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image, dimensions: int | None = None) -> Grid:
        """The grid of an image, or of its first `dimensions` axes where the others hold channels."""
        n = image.GetDimension()
        keep = dimensions or n
        matrix = np.reshape(image.GetDirection(), (n, n))[:keep, :keep]
        size, spacing, origin = (
            part[:keep] for part in (image.GetSize(), image.GetSpacing(), image.GetOrigin())
        )
        return cls(size, spacing, origin, tuple(matrix.ravel().tolist()))

    def differences(self, other: Grid, *, size_only: bool = False) -> list[tuple[str, str, str]]:
        """What differs: (property, own value, the other's value), within SimpleITK's default tolerances."""
        if self.size != other.size:
            return [("size", _numbers(self.size), _numbers(other.size))]
        if size_only:
            return []
        coordinate = TOLERANCE * abs(self.spacing[0])
        pairs = {
            "spacing": (self.spacing, other.spacing, coordinate),
            "origin": (self.origin, other.origin, coordinate),
            "direction": (self.direction, other.direction, TOLERANCE),
        }
        return [
            (name, _numbers(own), _numbers(its))
            for name, (own, its, tolerance) in pairs.items()
            if not np.allclose(own, its, rtol=0, atol=tolerance)
        ]


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.10g}" for value in values) + ")"


def misfits(path: Path, grid: Grid, reference: Path, its: Grid, *, size_hint: str = "") -> list[str]:
    """One line for each property in which a file's grid differs from that of a reference.

    Args:
        path: The file.
        grid: Its grid.
        reference: The file whose grid it should have.
        its: That grid.
        size_hint: What else to do where the sizes differ.
    """
    pictures = any(split_ending(file.name)[1] in PICTURES for file in (reference, path))
    rows = []
    for name, own, found in its.differences(grid, size_only=pictures):
        if name == "size":
            within, todo = "", f"Resample it to that grid. {size_hint}".strip()
        else:
            within = f", tolerance {TOLERANCE:g}" + " of the voxel size" * (name != "direction")
            todo = "Resample it to that grid; where only the header is wrong, copy the other's."
        rows.append(problem(path, expected=f"{name} {own} of {reference}{within}", found=found, todo=todo))
    return rows


def check_whole(path: Path) -> None:
    """Check that a file is there and as long as it should be, as far as its format tells without its voxels.

    Raises:
        InputError: The file is missing, empty, may not be read, or is a truncated or damaged NIfTI or BMP.
    """
    kind = _kind(path)
    expected = f"a readable {kind} file"
    if not path.is_file():
        raise InputError(problem(path, expected=expected, found="no file", todo="Restore it."))
    if not os.access(path, os.R_OK):
        todo = "Change its permissions."
        raise InputError(problem(path, expected=expected, found="no permission to read it", todo=todo))
    if path.stat().st_size == 0:
        raise InputError(problem(path, expected=expected, found="an empty file", todo=_COPY))
    if missing := missing_bytes(path, kind):
        raise InputError(problem(path, expected=f"a whole {kind} file", found=missing, todo=_COPY))


def read(path: Path) -> sitk.Image:
    """Read an image file.

    Raises:
        InputError: The file is missing, empty, truncated, damaged or not of its format.
    """
    check_whole(path)
    kind = _kind(path)
    with quiet() as said:
        try:
            image = _read_bmp(path) if kind == "bmp" else sitk.ReadImage(str(path))
        except (RuntimeError, OSError, ValueError) as error:
            expected, todo = f"a readable {kind} file", "Copy or export it again."
            raise InputError(
                problem(path, expected=expected, found=_reason(error, path), todo=todo)
            ) from None
        noise = said()
    missing = ""
    if kind in ("tif", "tiff") and re.search(r"Failed to read directory|IO error", noise):
        missing = "a truncated one"
    if kind == "gipl":
        size = path.stat().st_size
        wanted = 256 + math.prod(image.GetSize()) * image.GetSizeOfPixelComponent()
        missing = f"{size} of {wanted} bytes" if size < wanted else ""
    if missing:
        raise InputError(problem(path, expected=f"a whole {kind} file", found=missing, todo=_COPY))
    return image


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
        not_finite: How many values of the file are NaN or infinite; None counts them in `array`.

    Raises:
        InputError: Values are NaN, infinite, fractions, or too large for a label.
    """
    if array.dtype.kind != "f":
        return array
    expected = "whole numbers as labels"
    if bad := np.count_nonzero(~np.isfinite(array)) if not_finite is None else not_finite:
        found, todo = (
            f"{bad} voxels that are NaN or infinite",
            "Replace them by a label; 0 is the background.",
        )
        raise InputError(problem(path, expected=expected, found=found, todo=todo))
    whole = np.rint(array)
    broken = array[(np.abs(array - whole) > _NEARLY_WHOLE) | (np.abs(array) > _LARGEST_LABEL)]
    if broken.size:
        found = f"{broken.size} voxels with others, such as {broken[0]!s}"
        todo = "A rater's mask holds label numbers; threshold or round the map first."
        raise InputError(problem(path, expected=expected, found=found, todo=todo))
    return whole.astype(np.int64)


def count_not_finite(path: Path, image: sitk.Image) -> int:
    """How many values of a file are NaN or infinite.

    The image that was read does not tell for NIfTI: ITK replaces them by 0 without a word.
    """
    array = sitk.GetArrayViewFromImage(image)
    if array.dtype.kind != "f":
        return 0
    count = int(np.count_nonzero(~np.isfinite(array)))
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
            count += int(np.count_nonzero(~np.isfinite(values)))
    return count


def write(array: np.ndarray, grid: Grid, path: Path, *, vectors: bool = False) -> None:
    """Write an array with a grid, and read it back.

    Args:
        array: The values, axes in SimpleITK's order of arrays.
        grid: Where they lie.
        path: The file.
        vectors: Whether the last axis holds several values per pixel.

    Raises:
        OSError: The file could not be written whole.
    """
    image = sitk.GetImageFromArray(array, isVector=vectors)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    compress = _kind(path) not in ("tif", "tiff")  # tifffile needs extra codecs for ITK's choice
    try:
        with quiet():
            sitk.WriteImage(image, str(path), compress)
        back = sitk.GetArrayFromImage(read(path))
        whole = np.array_equal(back, array, equal_nan=array.dtype.kind == "f")
    except RuntimeError as error:
        reason = _reason(error, path)
        raise OSError(errno.EIO, f"could not be written ({reason}); is the disk full?", str(path)) from None
    except InputError:
        whole = False
    if not whole:
        raise OSError(errno.EIO, "could not be written whole; is the disk full?", str(path))


def _kind(path: Path) -> str:
    """An ending without its dot."""
    return split_ending(path.name)[1].lstrip(".") or "image"


@contextmanager
def quiet() -> Iterator[Callable[[], str]]:
    """Catch what C and C++ libraries print on standard error; yields a function that returns it."""
    with tempfile.TemporaryFile() as log:
        saved = os.dup(2)
        os.dup2(log.fileno(), 2)

        def said() -> str:
            log.seek(0)
            return log.read().decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _reason(error: Exception, path: Path) -> str:
    """The reason in one of SimpleITK's multi-line messages, in one line."""
    text = str(error)
    if "Unable to determine ImageIO" in text:
        return "something else under that name"
    lines = [
        line.strip() for line in re.split(r"(?:sitk::|ITK )ERROR: ", text)[-1].splitlines() if line.strip()
    ]
    line = " ".join(
        lines[-2:] if lines and "Reason" in lines[-1] else lines[:1] + lines[-1:] * (len(lines) > 1)
    )
    line = re.sub(r"\w+\(0x[0-9a-f]+\): ", "", line).replace(str(path), "the file")
    return f"one that SimpleITK refuses ({line.strip(' .')})"


def _read_bmp(path: Path) -> sitk.Image:
    """A BMP as nnU-Net reads it: ITK takes every grey picture with a palette for RGB."""
    from skimage import io

    array = io.imread(path)
    return sitk.GetImageFromArray(
        array.astype(np.uint8) if array.dtype == bool else array, isVector=array.ndim == 3
    )
