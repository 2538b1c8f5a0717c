"""Ways in which a file gets damaged: each takes the path of a whole one and spoils it."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

Damage = Callable[[Path], object]


class Bomb:
    """Unpickled, it makes a file `exploded` in the working folder."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


# -- any file


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_its_last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def text(path: Path) -> None:
    path.write_text("hello\n" * 20)


def latin1(path: Path) -> None:
    """Text with a letter in another encoding than UTF-8."""
    path.write_bytes(b'{"name": "M\xfcller", ' + path.read_bytes().lstrip(b"{"))


def zeros(path: Path) -> None:
    """What a crashed file system leaves."""
    path.write_bytes(bytes(path.stat().st_size))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_file(path: Path) -> None:
    """A file where a folder is expected."""
    shutil.rmtree(path)
    path.write_text("hello")


def gone(path: Path) -> None:
    """A folder that is not there."""
    shutil.rmtree(path)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def looping(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def a_fifo(path: Path) -> None:
    """A pipe, whose reader waits for ever."""
    path.unlink()
    os.mkfifo(path)


def pickled(path: Path) -> None:
    """A pickle that calls a function."""
    path.write_bytes(pickle.dumps({"probabilities": Bomb()}))


# -- images


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


# -- JSON


def at(*place: Any, value: Any) -> Damage:
    """A value in an object of objects replaced."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        path.write_text(json.dumps(content))

    return change


def as_json(value: Any) -> Damage:
    """Another value."""
    return lambda path: path.write_text(json.dumps(value))


def deep(path: Path) -> None:
    """More brackets than Python's stack takes."""
    path.write_text("[" * 200_000)


def a_bom(path: Path) -> None:
    """UTF-16, as some editors save."""
    path.write_bytes(path.read_text().encode("utf-16"))


def doubled(path: Path) -> None:
    """Two processes wrote into one file."""
    path.write_bytes(path.read_bytes() * 2)


def changed(**changes: Any) -> Damage:
    """Keys of an object replaced; None removes one, a function gets the old value."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        for key, value in changes.items():
            if value is None:
                del content[key]
            else:
                content[key] = value(content[key]) if callable(value) else value
        path.write_text(json.dumps(content))

    return change


# -- arrays


def npz(**arrays: Any) -> Damage:
    """Other arrays."""
    return lambda path: np.savez(path, **{key: np.asarray(it) for key, it in arrays.items()})


def scaled(factor: float) -> Damage:
    """Probabilities that are none."""

    def change(path: Path) -> None:
        with np.load(path) as content:
            arrays = dict(content)
        np.savez(path, **{key: it * factor for key, it in arrays.items()})

    return change


def objects(path: Path) -> None:
    """An array of objects, which NumPy keeps as a pickle."""
    np.savez(path, probabilities=np.array([Bomb()], dtype=object))


def one_array(path: Path) -> None:
    """A `.npy` under the name of an `.npz`."""
    with path.open("wb") as file:
        np.save(file, np.zeros((3, 1, 6, 7), np.float32))


def huge_array(path: Path) -> None:
    """A header that declares more than any memory."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f4", "fortran_order": False, "shape": (3, 10**5, 10**5, 10**5)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("probabilities.npy", buffer.getvalue())


def bad_header(path: Path) -> None:
    """A header of NumPy's that Python cannot parse."""
    with zipfile.ZipFile(path, "w") as archive:
        header = b"{'descr': '<f4', ((((((((((\n"
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        archive.writestr("probabilities.npy", content)


def climbing(path: Path) -> None:
    """An archive with an entry outside itself, and the array."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1, 1, 1, 1)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../exploded.npy", buffer.getvalue())


def not_an_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("probabilities.npy", b"hello")


def encrypted(path: Path) -> None:
    """The bit of an encrypted entry is set."""
    content = bytearray(path.read_bytes())
    content[6] |= 1
    start = content.index(b"PK\x01\x02")
    content[start + 8] |= 1
    path.write_bytes(content)


# -- models


def checkpoint(**changes: Any) -> Damage:
    """Entries of a checkpoint replaced; None removes one."""

    def change(path: Path) -> None:
        content = torch.load(path, weights_only=False)
        for key, value in changes.items():
            if value is None:
                del content[key]
            else:
                content[key] = value(content[key]) if callable(value) else value
        torch.save(content, path)

    return change


def diverged(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: it * float("nan") for key, it in weights.items()}


def bare_pickle(path: Path) -> None:
    """torch's oldest format, which is a plain pickle."""
    path.write_bytes(pickle.dumps(Bomb()))
