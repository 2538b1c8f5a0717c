"""A trainer per well-known recipe: nothing but defaults."""

from __future__ import annotations

from typing import Any, ClassVar

from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer


class nnUNetTrainerDML(SoftLabelTrainer):
    """Cross-entropy and the Dice semimetric loss (Wang et al., MICCAI 2023)."""

    default_options: ClassVar[dict[str, Any]] = {"loss": {"overlap": "dml"}}


class nnUNetTrainerJML(SoftLabelTrainer):
    """Cross-entropy and the Jaccard metric loss (Wang et al., NeurIPS 2023)."""

    default_options: ClassVar[dict[str, Any]] = {"loss": {"overlap": "jml"}}


class nnUNetTrainerCTL(SoftLabelTrainer):
    """Cross-entropy and the compatible Tversky loss (Wang et al., NeurIPS 2023); focal with loss.gamma > 1.

    The weights of false positives and negatives, 0.3 and 0.7, favour recall (Salehi et al., MLMI 2017). With 0.5
    and 0.5 it is the Dice semimetric loss.
    """

    default_options: ClassVar[dict[str, Any]] = {"loss": {"overlap": "ctl", "alpha": 0.3, "beta": 0.7}}
