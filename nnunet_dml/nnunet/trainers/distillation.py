"""Trainers whose network learns from labels and from a calibrated teacher."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from nnunet_dml._checks import InputError, problem
from nnunet_dml.losses import DistillationLoss
from nnunet_dml.losses.distillation import TERMS
from nnunet_dml.nnunet import teacher as teachers
from nnunet_dml.nnunet.bfloat16 import compute_in_bfloat16
from nnunet_dml.nnunet.distillation import ECE, TaughtLoss, TeachingRecord
from nnunet_dml.nnunet.soft_maps import digests
from nnunet_dml.nnunet.teacher_calibration import TeacherCalibration
from nnunet_dml.nnunet.teacher_checks import check_teacher
from nnunet_dml.nnunet.teacher_maps import TeacherMaps
from nnunet_dml.nnunet.trainers.configured import clean_refusal
from nnunet_dml.nnunet.trainers.recipes import nnUNetTrainerDML, nnUNetTrainerJML
from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer

IDENTITY = "teacher_digests"  # kept by upstream's logger, and so in the checkpoints
BATCHES = 8  # on which bandwidth or temperature is chosen


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
        self.independent = self.layout.regions is not None
        self.teacher: teachers.Teacher | None = None  # none where only validation is done
        self.maps: TeacherMaps | None = None
        if self.options.teacher.maps is not None and self.preprocessed_dataset_folder_base is not None:
            self.maps = TeacherMaps.of(self, self.options.teacher.maps)
        self.calibration = TeacherCalibration(self.options.teacher, independent=self.independent)
        lambdas = {"ce": self.options.loss.weight_ce, "overlap": self.options.loss.weight_overlap}
        self.terms = [it for it in TERMS if lambdas[it.split("_")[0]] * getattr(self.options.teacher, it)]
        series = [*(f"train_{it}" for it in self.terms), *ECE, IDENTITY]
        if self.calibration.must_choose:  # what was chosen goes into the checkpoints with the curves
            series.append(f"teacher_{self.calibration.name}")
        self.logger.local_logger.my_fantastic_logging.update({name: [] for name in series})

    def _build_loss(self) -> nn.Module:
        shares = self.options.teacher.model_dump(include=set(TERMS))
        of_teacher = {f"teacher_{it}": getattr(self.options.teacher, it) for it in ("active", "threshold")}
        loss = DistillationLoss(**self._loss_arguments(), **shares, **of_teacher).to(self.device)
        return TaughtLoss(loss, self._output_weights(), self.layout, self._smoothing(), soft=self.soft)

    @property
    def single_target(self) -> bool:
        """Also where an offline teacher's maps ride behind the labels."""
        return super().single_target or self.maps is not None

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """As of other trainers on soft labels, with an offline teacher's maps behind all else."""
        datasets = super().get_tr_and_val_datasets()
        return datasets if self.maps is None else self.maps.behind(datasets)

    def _map_scales(self) -> list[int]:
        return super()._map_scales() + ([] if self.maps is None else self.maps.scales)

    def on_train_start(self) -> None:
        """As upstream's; refuses a teacher that does not fit before anything is done."""
        options = self.options.teacher
        with clean_refusal():
            if self.device.type == "mps":
                todo = "The calibration sums in float64, which it does not know."
                raise InputError(
                    problem("-device mps", expected="cuda or cpu for a teacher", found="mps", todo=todo)
                )
            if self.maps is not None:
                message = self.maps.check(self)
                self._check_same_teacher(self.maps.digests)
            else:
                folds = self._teacher_folds()
                check_teacher(folds, self)
                self._check_same_teacher(digests({it.fold: it.path for it in folds}))
                self.teacher = teachers.build(folds, self.device, compiled=self._do_i_compile())
                for network in self.teacher.networks if self.trains_in_bfloat16 else ():
                    compute_in_bfloat16(network, only_training=False)
                message = f"{options.model}, fold {', '.join(it.fold for it in folds)}, calibration: {options.calibration}"
        self._start_record()
        super().on_train_start()
        self.print_to_log_file(f"Taught by {message}.")
        if self.calibration.must_choose:
            self._choose_calibration()

    def _check_same_teacher(self, found: dict[str, Any]) -> None:
        """Raise `InputError` if a training that is resumed has begun with other weights of its teacher."""
        self.digests = json.dumps(found, sort_keys=True)
        logged = self.logger.get_value(IDENTITY, step=None)
        if logged and logged[-1] != self.digests:
            name = self.options.teacher.model or f"the maps {self.options.teacher.maps}"
            expected, todo = "the teacher that it began with", "Train the student anew, without --c."
            where = f"{self.output_folder}: {name}"
            raise InputError(problem(where, expected=expected, found="one trained since", todo=todo))

    def _choose_calibration(self) -> None:
        """Choose bandwidth or temperature on training patches; a resumed training goes on with what it had."""
        logged = self.logger.get_value(f"teacher_{self.calibration.name}", step=None)
        if logged:
            self.calibration.parameter = logged[-1]
            return
        self._seed(0)
        message = self.calibration.choose(
            self._see(self._on_device(next(self.dataloader_train))) for _ in range(BATCHES)
        )
        if self.is_ddp:  # each rank has seen patches of its own
            chosen = torch.tensor(self.calibration.parameter, dtype=torch.float64, device=self.device)
            dist.broadcast(chosen, 0)
            self.calibration.parameter = chosen.item()
        self.print_to_log_file(message)

    def _on_device(self, batch: dict) -> dict:
        """A batch whose images are on the device, once for both networks; what an offline teacher says stands apart."""
        batch = {**batch, "data": batch["data"].to(self.device, non_blocking=True)}
        return batch if self.maps is None else self.maps.apart(batch, self.device)

    def _see(self, batch: dict) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the teacher says about a batch, the labels in full resolution, and the mask of valid voxels."""
        target = batch["target"]
        target = (target[0] if isinstance(target, list) else target).to(self.device, non_blocking=True)
        with torch.no_grad():
            labels, mask = self.loss.labels(target)
        if self.maps is not None:
            return batch["teacher"], labels, mask
        assert self.teacher is not None
        return self.teacher(batch["data"]), labels, mask

    def _teacher_folds(self) -> list[teachers.TeacherFold]:
        options = self.options.teacher
        if options.model is None:
            name, dataset = self.plans_manager.plans_name, self.plans_manager.dataset_name
            todo = f"Run `nnunet-dml configure -d {dataset} -p {name} -o {name}_kd --teacher TRAINER__PLANS__CONFIGURATION`."
            raise InputError(problem(f"plans {name}", expected="a teacher", found="none", todo=todo))
        folds = (self.fold,) if options.folds == "same" else options.folds
        return teachers.read_folds(
            teachers.locate(options.model, self.configuration_name), folds, options.checkpoint
        )

    def on_train_end(self) -> None:
        """As upstream's; the teacher's memory is set free."""
        self.teacher = None
        super().on_train_end()

    @contextmanager
    def _taught(self, batch: dict) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        """Let the loss see what the teacher says about a batch; that, calibrated, the labels and their mask."""
        probs, labels, mask = self._see(batch)
        calibrated = self.calibration(probs, labels, mask)
        with self.loss.taught(calibrated, mask):
            yield probs, calibrated, labels, mask

    def train_step(self, batch: dict) -> dict:
        """As upstream's, taught."""
        batch = self._on_device(batch)
        with self._taught(batch) as seen:
            output = super().train_step(batch)
        self.record.add_terms(self.loss.terms)
        self.record.add_teacher(*seen)
        return output

    def validation_step(self, batch: dict) -> dict:
        """As upstream's, taught, so that the losses of training and validation compare."""
        batch = self._on_device(batch)
        with self._taught(batch):
            return super().validation_step(batch)

    def on_train_epoch_start(self) -> None:
        """As upstream's; a new record, and random numbers of the calibration's own: it shifts no augmentation."""
        self._start_record()
        self.calibration.random, seed = torch.Generator(), self.options.training.seed
        if seed is None:
            self.calibration.random.seed()
        else:
            self.calibration.random.manual_seed(seed + self.current_epoch)
        super().on_train_epoch_start()

    def _start_record(self) -> None:
        self.record = TeachingRecord(self.device, independent=self.independent)

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """As upstream's; the terms and the teacher's calibration error are logged."""
        super().on_train_epoch_end(train_outputs)
        terms, errors = self.record.figures()
        for name in self.terms:
            self.logger.log(f"train_{name}", terms[TERMS.index(name)], self.current_epoch)
        for name, value in zip(ECE, errors, strict=True):
            self.logger.log(name, value, self.current_epoch)
        self.logger.log(IDENTITY, self.digests, self.current_epoch)
        if self.calibration.must_choose:
            self.logger.log(
                f"teacher_{self.calibration.name}", self.calibration.parameter, self.current_epoch
            )

    def on_epoch_end(self) -> None:
        """As upstream's; the same is printed."""
        terms = [f"{it} {self.logger.get_value(f'train_{it}', step=-1):.4f}" for it in self.terms]
        errors = [round(self.logger.get_value(it, step=-1), 4) for it in ECE]
        self.print_to_log_file(f"train_loss's terms: {', '.join(terms)}")
        self.print_to_log_file(f"teacher's ECE {errors[0]}, calibrated {errors[1]}")
        super().on_epoch_end()


_HARD: dict[str, Any] = {"source": "hard"}


class nnUNetTrainerDML_KD(DistillationTrainer):
    """The Dice semimetric loss with a teacher (Wang et al., MICCAI 2023, appendix D)."""

    default_options: ClassVar[dict[str, Any]] = {**nnUNetTrainerDML.default_options, "labels": _HARD}


class nnUNetTrainerJML_KD(DistillationTrainer):
    """The Jaccard metric loss with a teacher (Wang et al., NeurIPS 2023, section 2.4.2)."""

    default_options: ClassVar[dict[str, Any]] = {**nnUNetTrainerJML.default_options, "labels": _HARD}
