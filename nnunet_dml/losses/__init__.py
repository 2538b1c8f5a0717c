"""Losses on soft labels: overlap (Dice, Jaccard, Tversky), cross-entropy plus overlap, distillation, deep supervision."""

from nnunet_dml.losses.compound import CrossEntropyOverlapLoss
from nnunet_dml.losses.cross_entropy import one_hot, soft_cross_entropy
from nnunet_dml.losses.deep_supervision import DeepSupervisionLoss, average_down, deep_supervision_weights
from nnunet_dml.losses.distillation import DistillationLoss
from nnunet_dml.losses.lovasz import lovasz_softmax_loss
from nnunet_dml.losses.modules import (
    CompatibleTverskyLoss,
    DiceSemimetricLoss,
    JaccardMetricLoss,
    LovaszSoftmaxLoss,
    SoftDiceLoss,
    SoftJaccardLoss,
)
from nnunet_dml.losses.overlap import (
    compatible_tversky_loss,
    dice_semimetric_loss,
    jaccard_metric_loss,
    soft_dice_loss,
    soft_jaccard_loss,
)

__all__ = [
    "CompatibleTverskyLoss",
    "CrossEntropyOverlapLoss",
    "DeepSupervisionLoss",
    "DiceSemimetricLoss",
    "DistillationLoss",
    "JaccardMetricLoss",
    "LovaszSoftmaxLoss",
    "SoftDiceLoss",
    "SoftJaccardLoss",
    "average_down",
    "compatible_tversky_loss",
    "deep_supervision_weights",
    "dice_semimetric_loss",
    "jaccard_metric_loss",
    "lovasz_softmax_loss",
    "one_hot",
    "soft_cross_entropy",
    "soft_dice_loss",
    "soft_jaccard_loss",
]
