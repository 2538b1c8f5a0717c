"""What every calibrator of a trained model is: fitted on weighted voxels, applied to probabilities, stored as arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_dml._checks import check_same_shape
from nnunet_dml.calibration.kde import two_columns, working_dtype

Arrays = dict[str, NDArray[Any]]
CHUNK = 2**18  # voxels that are calibrated at a time: the working memory does not grow with the image


class Rows(NamedTuple):
    """Voxels to fit on."""

    probs: Tensor
    """(N, C), floating, in [0, 1], rows summing to one."""
    labels: Tensor
    """(N, C), floating: one-hot or fractions, rows summing to one."""
    weights: Tensor
    """(N,), above 0: how many voxels each row stands for."""


class Calibrator(ABC):
    """A map from probabilities to probabilities of the same classes. Exact 0 and 1 are accepted everywhere."""

    method: ClassVar[str]
    keeps_argmax: ClassVar[bool] = False
    """Whether the greatest class of a voxel (regions: the side of 0.5) is the same afterwards, but for ties that
    rounding to the result's precision makes."""

    @property
    @abstractmethod
    def channels(self) -> int | None:
        """C of the probabilities it is for; None takes any."""

    @abstractmethod
    def of_rows(self, probs: Tensor) -> Tensor:
        """Calibrated rows: (N, C), float64, in [0, 1] → the same shape, float64, rows summing to one (regions: not so)."""

    def calibrate(self, probs: Tensor) -> Tensor:
        """Calibrated probabilities.

        Args:
            probs: (B, C, *spatial), floating, in [0, 1]; summing to one over C (regions: each for itself).

        Returns:
            (B, C, *spatial), a new tensor, float32 (float64 if `probs` is), without a gradient; the sums over C are
            one (regions: not so).

        Raises:
            ValueError: A wrong shape or number of classes.
            TypeError: `probs` is not floating.
        """
        if not probs.is_floating_point():
            raise TypeError(f"Expected `probs` of a floating dtype, got {probs.dtype}.")
        if probs.ndim < 3:
            raise ValueError(f"Expected `probs` of shape (B, C, *spatial), got {tuple(probs.shape)}.")
        if self.channels not in (None, probs.shape[1]):
            raise ValueError(f"Expected `probs` of {self.channels} classes, got {probs.shape[1]}.")
        flat = probs.detach().flatten(2)
        result = torch.empty(flat.shape, dtype=working_dtype(probs), device=probs.device)
        for image, calibrated in zip(flat, result, strict=True):
            for start in range(0, image.shape[1], CHUNK):
                here = slice(start, start + CHUNK)
                calibrated[:, here] = self.of_rows(image[:, here].T.double()).T
        return result.view(probs.shape)


class ClassCalibrator(Calibrator):
    """A calibrator of classes that exclude each other; each has a class method `fit(rows)` that returns one."""

    @abstractmethod
    def to_arrays(self) -> Arrays:
        """The whole state as plain arrays of numbers, for `numpy.savez`."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> ClassCalibrator:
        """The calibrator that gave `to_arrays`; arrays or nested lists. `ValueError` if they do not fit."""


class Uncalibrated(ClassCalibrator):
    """The probabilities as they are."""

    method = "none"
    keeps_argmax = True
    channels = None

    @classmethod
    def fit(cls, rows: Rows) -> Uncalibrated:
        """Nothing is fitted."""
        return cls()

    def of_rows(self, probs: Tensor) -> Tensor:
        """The rows themselves."""
        return probs

    def to_arrays(self) -> Arrays:
        """No state."""
        return {}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Uncalibrated:
        """Nothing is read."""
        return cls()


class OfRegions(Calibrator):
    """A calibrator for each region: its probability against the rest, a problem of two classes."""

    def __init__(self, parts: Sequence[ClassCalibrator]) -> None:
        """Take one calibrator of two classes per region, of one method or none."""
        if not parts:
            raise ValueError("Expected `parts` to hold at least one calibrator, got none.")
        self.parts = tuple(parts)

    @property
    def method(self) -> str:  # type: ignore[override]
        """That of its parts."""
        return next((it.method for it in self.parts if it.method != Uncalibrated.method), Uncalibrated.method)

    @property
    def keeps_argmax(self) -> bool:  # type: ignore[override]
        """Whether all of its parts do."""
        return all(it.keeps_argmax for it in self.parts)

    @property
    def channels(self) -> int:
        """The number of regions."""
        return len(self.parts)

    def of_rows(self, probs: Tensor) -> Tensor:
        """Each column by its own part."""
        columns = [
            part.of_rows(two_columns(column))[:, 1] for part, column in zip(self.parts, probs.T, strict=True)
        ]
        return torch.stack(columns, 1)


def check_rows(rows: Rows) -> None:
    """Raise `ValueError` or `TypeError` unless rows can be fitted on; values are not looked at."""
    for name, tensor in rows._asdict().items():
        if not tensor.is_floating_point():
            raise TypeError(f"Expected `{name}` of a floating dtype, got {tensor.dtype}.")
    if rows.probs.ndim != 2 or not len(rows.probs) or rows.probs.shape[1] < 2:
        raise ValueError(
            f"Expected `probs` of shape (N, C) with at least one row and two classes, got {tuple(rows.probs.shape)}."
        )
    check_same_shape(
        "labels", rows.labels.shape, "probs", rows.probs.shape, hint="For hard labels call `one_hot` first."
    )
    if tuple(rows.weights.shape) != (len(rows.probs),):
        raise ValueError(
            f"Expected `weights` of shape ({len(rows.probs)},), got {tuple(rows.weights.shape)}."
        )


def present(rows: Rows) -> Tensor:
    """Bool (C,): the classes that any row has a share of."""
    return (rows.labels > 0).any(0)


def numbers(arrays: Mapping[str, Any], name: str, *, axes: int) -> NDArray[np.float64]:
    """An array of finite numbers from what `to_arrays` gave; `ValueError` if it is missing or is no such array."""
    if name not in arrays:
        raise ValueError(f"Expected an array `{name}` in `arrays`.")
    array: NDArray[np.float64] = np.asarray(arrays[name], dtype=np.float64)
    if array.ndim != axes or not np.isfinite(array).all():
        raise ValueError(f"Expected `{name}` of {axes} axes and finite, got shape {array.shape}.")
    return array
