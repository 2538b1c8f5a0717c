"""Calibration of probabilities on tensors of any dimension: kernel regression, temperature, their parameters."""

from nnunet_dml.calibration.bandwidth import BandwidthSearch, bandwidth_by_brier, bandwidth_by_likelihood
from nnunet_dml.calibration.batch import calibrate_batch
from nnunet_dml.calibration.kde import kernel_calibrate
from nnunet_dml.calibration.kernel_error import kernel_calibration_error
from nnunet_dml.calibration.keys import choose_keys, wrong_voxels
from nnunet_dml.calibration.posthoc import KernelCalibrator
from nnunet_dml.calibration.temperature import (
    TemperatureFit,
    apply_temperature,
    fit_temperature,
    logits_of,
)

__all__ = [
    "BandwidthSearch",
    "KernelCalibrator",
    "TemperatureFit",
    "apply_temperature",
    "bandwidth_by_brier",
    "bandwidth_by_likelihood",
    "calibrate_batch",
    "choose_keys",
    "fit_temperature",
    "kernel_calibrate",
    "kernel_calibration_error",
    "logits_of",
    "wrong_voxels",
]
