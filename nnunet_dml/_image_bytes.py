"""What the bytes of an image file say of it, where SimpleITK does not look: whether all are there, and NIfTI's header."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np

SOMEWHERE = "voxels of more than 0 and less than 1e6 mm, and an origin of numbers"
SET_IT = "Set it in the header."
_HUGE = 1e6  # mm; no voxel is a kilometre long


def missing_bytes(path: Path, kind: str) -> str:
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
        with open_unpacked(path) as file:
            head = file.read(1024)
            size = len(head)
            while chunk := file.read(1 << 20):
                size += len(chunk)
    except EOFError:
        return "a truncated gzip stream"
    except (gzip.BadGzipFile, zlib.error) as error:
        return f"a damaged gzip stream ({error})"
    header = nifti_header(head)
    return f"{size} of {header.end} bytes" if header and size < header.end else ""


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file, unpacked if it is gzipped whatever its name says, as ITK does."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


class NiftiHeader(NamedTuple):
    offset: int  # of the first voxel
    end: int  # behind the last
    dtype: np.dtype
    spacing: tuple[float, ...]  # of the axes in space
    size: tuple[int, ...]  # the same


def nifti_header(head: bytes) -> NiftiHeader | None:
    """Where the voxels lie in a NIfTI file, by its first bytes."""
    with suppress(struct.error, ValueError, OverflowError):
        for order in "<>":
            kind = struct.unpack_from(order + "i", head)[0]
            if kind == 348:
                dims = struct.unpack_from(order + "8h", head, 40)
                sizes = struct.unpack_from(order + "8f", head, 76)
                code, bits = struct.unpack_from(order + "2h", head, 70)
                offset = struct.unpack_from(order + "f", head, 108)[0]
            elif kind == 540:
                dims = struct.unpack_from(order + "8q", head, 16)
                sizes = struct.unpack_from(order + "8d", head, 104)
                code, bits = struct.unpack_from(order + "2h", head, 12)
                offset = struct.unpack_from(order + "q", head, 168)[0]
            else:
                continue
            # the type matters for plain floats only: 16 and 64 in the standard
            dtype = np.dtype(f"{order}f{bits // 8}") if code in (16, 64) else np.dtype("u1")
            count = math.prod(max(size, 1) for size in dims[1 : 1 + dims[0]])
            space = slice(1, 1 + min(dims[0], 3))
            return NiftiHeader(int(offset), int(offset) + count * bits // 8, dtype, sizes[space], dims[space])
    return None


def nowhere(path: Path, origin: Sequence[float]) -> str:
    """What of a file's geometry cannot be, "" where all can.

    SimpleITK reads a voxel size of 0 or NaN in a NIfTI file as 1 mm, without a word.

    Args:
        path: An image that can be read.
        origin: Where SimpleITK says that it lies.
    """
    if not all(map(math.isfinite, origin)):
        return f"origin ({', '.join(f'{it:g}' for it in origin)})"
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return ""
    with open_unpacked(path) as file:
        header = nifti_header(file.read(1024))
    if header is None or all(
        0 < abs(spacing) < _HUGE or size == 1
        for spacing, size in zip(header.spacing, header.size, strict=True)
    ):
        return ""
    return f"spacing ({', '.join(f'{it:g}' for it in header.spacing)})"
