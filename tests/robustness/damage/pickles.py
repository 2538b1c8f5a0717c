"""Pickles that run code when they are read."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np


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
