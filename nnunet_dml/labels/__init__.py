"""Labels from several raters: consensus, soft maps, each rater's weight (NumPy arrays); label smoothing (tensors)."""

from nnunet_dml.labels.fusion import FUSIONS, fuse, majority_vote, rater_dice, rater_weights
from nnunet_dml.labels.smoothing import boundary_voxels, smooth_boundary, smooth_labels

__all__ = [
    "FUSIONS",
    "boundary_voxels",
    "fuse",
    "majority_vote",
    "rater_dice",
    "rater_weights",
    "smooth_boundary",
    "smooth_labels",
]
