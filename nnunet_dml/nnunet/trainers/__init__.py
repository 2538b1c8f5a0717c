"""The trainers: a loss per recipe; labels, loss and schedule are options of the plans."""

from nnunet_dml.nnunet.trainers.configured import nnUNetTrainerConfigured
from nnunet_dml.nnunet.trainers.recipes import nnUNetTrainerCTL, nnUNetTrainerDML, nnUNetTrainerJML

__all__ = ["nnUNetTrainerCTL", "nnUNetTrainerConfigured", "nnUNetTrainerDML", "nnUNetTrainerJML"]
