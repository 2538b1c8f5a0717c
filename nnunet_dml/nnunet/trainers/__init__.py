"""The trainers: a loss per recipe; labels, loss and schedule are options of the plans."""

from nnunet_dml.nnunet.trainers.configured import nnUNetTrainerConfigured
from nnunet_dml.nnunet.trainers.distillation import nnUNetTrainerDML_KD, nnUNetTrainerJML_KD
from nnunet_dml.nnunet.trainers.recipes import (
    nnUNetTrainerCTL,
    nnUNetTrainerDML,
    nnUNetTrainerDML_BLS,
    nnUNetTrainerDML_LS,
    nnUNetTrainerJML,
    nnUNetTrainerJML_BLS,
    nnUNetTrainerJML_LS,
)
from nnunet_dml.nnunet.trainers.semi_supervised import nnUNetTrainerDML_SSL, nnUNetTrainerJML_SSL

__all__ = [
    "nnUNetTrainerCTL",
    "nnUNetTrainerConfigured",
    "nnUNetTrainerDML",
    "nnUNetTrainerDML_BLS",
    "nnUNetTrainerDML_KD",
    "nnUNetTrainerDML_LS",
    "nnUNetTrainerDML_SSL",
    "nnUNetTrainerJML",
    "nnUNetTrainerJML_BLS",
    "nnUNetTrainerJML_KD",
    "nnUNetTrainerJML_LS",
    "nnUNetTrainerJML_SSL",
]
