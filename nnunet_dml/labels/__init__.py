"""Labels from several raters: consensus, soft maps, each rater's weight. NumPy arrays in and out."""

from nnunet_dml.labels.fusion import FUSIONS, fuse, majority_vote, rater_dice, rater_weights

__all__ = ["FUSIONS", "fuse", "majority_vote", "rater_dice", "rater_weights"]
