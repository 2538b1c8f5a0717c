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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

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
        parts = (image.GetSize(), image.GetSpacing(), image.GetOrigin())
        return cls(*(part[:keep] for part in parts), tuple(matrix.ravel().tolist()))

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
            image = sitk.ReadImage(str(path))
        except RuntimeError as error:
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
def _quiet() -> Iterator:
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
    if head[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as file:
                head = file.read(1024)
                size = len(head)
                while chunk := file.read(1 << 20):
                    size += len(chunk)
        except EOFError:
            return "a truncated gzip stream"
        except (gzip.BadGzipFile, zlib.error) as error:
            return f"a damaged gzip stream ({error})"
    wanted = _nifti_bytes(head)
    return f"{size} of {wanted} bytes" if size < wanted else ""


def _nifti_bytes(head: bytes) -> int:
    """How long a NIfTI file has to be by its header; 0 where this is no NIfTI header."""
    with suppress(struct.error, ValueError, OverflowError):
        for order in "<>":
            kind = struct.unpack_from(order + "i", head)[0]
            if kind == 348:
                dims = struct.unpack_from(order + "8h", head, 40)
                bits, offset = (
                    struct.unpack_from(order + "h", head, 72)[0],
                    struct.unpack_from(order + "f", head, 108)[0],
                )
            elif kind == 540:
                dims = struct.unpack_from(order + "8q", head, 16)
                bits, offset = (
                    struct.unpack_from(order + "h", head, 14)[0],
                    struct.unpack_from(order + "q", head, 168)[0],
                )
            else:
                continue
            return int(offset) + math.prod(max(d, 1) for d in dims[1 : 1 + dims[0]]) * bits // 8
    return 0
