"""Isotonic regression of each class against the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from nnunet_dml.calibration.calibrators import Arrays, ClassCalibrator, Rows, check_rows, numbers, present

Curve = NDArray[np.float64]  # (2, K): probabilities, ascending, and what becomes of them
_UNCHANGED = np.array([[0.0, 1.0], [0.0, 1.0]])


class IsotonicCalibrator(ClassCalibrator):
    """For each class the monotone step function that fits its labels best, linear between the steps.

    The classes' results are divided by their sum; where all of them are 0 the voxel keeps what it had. Each class's
    function is monotone, but the greatest class may change, with two classes too: what was 0.4 may become 0.6.

    Source: Zadrozny and Elkan, Transforming Classifier Scores into Accurate Multiclass Probability Estimates, KDD 2002.
    """

    method = "isotonic"

    def __init__(self, curves: Sequence[Curve]) -> None:
        """Take a function per class: probabilities, strictly ascending, and what becomes of them, never descending."""
        for curve in curves:
            x, y = curve
            if not len(x) or (np.diff(x) <= 0).any() or (np.diff(y) < 0).any() or y[0] < 0 or y[-1] > 1:
                raise ValueError("Expected `curves` that ascend within [0, 1], got others.")
        if len(curves) < 2:
            raise ValueError(f"Expected `curves` of at least two classes, got {len(curves)}.")
        self.curves = tuple(curves)

    @property
    def channels(self) -> int:
        """C."""
        return len(self.curves)

    @classmethod
    def fit(cls, rows: Rows) -> IsotonicCalibrator:
        """The functions with the least weighted squared error (scikit-learn).

        A class that no row has a share of is left as it is.

        Args:
            rows: At least one.

        Raises:
            ValueError: A wrong shape, no row.
            TypeError: A dtype that is not floating.
        """
        check_rows(rows)
        probs, labels, weights = (it.double().numpy() for it in rows)
        return cls(
            [
                _curve(probs[:, c], labels[:, c], weights) if there else _UNCHANGED.copy()
                for c, there in enumerate(present(rows).tolist())
            ]
        )

    def of_rows(self, probs: Tensor) -> Tensor:
        """Each column by its function, then divided by their sum."""
        p = probs.cpu().numpy()
        mapped = np.stack([np.interp(p[:, c], *curve) for c, curve in enumerate(self.curves)], 1)
        total = mapped.sum(1, keepdims=True)
        result = np.where(total > 0, mapped / np.where(total > 0, total, 1), p)
        return torch.from_numpy(result).to(probs.device)

    def to_arrays(self) -> Arrays:
        """The functions one behind the other, and how long each is."""
        lengths = np.array([curve.shape[1] for curve in self.curves])
        return {"curves": np.concatenate(self.curves, 1), "lengths": lengths}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> IsotonicCalibrator:
        """See `ClassCalibrator.from_arrays`."""
        curves = numbers(arrays, "curves", axes=2)
        lengths = numbers(arrays, "lengths", axes=1).astype(np.int64)
        if len(curves) != 2 or lengths.sum() != curves.shape[1] or (lengths < 1).any():
            raise ValueError(f"Expected `curves` of lengths {lengths.tolist()}, got {curves.shape}.")
        return cls(np.split(curves, np.cumsum(lengths)[:-1], axis=1))


def _curve(probs: Curve, labels: Curve, weights: Curve) -> Curve:
    fit = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(probs, labels, weights)
    return np.stack([fit.X_thresholds_, fit.y_thresholds_]).astype(np.float64)
