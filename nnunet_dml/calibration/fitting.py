"""The methods of calibration after training by name: fitting them on a sample, storing and reading them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnunet_dml._checks import check_one_of
from nnunet_dml.calibration.calibrators import (
    Arrays,
    Calibrator,
    ClassCalibrator,
    OfRegions,
    Rows,
    Uncalibrated,
    present,
)
from nnunet_dml.calibration.isotonic import IsotonicCalibrator
from nnunet_dml.calibration.posthoc import KernelCalibrator
from nnunet_dml.calibration.samples import VoxelSample
from nnunet_dml.calibration.temperature import TemperatureScaling
from nnunet_dml.calibration.vector import VectorScaling

METHODS = ("none", "temperature", "vector", "isotonic", "kernel")
"""Ascending in what they can express."""
KEYS = 1000

_CLASSES: dict[str, type[Any]] = {
    it.method: it
    for it in (Uncalibrated, TemperatureScaling, VectorScaling, IsotonicCalibrator, KernelCalibrator)
}


def fit_calibrator(method: str, sample: VoxelSample, *, keys: int = KEYS) -> Calibrator:
    """Fit a calibrator on the voxels of held-out cases.

    Args:
        method: One of `METHODS`.
        sample: The voxels. Of regions each is fitted for itself; one that is everywhere or nowhere stays as it is.
        keys: How many voxels `"kernel"` takes for its keys, about; the others use all of the sample.

    Raises:
        ValueError: An unknown method, or a sample in which fewer than two classes have a share (regions: no region
            has an inside and an outside).
    """
    check_one_of("method", method, METHODS)
    groups = sample.rows(keys if method == "kernel" else None)
    fits = [len(rows.probs) >= 2 and int(present(rows).sum()) >= 2 for rows in groups]
    if not any(fits):
        raise ValueError("Expected voxels of at least two classes in `sample`, got fewer.")
    parts = [_fit(method, rows) if fit else Uncalibrated() for rows, fit in zip(groups, fits, strict=True)]
    return OfRegions(parts) if sample.independent else parts[0]


def _fit(method: str, rows: Rows) -> ClassCalibrator:
    fitted: ClassCalibrator = _CLASSES[method].fit(rows)
    return fitted


def calibrator_arrays(calibrator: Calibrator) -> Arrays:
    """All of a calibrator as plain arrays, for `numpy.savez`; `read_calibrator` makes it again."""
    parts = _parts(calibrator)
    arrays: Arrays = {
        "methods": np.array([it.method for it in parts]),
        "regions": np.array(isinstance(calibrator, OfRegions)),
    }
    for i, part in enumerate(parts):
        arrays |= {f"{name}_{i}": values for name, values in part.to_arrays().items()}
    return arrays


def _parts(calibrator: Calibrator) -> tuple[ClassCalibrator, ...]:
    if isinstance(calibrator, OfRegions):
        return calibrator.parts
    assert isinstance(calibrator, ClassCalibrator)
    return (calibrator,)


def read_calibrator(arrays: Mapping[str, Any]) -> Calibrator:
    """The calibrator that gave `calibrator_arrays`.

    Raises:
        ValueError: Arrays are missing, of another shape, or not finite; the method is unknown.
    """
    for name in ("methods", "regions"):
        if name not in arrays:
            raise ValueError(f"Expected an array `{name}` in `arrays`.")
    methods = np.asarray(arrays["methods"]).tolist()
    if not isinstance(methods, list) or not methods:
        raise ValueError(f"Expected `methods` of at least one name, got {methods}.")
    parts = []
    for i, method in enumerate(methods):
        check_one_of("methods", method, METHODS)
        end = f"_{i}"
        own = {name.removesuffix(end): arrays[name] for name in arrays if name.endswith(end)}
        parts.append(_CLASSES[method].from_arrays(own))
    return OfRegions(parts) if bool(arrays["regions"]) else parts[0]
