"""Image files read whole, and written and read back."""

from __future__ import annotations

import errno
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem
from nnunet_dml._image_bytes import missing_bytes
from nnunet_dml._images.endings import split_ending
from nnunet_dml._images.grid import Grid

_COPY = "Copy it again from its source."
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # surrogates stand for bytes that are no UTF-8
_COMPLEX = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)

sitk.ProcessObject.GlobalWarningDisplayOff()


def check_whole(path: Path) -> None:
    """Check that a file is there and as long as it should be, as far as its format tells without its voxels.

    Raises:
        InputError: The file is missing, empty, may not be read, or is a truncated or damaged NIfTI or BMP; or its name
            cannot be written as text in one line.
    """
    check_name(path)
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


def check_name(path: Path) -> None:
    """Refuse a path that is no UTF-8, at which SimpleITK ends the process, or has control characters.

    Raises:
        InputError: With the path as Python writes it.
    """
    if _NO_TEXT.search(str(path)):
        where, expected = repr(str(path)), "a path in UTF-8 without line breaks and the like"
        raise InputError(problem(where, expected=expected, found="another", todo="Rename it."))


def read(path: Path) -> sitk.Image:
    """Read an image file.

    Raises:
        InputError: The file is missing, empty, truncated, damaged, not of its format or of complex numbers.
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
    if image.GetPixelID() in _COMPLEX:
        todo = "Save their magnitude, or whatever is meant."
        raise InputError(problem(path, expected="real numbers", found="complex ones", todo=todo))
    return image


def write(array: np.ndarray, grid: Grid, path: Path, *, vectors: bool = False) -> None:
    """Write an array with a grid, and read it back.

    Args:
        array: The values, axes in SimpleITK's order of arrays.
        grid: Where they lie.
        path: The file.
        vectors: Whether the last axis holds several values per pixel.

    Raises:
        InputError: See `check_name`.
        OSError: The file could not be written whole.
    """
    check_name(path)
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
