"""Damage to images: their gzip stream, their header, their values, their grid."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from tests.robustness.damage.files import Damage


def garbage_behind_gzip(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"garbage")


def flipped_gzip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)


def gzipped_text(path: Path) -> None:
    path.write_bytes(gzip.compress(b"hello"))


def huge_sizes(path: Path) -> None:
    """A header of NIfTI that declares 30000³ voxels."""
    packed = path.suffix == ".gz"
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    struct.pack_into("<4h", content, 40, 3, 30000, 30000, 30000)
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))


def in_header(*values: tuple[str, int, float]) -> Damage:
    """Values packed into a header of NIfTI: (format, place, value)."""

    def change(path: Path) -> None:
        content = bytearray(gzip.decompress(path.read_bytes()))
        for kind, place, value in values:
            struct.pack_into(kind, content, place, value)
        path.write_bytes(gzip.compress(bytes(content)))

    return change


def voxel_size(value: float) -> Damage:
    """Along the first axis."""
    return in_header(("<f", 80, value))


origin_nan = in_header(("<f", 268, float("nan")), ("<f", 292, float("nan")))


def _array(path: Path) -> tuple[np.ndarray, sitk.Image]:
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), image


def _write(path: Path, array: np.ndarray, like: sitk.Image | None = None) -> None:
    image = sitk.GetImageFromArray(array, isVector=False)
    if like is not None:
        image.CopyInformation(like)
    sitk.WriteImage(image, str(path))


def not_finite(path: Path) -> None:
    array, image = _array(path)
    array = array.astype(np.float32)
    array.flat[0], array.flat[1] = np.nan, np.inf
    _write(path, array, image)


def cast(kind: str, factor: float = 1) -> Damage:
    """The first value of every voxel as a number of another type."""

    def change(path: Path) -> None:
        array, image = _array(path)
        if image.GetNumberOfComponentsPerPixel() > 1:
            array = array[..., 0]
        _write(path, (array * factor).astype(kind), image)

    return change


def fractions(path: Path) -> None:
    """A mask of fractions."""
    array, image = _array(path)
    _write(path, array.astype(np.float32) * 0.5 + 0.25, image)


def other_labels(path: Path) -> None:
    array, image = _array(path)
    _write(path, np.full_like(array, 77), image)


def negative_labels(path: Path) -> None:
    array, image = _array(path)
    _write(path, array.astype(np.int16) - 1, image)


def other_shape(path: Path) -> None:
    array, _ = _array(path)
    _write(path, np.concatenate([array, array], -1))


def other_spacing(path: Path) -> None:
    _, image = _array(path)
    image.SetSpacing([2.5 * it for it in image.GetSpacing()])
    sitk.WriteImage(image, str(path))


def five_axes(path: Path) -> None:
    array, _ = _array(path)
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 1, 2, 2), array.dtype), np.eye(4)), path)


def too_large(path: Path) -> None:
    """Fractions above 1."""
    array, image = _array(path)
    _write_vector(path, array * 3, image)


def nan_fractions(path: Path) -> None:
    array, image = _array(path)
    array.flat[0] = np.nan
    _write_vector(path, array, image)


def _write_vector(path: Path, array: np.ndarray, like: sitk.Image) -> None:
    image = sitk.GetImageFromArray(array, isVector=like.GetNumberOfComponentsPerPixel() > 1)
    image.CopyInformation(like)
    sitk.WriteImage(image, str(path))
