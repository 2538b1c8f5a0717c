"""Damage to arrays in `.npz` and `.b2nd` files."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from tests.robustness.damage.files import Damage


def npz(**arrays: Any) -> Damage:
    """Other arrays."""
    return lambda path: np.savez(path, **{key: np.asarray(it) for key, it in arrays.items()})


def b2nd(*shape: int) -> Damage:
    """Zeros of another shape."""

    def change(path: Path) -> None:
        path.unlink()
        blosc2.asarray(np.zeros(shape, np.float32), urlpath=str(path))

    return change


def scaled(factor: float) -> Damage:
    """Probabilities that are none."""

    def change(path: Path) -> None:
        with np.load(path) as content:
            arrays = dict(content)
        np.savez(path, **{key: it * factor for key, it in arrays.items()})

    return change


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
