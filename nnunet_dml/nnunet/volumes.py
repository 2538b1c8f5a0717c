"""Reading, comparing and writing image files with SimpleITK, without its silent failures.

SimpleITK reads a truncated `.nii.gz`, `.nii`, `.gipl`, `.bmp` or multi-page `.tif` as if it were whole, and
writes the first four on a full disk without an error. So the length of every file is checked when it is read,
and what is written is read back.
"""

from __future__ import annotations

import errno
import gzip
import math
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
import SimpleITK as sitk

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")  # those of nnU-Net
PICTURES = (".png", ".bmp", ".tif", ".tiff")  # no geometry that nnU-Net would read; RGB stays in one file
TOLERANCE = (
    1e-6  # SimpleITK's default: of the first voxel size for spacing and origin, absolute for directions
)

sitk.ProcessObject.GlobalWarningDisplayOff()


class UnreadableError(Exception):
    """A file that cannot be read: what was expected, what was found, what to do."""

    def __init__(self, expected: str, found: str, todo: str) -> None:
        """Keep the parts, which become one line about the file."""
        super().__init__(expected, found, todo)
        self.expected, self.found, self.todo = expected, found, todo


def split_ending(name: str) -> tuple[str, str]:
    """A file's name without its ending, and the ending in lower case; "" where nnU-Net cannot read it.

    >>> split_ending("case.1.nii.gz"), split_ending("notes.txt")
    (('case.1', '.nii.gz'), ('notes.txt', ''))
    """
    for ending in ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)], ending
    return name, ""


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


def read(path: Path) -> sitk.Image:
    """Read an image file.

    Raises:
        UnreadableError: The file is missing, empty, truncated, damaged or not of its format.
    """
    kind = split_ending(path.name)[1].lstrip(".")
    expected = f"a readable {kind} file"
    if not path.is_file():
        raise UnreadableError(expected, "no file", "Restore it.")
    if not os.access(path, os.R_OK):
        raise UnreadableError(expected, "no permission to read it", "Change its permissions.")
    if path.stat().st_size == 0:
        raise UnreadableError(expected, "an empty file", "Copy it again from its source.")
    if missing := _missing_bytes(path, kind):
        raise UnreadableError(f"a whole {kind} file", missing, "Copy it again from its source.")
    with _quiet() as said:
        try:
            image = _read_bmp(path) if kind == "bmp" else sitk.ReadImage(str(path))
        except (RuntimeError, OSError, ValueError) as error:
            raise UnreadableError(expected, _reason(error, path), "Copy or export it again.") from None
        noise = said()
    if kind in ("tif", "tiff") and re.search(r"Failed to read directory|IO error", noise):
        raise UnreadableError(f"a whole {kind} file", "a truncated one", "Copy it again from its source.")
    if kind == "gipl":
        voxels = math.prod(image.GetSize()) * image.GetSizeOfPixelComponent()
        if path.stat().st_size < 256 + voxels:
            raise UnreadableError(
                f"{256 + voxels} bytes", f"{path.stat().st_size}", "Copy it again from its source."
            )
    return image


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
    with _open(path) as file:
        header = _nifti_header(file.read(1024))
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


def write(array: np.ndarray, grid: Grid, path: Path) -> None:
    """Write an array with a grid, and read it back.

    Raises:
        OSError: The file could not be written whole.
    """
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    compress = split_ending(path.name)[1] not in (
        ".tif",
        ".tiff",
    )  # tifffile needs extra codecs for ITK's choice
    try:
        with _quiet():
            sitk.WriteImage(image, str(path), compress)
        back = sitk.GetArrayFromImage(read(path))
        whole = np.array_equal(back, array, equal_nan=array.dtype.kind == "f")
    except (RuntimeError, UnreadableError) as error:
        reason = _reason(error, path) if isinstance(error, RuntimeError) else error.found
        raise OSError(errno.EIO, f"could not be written ({reason}); is the disk full?", str(path)) from None
    if not whole:
        raise OSError(errno.EIO, "could not be written whole; is the disk full?", str(path))


@contextmanager
def _quiet() -> Iterator[Callable[[], str]]:
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


def _missing_bytes(path: Path, kind: str) -> str:
    """What is wrong with a file's length, in formats whose truncation SimpleITK overlooks; else ""."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1024)
    if kind == "bmp" and head[:2] == b"BM" and len(head) >= 6:
        wanted = struct.unpack("<I", head[2:6])[0]
        return f"{size} of {wanted} bytes" if size < wanted else ""
    if not kind.startswith("nii"):
        return ""
    try:
        with _open(path) as file:
            head = file.read(1024)
            size = len(head)
            while chunk := file.read(1 << 20):
                size += len(chunk)
    except EOFError:
        return "a truncated gzip stream"
    except (gzip.BadGzipFile, zlib.error) as error:
        return f"a damaged gzip stream ({error})"
    header = _nifti_header(head)
    return f"{size} of {header.end} bytes" if header and size < header.end else ""


def _open(path: Path) -> IO[bytes]:
    """Open a file, unpacked if it is gzipped whatever its name says, as ITK does."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def _read_bmp(path: Path) -> sitk.Image:
    """A BMP as nnU-Net reads it: ITK takes every grey picture with a palette for RGB."""
    from skimage import io

    array = io.imread(path)
    return sitk.GetImageFromArray(
        array.astype(np.uint8) if array.dtype == bool else array, isVector=array.ndim == 3
    )


class _NiftiHeader(NamedTuple):
    offset: int  # of the first voxel
    end: int  # behind the last
    dtype: np.dtype


def _nifti_header(head: bytes) -> _NiftiHeader | None:
    """Where the voxels lie in a NIfTI file, by its first bytes."""
    with suppress(struct.error, ValueError, OverflowError):
        for order in "<>":
            kind = struct.unpack_from(order + "i", head)[0]
            if kind == 348:
                dims = struct.unpack_from(order + "8h", head, 40)
                code, bits = struct.unpack_from(order + "2h", head, 70)
                offset = struct.unpack_from(order + "f", head, 108)[0]
            elif kind == 540:
                dims = struct.unpack_from(order + "8q", head, 16)
                code, bits = struct.unpack_from(order + "2h", head, 12)
                offset = struct.unpack_from(order + "q", head, 168)[0]
            else:
                continue
            # the type matters for plain floats only: 16 and 64 in the standard
            dtype = np.dtype(f"{order}f{bits // 8}") if code in (16, 64) else np.dtype("u1")
            count = math.prod(max(size, 1) for size in dims[1 : 1 + dims[0]])
            return _NiftiHeader(int(offset), int(offset) + count * bits // 8, dtype)
    return None
