"""The one reader and writer of soft maps on disk.

A soft map is a blosc2 array (`.b2nd`) of shape (F, *spatial): the fractions of the F foreground classes, quantised
to integers 0 … scale; where raters may abstain, a last channel holds the share that nobody labelled. The background
is not stored: it is 1 − Σ, so that zero padding is background. What made the map (format, fusion, sources, grid, share
of fractional voxels) travels with it as metadata. For training on one rater at a time the raters' label maps are kept
in the same format.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from nnunet_dml._checks import check_one_of
from nnunet_dml._files import atomic_file

FORMAT = 1
_META = "nnunet_dml"
_COMPRESSION = {  # as nnU-Net's own arrays: about half of what LZ4 leaves, and a patch is read nearly as fast
    "codec": blosc2.Codec.ZSTD,
    "clevel": 8,
    "nthreads": 1,
    "filters": [blosc2.Filter.NOFILTER],
}
_MMAP = {} if os.name == "nt" else {"mmap_mode": "r"}  # as nnU-Net: memory maps fail on Windows
# largest integer of each width; 16 bit stay within int16, which nnU-Net's loader casts to
_SCALES = {8: (np.uint8, 255), 16: (np.int16, 32767)}


class DamagedSoftMapError(ValueError):
    """A file that is no whole soft map of this format."""


@dataclass(frozen=True)
class SoftMap:
    """An open soft map. Slicing `array` reads only the chunks that it touches.

    Attributes:
        array: (F, *spatial) integers, lazily read.
        scale: The integer that stands for 1.0.
        metadata: What was given to `save_soft_map`, plus `format`, `scale`, `crc32`.
    """

    array: blosc2.NDArray
    scale: int
    metadata: dict[str, Any]

    def load(self) -> npt.NDArray[np.float32]:
        """The whole map as float32 fractions in [0, 1], shape (F, *spatial)."""
        voxels: npt.NDArray[Any] = np.asarray(self.array[:])
        fractions: npt.NDArray[np.float32] = voxels.astype(np.float32) / np.float32(self.scale)
        return fractions


def quantise(
    maps: npt.NDArray[np.floating[Any]], *, bits: int = 8, exclusive: bool = True
) -> npt.NDArray[Any]:
    """Round fractions to integers whose sum over the classes never exceeds the integer of 1.0.

    Args:
        maps: (F, *spatial) fractions of the foreground classes, in [0, 1], sums at most 1.
        bits: 8 (error at most 1/510 a class) or 16 (1/65534).
        exclusive: False for regions, which may overlap: their sums are left alone.

    Returns:
        (F, *spatial) uint8 or int16. Where rounding makes a sum too large, the largest class gives way.

    >>> quantise(np.array([[0.0, 1 / 3, 1.0]]))
    array([[  0,  85, 255]], dtype=uint8)
    """
    check_one_of("bits", bits, _SCALES)
    dtype, scale = _SCALES[bits]
    rounded = np.rint(np.asarray(maps) * np.float32(scale)).astype(np.int32)
    excess = rounded.sum(0) - scale
    if exclusive and (excess > 0).any():
        largest = np.expand_dims(rounded.argmax(0), 0)
        lowered = np.take_along_axis(rounded, largest, 0) - np.maximum(excess, 0)[None]
        np.put_along_axis(rounded, largest, lowered, 0)
    quantised: npt.NDArray[Any] = rounded.astype(dtype)
    return quantised


def save_soft_map(
    path: str | Path,
    maps: npt.NDArray[np.floating[Any]],
    *,
    metadata: Mapping[str, Any],
    bits: int = 8,
    exclusive: bool = True,
    chunks: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
) -> None:
    """Write a soft map: quantised, compressed, under a temporary name that is renamed when whole.

    Args:
        path: The `.b2nd` file.
        maps: (F, *spatial) fractions of the foreground classes, in [0, 1], sums at most 1.
        metadata: JSON-like facts about the map.
        bits: 8 or 16.
        exclusive: As of `quantise`.
        chunks: Chunk shape of blosc2; None leaves it to blosc2.
        blocks: Block shape of blosc2.

    Raises:
        OSError: The file cannot be written, for instance because the disk is full.
    """
    quantised = quantise(maps, bits=bits, exclusive=exclusive)
    _write(path, quantised, metadata, _SCALES[bits][1], chunks, blocks)


def save_label_maps(
    path: str | Path,
    maps: npt.NDArray[np.integer[Any]],
    *,
    metadata: Mapping[str, Any],
    chunks: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
) -> None:
    """Write several raters' label maps as they are, in the format of soft maps (`scale` is 1).

    Args:
        path: The `.b2nd` file.
        maps: (R, *spatial) labels, 0 … 32767.
        metadata: See `save_soft_map`, as the rest.
        chunks: Chunk shape of blosc2.
        blocks: Block shape of blosc2.

    Raises:
        OSError: The file cannot be written.
    """
    dtype = np.uint8 if maps.max(initial=0) < 256 else np.int16  # nnU-Net's loader casts to int16
    _write(path, maps.astype(dtype), metadata, 1, chunks, blocks)


def _write(
    path: str | Path,
    array: npt.NDArray[Any],
    metadata: Mapping[str, Any],
    scale: int,
    chunks: Sequence[int] | None,
    blocks: Sequence[int] | None,
) -> None:
    array = np.ascontiguousarray(array)
    meta = {**metadata, "format": FORMAT, "scale": scale, "crc32": zlib.crc32(array.tobytes())}
    with atomic_file(path) as temporary:
        try:
            stored = blosc2.asarray(
                array, urlpath=str(temporary), chunks=chunks, blocks=blocks, cparams=_COMPRESSION
            )
            stored.schunk.vlmeta[_META] = meta
        except RuntimeError as error:  # blosc2 does not say why
            raise OSError(errno.EIO, "could not be written; is the disk full?", str(path)) from error


def open_array(path: str | Path) -> blosc2.NDArray:
    """Open only the quantised voxels of a soft map, lazily: for a loader, which opens one for every sample.

    Args:
        path: A soft map that `open_soft_map` has accepted.
    """
    return blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1}, **_MMAP)


def open_soft_map(path: str | Path) -> SoftMap:
    """Open a soft map without reading its voxels.

    Raises:
        FileNotFoundError: No such file.
        DamagedSoftMapError: The file cannot be opened, is of another kind or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        array = open_array(path)
        meta = dict(array.schunk.vlmeta[_META])
    except Exception as error:  # blosc2 raises whatever its C side says
        raise DamagedSoftMapError(
            f"{path}: expected a whole soft map, found {type(error).__name__}: {error}"
        ) from None
    if meta.get("format") != FORMAT:
        raise DamagedSoftMapError(f"{path}: expected soft map format {FORMAT}, found {meta.get('format')}")
    if not all(isinstance(meta.get(key), int) for key in ("scale", "crc32")) or meta["scale"] < 1:
        raise DamagedSoftMapError(
            f"{path}: expected numbers `scale` and `crc32` in its metadata, found others"
        )
    return SoftMap(array, meta["scale"], meta)


def verify_soft_map(path: str | Path) -> SoftMap:
    """Open a soft map and read all of it against its checksum.

    Raises:
        FileNotFoundError: No such file.
        DamagedSoftMapError: It cannot be read, or its voxels are not those that were written.
    """
    opened = open_soft_map(path)
    try:
        crc = zlib.crc32(np.ascontiguousarray(opened.array[:]).tobytes())
    except Exception as error:  # blosc2 raises whatever its C side says
        raise DamagedSoftMapError(
            f"{path}: expected readable chunks, found {type(error).__name__}: {error}"
        ) from None
    if crc != opened.metadata["crc32"]:
        raise DamagedSoftMapError(f"{path}: expected checksum {opened.metadata['crc32']}, found {crc}")
    return opened
