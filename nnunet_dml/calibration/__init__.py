"""Calibration of probabilities on tensors of any dimension: in a training step, and of a trained model.

After training: `VoxelSample` collects voxels of held-out cases, `fit_calibrator` fits any of `METHODS` on them, and
`Calibrator.calibrate` applies it.
"""

from nnunet_dml.calibration.bandwidth import BandwidthSearch, bandwidth_by_brier, bandwidth_by_likelihood
from nnunet_dml.calibration.batch import calibrate_batch
from nnunet_dml.calibration.calibrators import Calibrator, OfRegions, Rows, Uncalibrated
from nnunet_dml.calibration.fitting import METHODS, calibrator_arrays, fit_calibrator, read_calibrator
from nnunet_dml.calibration.isotonic import IsotonicCalibrator
from nnunet_dml.calibration.kde import kernel_calibrate
from nnunet_dml.calibration.kernel_error import kernel_calibration_error
from nnunet_dml.calibration.keys import choose_keys, wrong_voxels
from nnunet_dml.calibration.posthoc import KernelCalibrator
from nnunet_dml.calibration.samples import VoxelSample
from nnunet_dml.calibration.temperature import (
    TemperatureFit,
    TemperatureScaling,
    apply_temperature,
    fit_temperature,
    logits_of,
)
from nnunet_dml.calibration.vector import VectorScaling

__all__ = [
    "METHODS",
    "BandwidthSearch",
    "Calibrator",
    "IsotonicCalibrator",
    "KernelCalibrator",
    "OfRegions",
    "Rows",
    "TemperatureFit",
    "TemperatureScaling",
    "Uncalibrated",
    "VectorScaling",
    "VoxelSample",
    "apply_temperature",
    "bandwidth_by_brier",
    "bandwidth_by_likelihood",
    "calibrate_batch",
    "calibrator_arrays",
    "choose_keys",
    "fit_calibrator",
    "fit_temperature",
    "kernel_calibrate",
    "kernel_calibration_error",
    "logits_of",
    "read_calibrator",
    "wrong_voxels",
]
