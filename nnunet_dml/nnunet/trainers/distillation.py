"""Trainers whose network learns from labels and from a calibrated teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunet_dml._checks import InputError, problem
from nnunet_dml.losses import DistillationLoss
from nnunet_dml.losses.distillation import TERMS
from nnunet_dml.nnunet import teacher as teachers
from nnunet_dml.nnunet.distillation import ECE, TaughtLoss, TeacherCalibration, TeachingRecord
from nnunet_dml.nnunet.teacher_checks import check_teacher
from nnunet_dml.nnunet.trainers.configured import clean_refusal
from nnunet_dml.nnunet.trainers.recipes import nnUNetTrainerDML, nnUNetTrainerJML
from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer


class DistillationTrainer(SoftLabelTrainer):
    """Cross-entropy and overlap with the labels and with a teacher's probabilities.

    The teacher is read when a training starts and is no part of the network, its optimizer or its checkpoints: what
    was trained validates and predicts without it.
    """

    option_groups: ClassVar[tuple[str, ...]] = ("labels", "loss", "teacher", "training")

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (upstream's signature, read back by name)
    ):
        """As upstream's."""
        super().__init__(plans, configuration, fold, dataset_json, device)
        independent = self.layout.regions is not None
        self.calibration = TeacherCalibration(self.options.teacher, independent=independent)
        self.teacher: teachers.Teacher | None = None  # none where only validation is done
        self.record = TeachingRecord(self.device, independent=independent)
        self.logger.local_logger.my_fantastic_logging.update({f"train_{it}": [] for it in TERMS})
        self.logger.local_logger.my_fantastic_logging.update({name: [] for name in ECE})

    def _build_loss(self) -> nn.Module:
        shares = self.options.teacher.model_dump(include=set(TERMS))
        of_teacher = {f"teacher_{it}": getattr(self.options.teacher, it) for it in ("active", "threshold")}
        loss = DistillationLoss(**self._loss_arguments(), **shares, **of_teacher).to(self.device)
        return TaughtLoss(loss, self._output_weights(), self.layout, self._smoothing(), soft=self.soft)

    def on_train_start(self) -> None:
        """As upstream's; refuses a teacher that does not fit before anything is done."""
        with clean_refusal():
            folds = self._teacher_folds()
            check_teacher(folds, self)
            self.teacher = teachers.build(folds, self.device, compiled=self._do_i_compile())
        super().on_train_start()
        self.print_to_log_file(
            f"Taught by {self.options.teacher.model}, fold {', '.join(it.fold for it in folds)}, "
            f"calibration: {self.options.teacher.calibration}."
        )

    def _teacher_folds(self) -> list[teachers.TeacherFold]:
        options = self.options.teacher
        if options.model is None:
            name, dataset = self.plans_manager.plans_name, self.plans_manager.dataset_name
            todo = f"Run `nnunet-dml configure -d {dataset} -p {name} -o {name}_kd --teacher TRAINER__PLANS__CONFIGURATION`."
            raise InputError(problem(f"plans {name}", expected="a teacher", found="none", todo=todo))
        folds = (self.fold,) if options.folds == "same" else options.folds
        return teachers.read_folds(teachers.locate(options.model), folds, options.checkpoint)

    def on_train_end(self) -> None:
        """As upstream's; the teacher's memory is set free."""
        self.teacher = None
        super().on_train_end()

    @contextmanager
    def _taught(self, batch: dict) -> Iterator[tuple[dict, tuple[Tensor, Tensor, Tensor, Tensor | None]]]:
        """A batch on the device, within which the loss sees what the teacher says about it."""
        assert self.teacher is not None
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        several = isinstance(target, list)
        target = [it.to(self.device, non_blocking=True) for it in (target if several else [target])]
        with torch.no_grad():
            labels, mask = self.loss.labels(target)
            probs = self.teacher(data)
            calibrated = self.calibration(probs, labels, mask)
        with self.loss.taught(calibrated, mask):
            yield (
                {**batch, "data": data, "target": target if several else target[0]},
                (probs, calibrated, labels, mask),
            )

    def train_step(self, batch: dict) -> dict:
        """As upstream's, taught."""
        with self._taught(batch) as (batch, seen):
            output = super().train_step(batch)
        self.record.add_terms(self.loss.terms)
        self.record.add_teacher(*seen)
        return output

    def validation_step(self, batch: dict) -> dict:
        """As upstream's, taught, so that the loss of training and validation compare."""
        with self._taught(batch) as (batch, _):
            return super().validation_step(batch)

    def on_train_epoch_start(self) -> None:
        """As upstream's; a new record."""
        self.record = TeachingRecord(self.device, independent=self.layout.regions is not None)
        super().on_train_epoch_start()

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """As upstream's; the terms and the teacher's calibration error are logged."""
        super().on_train_epoch_end(train_outputs)
        terms, errors = self.record.figures()
        for name, value in (
            *zip((f"train_{it}" for it in TERMS), terms, strict=True),
            *zip(ECE, errors, strict=True),
        ):
            self.logger.log(name, value, self.current_epoch)

    def on_epoch_end(self) -> None:
        """As upstream's; the same is printed."""
        terms = {it: round(self.logger.get_value(f"train_{it}", step=-1), 4) for it in TERMS}
        errors = [round(self.logger.get_value(it, step=-1), 4) for it in ECE]
        self.print_to_log_file("terms", terms)
        self.print_to_log_file(f"teacher's ECE {errors[0]}, calibrated {errors[1]}")
        super().on_epoch_end()


_HARD: dict[str, Any] = {"source": "hard"}


class nnUNetTrainerDML_KD(DistillationTrainer):
    """The Dice semimetric loss with a teacher (Wang et al., MICCAI 2023, appendix D)."""

    default_options: ClassVar[dict[str, Any]] = {**nnUNetTrainerDML.default_options, "labels": _HARD}


class nnUNetTrainerJML_KD(DistillationTrainer):
    """The Jaccard metric loss with a teacher (Wang et al., NeurIPS 2023, section 2.4.2)."""

    default_options: ClassVar[dict[str, Any]] = {**nnUNetTrainerJML.default_options, "labels": _HARD}
