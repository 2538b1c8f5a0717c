"""A trainer per well-known recipe: nothing but defaults."""

from __future__ import annotations

from typing import Any, ClassVar

from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer

_LS = {"source": "hard", "smoothing": "all", "epsilon": 0.1}
_BLS = {"source": "hard", "smoothing": "boundary", "epsilon": 0.5, "neighbourhood": 3}  # the paper's best


class nnUNetTrainerDML(SoftLabelTrainer):
    """Cross-entropy and the Dice semimetric loss (Wang et al., MICCAI 2023)."""

    default_options: ClassVar[dict[str, Any]] = {"loss": {"overlap": "dml"}}


class nnUNetTrainerJML(SoftLabelTrainer):
    """Cross-entropy and the Jaccard metric loss (Wang et al., NeurIPS 2023)."""

    default_options: ClassVar[dict[str, Any]] = {"loss": {"overlap": "jml"}}


class nnUNetTrainerDML_LS(nnUNetTrainerDML):
    """The same on nnU-Net's hard labels with label smoothing; with labels.source=weighted on smoothed soft labels."""

    default_options: ClassVar[dict[str, Any]] = {**nnUNetTrainerDML.default_options, "labels": _LS}


class nnUNetTrainerDML_BLS(nnUNetTrainerDML):
    """The same on nnU-Net's hard labels, smoothed near their boundaries (Wang et al., NeurIPS 2023, section 2.4.1)."""

    default_options: ClassVar[dict[str, Any]] = {**nnUNetTrainerDML.default_options, "labels": _BLS}


class nnUNetTrainerJML_LS(nnUNetTrainerJML):
    """The same on nnU-Net's hard labels with label smoothing."""

    default_options: ClassVar[dict[str, Any]] = {**nnUNetTrainerJML.default_options, "labels": _LS}


class nnUNetTrainerJML_BLS(nnUNetTrainerJML):
    """The same on nnU-Net's hard labels, smoothed near their boundaries."""

    default_options: ClassVar[dict[str, Any]] = {**nnUNetTrainerJML.default_options, "labels": _BLS}


class nnUNetTrainerCTL(SoftLabelTrainer):
    """Cross-entropy and the compatible Tversky loss (Wang et al., NeurIPS 2023); focal with loss.gamma > 1.

    The weights of false positives and negatives, 0.3 and 0.7, favour recall (Salehi et al., MLMI 2017). With 0.5
    and 0.5 it is the Dice semimetric loss.
    """

    default_options: ClassVar[dict[str, Any]] = {"loss": {"overlap": "ctl", "alpha": 0.3, "beta": 0.7}}
