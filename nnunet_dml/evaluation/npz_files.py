"""The array of nnU-Net's `.npz`, read slab by slab: a small one lies in memory, a large one in a temporary file."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt

from nnunet_dml._checks import InputError, problem

Array = npt.NDArray[Any]

KEY = "probabilities"
NPZ_HINT = (
    "Train with --npz, or make them now with `nnUNetv2_train DATASET CONFIGURATION FOLD … --val --npz`."
)
LARGE = 2**28
"""Bytes of an array from which on it goes into a temporary file."""
CHUNK = 2**20
"""Bytes that are inflated, or read for slices one by one, at a time."""


class Slabs:
    """An array in memory, of which slabs are looked at. To be closed, or used in a `with`."""

    def __init__(self, array: Array) -> None:
        """Keep the array.

        Args:
            array: `(C, z, y, x)`; another number of axes is there to be refused.
        """
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        """As stored; what is read has the processor's order of bytes."""

    def __enter__(self) -> Slabs:
        """Nothing but itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Remove what is on the disk."""

    def slab(self, start: int, stop: int) -> Array:
        """The slices from `start` up to `stop`, `(C, stop − start, y, x)`; not to be written to."""
        return _native(self.array[:, start:stop])

    def at(self, places: npt.NDArray[np.intp]) -> Array:
        """`(C, N)`: the voxels at places in `(z, y, x)` made flat."""
        z, y, x = np.unravel_index(places, self.shape[1:])
        return _native(np.ascontiguousarray(self.array[:, z, y, x]))

    def slices(self) -> Iterator[Array]:
        """All slices in order, `(C, y, x)` each."""
        channels, slices, *plane = self.shape
        step = max(1, CHUNK // max(1, channels * math.prod(plane) * self.dtype.itemsize))
        for start in range(0, slices, step):
            yield from np.moveaxis(self.slab(start, min(start + step, slices)), 1, 0)


class FileSlabs(Slabs):
    """The same of an array in a file of its own, which is closed with it."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Keep the file.

        Args:
            file: Holds the array in C order and nothing else.
            shape: `(C, z, y, x)`, no axis empty.
            dtype: Of the array.
        """
        self.file, self.shape, self.dtype = file, shape, dtype

    def close(self) -> None:
        """Close the file, which is thereby gone."""
        self.file.close()

    def slab(self, start: int, stop: int) -> Array:
        """See `Slabs.slab`.

        Raises:
            OSError: The file cannot be read.
        """
        channels, slices, *plane = self.shape
        found = np.empty((channels, stop - start, *plane), dtype=self.dtype)
        for c, part in enumerate(found):
            self._read_into(part, (c * slices + start) * math.prod(plane))
        return _native(found)

    def at(self, places: npt.NDArray[np.intp]) -> Array:
        """See `Slabs.at`.

        Raises:
            OSError: The file cannot be read.
        """
        size = math.prod(self.shape[1:])
        found = np.empty((self.shape[0], len(places)), dtype=self.dtype)
        for c, row in enumerate(found):
            for i, place in enumerate(places.tolist()):
                self._read_into(row[i : i + 1], c * size + place)
        return _native(found)

    def _read_into(self, values: Array, place: int) -> None:
        self.file.seek(place * self.dtype.itemsize)
        if self.file.readinto(values.view(np.uint8).data) != values.nbytes:  # type: ignore[attr-defined]
            raise OSError("a temporary file has become shorter")


def open_npz(path: Path, *, large: float | None = None) -> Slabs:
    """The array `KEY` of an archive, whatever it holds.

    Args:
        path: The file.
        large: Bytes from which on an array goes into a temporary file, if that has room; `LARGE` by default. Only floating
            point of four axes in C order does; all else is read into memory.

    Raises:
        InputError: The file is missing, damaged or holds no such array; pickles are not read.
    """
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
            assert content.zip is not None  # it is open
            if (slabs := _in_file(content.zip, LARGE if large is None else large)) is not None:
                return slabs
            array = content[KEY]
            if not isinstance(array, np.ndarray):  # whose bytes NumPy hands on where they are no array
                raise InputError(problem(path, expected=f"an array `{KEY}`", found="something else"))
            return Slabs(array)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(problem(path, expected="a whole .npz file", found="no file")) from None
    except Exception as error:  # zipfile and NumPy raise whatever they do, MemoryError, too
        found = "an empty file" if path.stat().st_size == 0 else f"a damaged one ({error})"
        raise InputError(problem(path, expected="a whole .npz file", found=found, todo=NPZ_HINT)) from None


def _in_file(archive: ZipFile, large: float) -> FileSlabs | None:
    """The array in a temporary file; None where it is to be read whole: small, odd, or no room for it."""
    names = archive.namelist()
    info = archive.getinfo(KEY if KEY in names else f"{KEY}.npy")
    if info.file_size < large:
        return None
    with archive.open(info) as member:
        if member.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
            return None
        member.seek(0)
        version = np.lib.format.read_magic(member)  # type: ignore[no-untyped-call]
        if version not in ((1, 0), (2, 0)):
            return None
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(member)  # type: ignore[no-untyped-call]
        size = info.file_size - member.tell()
        plain = dtype.kind == "f" and not fortran and len(shape) == 4 and min(shape) > 0
        if not plain or math.prod(shape) * dtype.itemsize != size:
            return None
        try:
            if shutil.disk_usage(tempfile.gettempdir()).free < size:
                return None
            with ExitStack() as opened:
                file = opened.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(member, file, CHUNK)
                file.flush()
                if file.tell() != size:
                    return None
                opened.pop_all()
        except OSError:  # no such folder, no room
            return None
    return FileSlabs(file, shape, dtype)


def _native(values: Array) -> Array:
    """The same in the processor's order of bytes; no copy where it has that."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)
