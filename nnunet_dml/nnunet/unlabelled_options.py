"""The options of semi-supervised training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from nnunet_dml.nnunet.option_base import OptionGroup


class UnlabelledOptions(OptionGroup):
    """Unlabelled images beside the labelled ones, with labels from the moving average of the network."""

    ce_labelled: float = Field(
        0.5, ge=0, description="Share of weight_ce for labelled images, the paper's η_S."
    )
    ce_unlabelled: float = Field(
        0.5, ge=0, description="Share of weight_ce for unlabelled images, the paper's η_U."
    )
    overlap_labelled: float = Field(
        0.5, ge=0, description="Share of weight_overlap for labelled images, θ_S."
    )
    overlap_unlabelled: float = Field(
        0.5, ge=0, description="Share of weight_overlap for unlabelled images, θ_U."
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        description="Unlabelled patches in each step, beside the plans' batch size of labelled ones; none is as many as "
        "these, which nearly doubles the memory of a step.",
    )
    ema: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="Decay of the moving average of the weights, which is the teacher and the model that is validated "
        "and kept; until n updates allow for it, 1 − 1/(n + 1).",
    )
    start_epoch: int = Field(
        0, ge=0, description="Epoch that unlabelled images join in; before it labels alone."
    )
    labels: Literal["hard", "soft"] = Field(
        "hard",
        description="The teacher's labels: its greatest class, softened where labels.smoothing says so, as in AugSeg and the "
        "paper; or its probabilities, which nothing sharpens: with them a student leaves its teacher slowly, and short "
        "trainings with few labels may not start.",
    )
    confidence: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Voxels count where the teacher's greatest probability is at least this; 0 takes all.",
    )
    intensity: int = Field(
        3, ge=0, description="Strong view: greatest number of random intensity augmentations; 0 has none."
    )
    cutmix: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Strong view: probability of adaptive CutMix, which cuts a box of a labelled image, the likelier the less "
        "sure the teacher is, or of another unlabelled image into an image.",
    )

    @model_validator(mode="after")
    def _both_halves_are_learnt(self) -> UnlabelledOptions:
        for half in ("labelled", "unlabelled"):
            if not getattr(self, f"ce_{half}") and not getattr(self, f"overlap_{half}"):
                raise ValueError(
                    f"unlabelled.ce_{half} and unlabelled.overlap_{half} are both 0; set one of them above 0."
                )
        return self
