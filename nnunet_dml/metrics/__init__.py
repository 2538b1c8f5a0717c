"""Metrics of one case, per class: arrays or tensors in, values out. Averaging over cases is a later step."""

from nnunet_dml.metrics.calibration import ece_from_counts, expected_calibration_error, reliability_counts
from nnunet_dml.metrics.overlap import bdice, bdice_counts, bdice_from_counts, dice, dice_per_class
from nnunet_dml.metrics.volume import volume_bias

__all__ = [
    "bdice",
    "bdice_counts",
    "bdice_from_counts",
    "dice",
    "dice_per_class",
    "ece_from_counts",
    "expected_calibration_error",
    "reliability_counts",
    "volume_bias",
]
