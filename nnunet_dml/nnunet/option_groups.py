"""The options of the trainers, in groups: their types, defaults and what they mean."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from nnunet_dml.nnunet.option_base import OptionGroup
from nnunet_dml.nnunet.unlabelled_options import UnlabelledOptions

Source = Literal["auto", "hard", "majority", "uniform", "weighted", "staple", "random", "file"]
REDUCTIONS = ("batch", "image", "class")


TEACHING = (  # the options of a teacher that is a model: what it is, and how it is calibrated
    "model",
    "folds",
    "checkpoint",
    "calibration",
    "bandwidth",
    "temperature",
    "keys",
    "weighted_keys",
    "voxels",
    "neighbourhood",
)


class LabelOptions(OptionGroup):
    """What the network is trained on."""

    source: Source = Field(
        "auto",
        description="Labels to train on: nnU-Net's own hard labels; a fusion of the raters (majority, uniform, "
        "weighted, staple); 'random', one rater drawn for every patch; 'file', soft maps of your own in softlabelsTr. "
        "'auto' is 'weighted' where the dataset has raters, else 'hard'.",
    )
    smoothing: Literal["off", "all", "boundary"] = Field(
        "off",
        description="Label smoothing, of hard or soft labels: at all voxels (LS) or near boundaries (BLS).",
    )
    epsilon: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Label smoothing: the share of the uniform distribution (smoothing=all, boundary).",
    )
    neighbourhood: int = Field(
        3,
        ge=1,
        description="Boundary smoothing: a voxel is at a boundary if another label is within its k × k (× k) "
        "neighbourhood; odd (smoothing=boundary).",
    )

    @model_validator(mode="after")
    def _neighbourhood_has_a_centre(self) -> LabelOptions:
        if self.neighbourhood % 2 == 0:
            raise ValueError(f"labels.neighbourhood is {self.neighbourhood}; set an odd number, such as 3.")
        return self


class LossOptions(OptionGroup):
    """weight_ce × cross-entropy + weight_overlap × overlap loss, per output of the network."""

    overlap: Literal["dml", "jml", "ctl", "sdl", "sjl", "lovasz"] = Field(
        "dml",
        description="Overlap loss: Dice semimetric, Jaccard metric, compatible Tversky. Baselines: the classical soft "
        "Dice and soft Jaccard, which are wrong on soft labels, and Lovász-softmax, for hard labels only.",
    )
    weight_ce: float = Field(0.5, ge=0, description="Weight of the cross-entropy.")
    weight_overlap: float = Field(
        1.5,
        ge=0,
        description="Weight of the overlap loss. The default keeps the papers' 1:3 at nnU-Net's total of 2.",
    )
    variant: Literal[1, 2] = Field(1, description="Variant of the metric losses (overlap=dml, jml).")
    norm: Literal[1, 2] = Field(1, description="Soft Jaccard in L1 or L2 (overlap=sjl).")
    alpha: float = Field(0.5, ge=0, description="Tversky: weight of false positives (overlap=ctl).")
    beta: float = Field(0.5, ge=0, description="Tversky: weight of false negatives (overlap=ctl).")
    gamma: float = Field(
        1.0, ge=1, description="Focal Tversky of the paper: Δ to the power 1/gamma (overlap=ctl)."
    )
    power: float = Field(
        1.0, ge=1, description="Focal Tversky of the authors' code: Δ to this power (overlap=ctl)."
    )
    log: bool = Field(False, description="Log form: −log(1 − Δ) instead of Δ.")
    background: bool = Field(
        False, description="Whether the background counts as a class of the overlap loss (not with regions)."
    )
    reduction: str | dict[str, float] = Field(
        "plans",
        description="Which overlap is averaged: of a class over the batch (mIoU^D of the paper), of each image (mIoU^I), "
        'of each class over the images (mIoU^C), or a mixture such as {"batch": 0.5, "class": 0.5}. '
        "'plans' follows nnU-Net's batch_dice: batch or image.",
    )
    active: Literal["all", "present", "prob", "label", "both"] = Field(
        "all",
        description="Classes that count in the overlap: all; those that are some voxel's greatest label (present); whose "
        "greatest probability of the network (prob) or label (label) is above the threshold; or both of these.",
    )
    threshold: float = Field(
        0.01, ge=0, lt=1, description="Threshold of the active classes (active=prob, label, both)."
    )
    class_weights: tuple[NonNegativeFloat, ...] | None = Field(
        None,
        description="A weight for each output of the network, the background's first (or for each region), in the "
        "cross-entropy and in the overlap's mean over the classes: [1, 2, 2].",
    )
    smooth: float = Field(
        1e-5, ge=0, description="Added to numerator and denominator of the overlap, as in nnU-Net."
    )
    deep_supervision: bool = Field(
        True, description="Whether the lower resolutions of the decoder get a loss, too."
    )

    @field_validator("reduction")
    @classmethod
    def _reductions_are_known(cls, value: str | dict[str, float]) -> str | dict[str, float]:
        weights = {value: 1.0} if isinstance(value, str) else value
        names = REDUCTIONS if isinstance(value, dict) else ("plans", *REDUCTIONS)
        if not set(weights) <= set(names) or not any(weights.values()) or min(weights.values()) < 0:
            raise ValueError(
                f"bad value {value!r:.200} of loss.reduction. Set plans, batch, image, class, or weights of at least 0 such "
                'as {"batch": 0.5, "class": 0.5}, one of them above 0.'
            )
        return value

    @model_validator(mode="after")
    def _something_is_learnt(self) -> LossOptions:
        if self.weight_ce == 0 and self.weight_overlap == 0:
            raise ValueError("loss.weight_ce and loss.weight_overlap are both 0; set one of them above 0.")
        if self.alpha + self.beta == 0:
            raise ValueError("loss.alpha and loss.beta are both 0; set one of them above 0.")
        if self.gamma != 1 and self.power != 1:
            raise ValueError("loss.gamma and loss.power are both set; they are two definitions of one thing.")
        if self.class_weights is not None and not any(self.class_weights):
            raise ValueError("loss.class_weights are all 0; set one of them above 0.")
        return self


class TeacherOptions(OptionGroup):
    """A teacher whose calibrated probabilities the network learns from, beside the labels."""

    model: str | None = Field(
        None,
        description="Folder of the trained nnU-Net model, TRAINER__PLANS__CONFIGURATION, from nnUNet_results on or absolute; "
        "{configuration} in its name stands for the student's.",
    )
    maps: str | None = Field(
        None,
        description="Instead of a model: the name of an offline teacher's maps, made and calibrated by `nnunet-dml teach`.",
    )
    folds: Literal["same"] | tuple[int | Literal["all"], ...] = Field(
        "same",
        description="Folds of the teacher whose probabilities are averaged, such as [0, 1]; 'same' is the student's own. "
        "None of them may have been trained on the student's validation cases.",
    )
    checkpoint: str = Field("checkpoint_final.pth", description="Checkpoint in each fold of the teacher.")
    calibration: Literal["kde", "temperature", "none"] = Field(
        "kde",
        description="How the teacher is calibrated: by kernel regression on voxels of each batch, by a temperature, not at all.",
    )
    bandwidth: float | Literal["auto"] = Field(
        1e-3,
        description="Bandwidth of the kernels, above 0; 'auto' is that with the lowest Brier score on the calibrated voxels "
        "of training patches, found at the start (calibration=kde).",
    )
    keys: int = Field(
        1000, ge=1, description="Voxels of each batch that the regression reads (calibration=kde)."
    )
    weighted_keys: bool = Field(
        True,
        description="Keys are drawn equally from the classes of a batch. Whether each counts for as many voxels as it stands "
        "for, so that the estimate knows how rare a class is, or for one, as in the paper (calibration=kde).",
    )
    voxels: Literal["boundary_error", "all"] = Field(
        "boundary_error",
        description="Which voxels are calibrated: those near boundaries and those that the teacher gets wrong, or all "
        "(calibration=kde).",
    )
    neighbourhood: int = Field(
        3,
        ge=1,
        description="A voxel is near a boundary if another label is within its k × k (× k) neighbourhood; odd "
        "(voxels=boundary_error).",
    )
    temperature: float | Literal["auto"] = Field(
        "auto",
        description="Temperature, above 0; 'auto' is fitted on training patches at the start (calibration=temperature).",
    )
    ce_label: float = Field(0.5, ge=0, description="Share of weight_ce for the labels, the papers' μ_L.")
    ce_teacher: float = Field(0.5, ge=0, description="Share of weight_ce for the teacher, the papers' μ_T.")
    overlap_label: float = Field(0.5, ge=0, description="Share of weight_overlap for the labels, ν_L.")
    overlap_teacher: float = Field(0.5, ge=0, description="Share of weight_overlap for the teacher, ν_T.")
    active: Literal["all", "present", "prob", "label", "both"] = Field(
        "label",
        description="Classes that count in the overlap with the teacher, as loss.active; 'label' is the teacher's probability.",
    )
    threshold: float = Field(
        0.01, ge=0, lt=1, description="Threshold of these classes (active=prob, label, both)."
    )

    @field_validator("calibration", mode="before")
    @classmethod
    def _none_is_a_word(cls, value: Any) -> Any:
        return "none" if value is None else value  # as which `--set` and JSON take it

    @field_validator("bandwidth", "temperature", mode="before")
    @classmethod
    def _is_positive_or_auto(cls, value: Any, info: ValidationInfo) -> Any:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value != "auto" and not (number and 0 < value < math.inf):
            raise ValueError(
                f"bad value {value!r:.200} of teacher.{info.field_name}. Set a number above 0, or auto."
            )
        return value

    @field_validator("folds", mode="before")
    @classmethod
    def _folds_are_folds(cls, value: Any) -> Any:
        folds = (
            (value,) if (isinstance(value, int) and not isinstance(value, bool)) or value == "all" else value
        )
        if folds == "same":
            return folds
        listed = isinstance(folds, (list, tuple)) and len(folds) > 0
        if not listed or any(fold != "all" and (type(fold) is not int or fold < 0) for fold in folds):
            raise ValueError(
                f"bad value {value!r:.200} of teacher.folds. Set same, or folds such as [0] or [0, 1]."
            )
        return tuple(dict.fromkeys(folds))

    @model_validator(mode="after")
    def _fits_together(self) -> TeacherOptions:
        both = [
            name for name in TEACHING if name in self.model_fields_set and getattr(self, name) is not None
        ]
        if self.maps is not None and both:
            raise ValueError(
                f"teacher.maps is set, and {', '.join(f'teacher.{name}' for name in both)}; maps are calibrated where they "
                "are made (nnunet-dml teach). Set teacher.maps, or the others."
            )
        if self.neighbourhood % 2 == 0:
            raise ValueError(f"teacher.neighbourhood is {self.neighbourhood}; set an odd number, such as 3.")
        if not (self.ce_label or self.ce_teacher or self.overlap_label or self.overlap_teacher):
            raise ValueError(
                "teacher.ce_label, ce_teacher, overlap_label and overlap_teacher are all 0; set one of them above 0."
            )
        return self


class TrainingOptions(OptionGroup):
    """nnU-Net's schedule and optimizer settings."""

    epochs: int = Field(1000, ge=1, description="Number of epochs.")
    iterations: int = Field(250, ge=1, description="Training iterations per epoch.")
    val_iterations: int = Field(50, ge=1, description="Validation iterations per epoch.")
    learning_rate: float = Field(1e-2, gt=0, description="Initial learning rate.")
    weight_decay: float = Field(3e-5, ge=0, description="Weight decay.")
    momentum: float = Field(0.99, ge=0, lt=1, description="Momentum of the gradient descent.")
    nesterov: bool = Field(True, description="Whether it is Nesterov's; not with momentum 0.")
    save_every: int = Field(50, ge=1, description="Epochs between two checkpoints.")
    bfloat16: Literal["off", "auto", "on"] = Field(
        "off",
        description="On a CPU, train with the networks' convolutions in bfloat16, in half the time where the CPU has "
        "instructions for it; auto: only there. Predictions stay float32, GPUs train as nnU-Net does.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**31,  # NumPy takes 32 bits, and epochs and ranks are added
        description="Seed of the weights, and with nnUNet_n_proc_DA=0 of the augmentation of each epoch; "
        "on the CPU such a run repeats itself exactly, resumed (--c) or not.",
    )


class Options(OptionGroup):
    """All options of a trainer."""

    labels: LabelOptions = LabelOptions()
    loss: LossOptions = LossOptions()
    teacher: TeacherOptions = TeacherOptions()
    unlabelled: UnlabelledOptions = UnlabelledOptions()
    training: TrainingOptions = TrainingOptions()
