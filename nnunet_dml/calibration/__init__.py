"""Calibration of probabilities on tensors of any dimension: kernel regression, temperature, their parameters."""

from nnunet_dml.calibration.batch import calibrate_batch
from nnunet_dml.calibration.kde import kernel_calibrate
from nnunet_dml.calibration.keys import choose_keys, wrong_voxels

__all__ = ["calibrate_batch", "choose_keys", "kernel_calibrate", "wrong_voxels"]
