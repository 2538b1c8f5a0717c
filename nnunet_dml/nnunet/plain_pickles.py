"""Pickles that hold data and no code: nnU-Net's properties of cases and its checkpoints.

A pickle can call whatever function it names. nnU-Net's own hold numbers, texts, containers and NumPy's arrays and
scalars; these are read, anything else is refused before it is called.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# by NumPy's own functions: an array by a copy of its bytes, by a view of a buffer; a scalar
_REBUILT: dict[str, Any] = {
    "multiarray._reconstruct": np.zeros(1).__reduce__()[0],
    "numeric._frombuffer": np.zeros(1).__reduce_ex__(5)[0],
    "multiarray.scalar": np.float64(0).__reduce__()[0],
}
GLOBALS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    # NumPy 1 calls the room numpy.core, NumPy 2 numpy._core
    **{f"numpy.{core}.{name}": it for core in ("core", "_core") for name, it in _REBUILT.items()},
}
"""What a pickle may name, by the names that stand in it."""

DTYPES = tuple({type(np.dtype(code)) for code in np.typecodes["All"] if code != "O"})
"""The classes of NumPy's plain types, which torch wants named beside `numpy.dtype`."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The few that a pickle may name."""
        try:
            return GLOBALS[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name}, which is no data") from None


def read_properties(path: Path) -> Any:
    """What a pickle of nnU-Net's properties holds.

    Args:
        path: A `.pkl` that nnU-Net's preprocessing wrote.

    Raises:
        Exception: The file is damaged, which unpickling can answer with anything; or holds more than data
            (`pickle.UnpicklingError`).
    """
    return _Unpickler(io.BytesIO(path.read_bytes())).load()
