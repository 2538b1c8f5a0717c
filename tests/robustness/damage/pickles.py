"""Pickles that run code when they are read, and those of properties that no image has."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from tests.robustness.damage.files import Damage


class Bomb:
    """Unpickled, it makes a file `exploded` in the working folder."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def pickled(path: Path) -> None:
    """A pickle that calls a function."""
    path.write_bytes(pickle.dumps({"probabilities": Bomb()}))


def objects(path: Path) -> None:
    """An array of objects, which NumPy keeps as a pickle."""
    np.savez(path, probabilities=np.array([Bomb()], dtype=object))


def bare_pickle(path: Path) -> None:
    """torch's oldest format, which is a plain pickle."""
    path.write_bytes(pickle.dumps(Bomb()))


def properties(**changes: Any) -> Damage:
    """Entries of nnU-Net's properties of a case replaced."""
    return lambda path: path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()) | changes))
