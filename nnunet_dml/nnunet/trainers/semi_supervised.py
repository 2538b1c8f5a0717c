"""Semi-supervised training: a mean teacher labels unlabelled images, the student learns from a stronger view of them."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import Any, ClassVar

import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.utilities.helpers import dummy_context
from torch import autocast, nn
from torch import distributed as dist

from nnunet_dml._checks import InputError, problem
from nnunet_dml.losses import DistillationLoss
from nnunet_dml.nnunet import unlabelled
from nnunet_dml.nnunet.bfloat16 import compute_in_bfloat16
from nnunet_dml.nnunet.moving_average import MovingAverage
from nnunet_dml.nnunet.option_checks import check_unlabelled
from nnunet_dml.nnunet.pseudo_labels import JointLoss, pseudo_labels
from nnunet_dml.nnunet.trainers import networks
from nnunet_dml.nnunet.trainers.configured import clean_refusal
from nnunet_dml.nnunet.trainers.recipes import nnUNetTrainerDML_BLS, nnUNetTrainerJML_BLS
from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer
from nnunet_dml.nnunet.unlabelled_loader import Loader, rank_batch_size, unlabelled_loader
from nnunet_dml.nnunet.views import cutmix, two_views

# kept by upstream's logger, one value an epoch; before unlabelled images join in theirs are 0
TERMS = ("ssl_ce_labelled", "ssl_ce_unlabelled", "ssl_overlap_labelled", "ssl_overlap_unlabelled")
SERIES = (*TERMS, "ssl_confidence", "ssl_valid", "ssl_decay")
STATE = "nnunet_dml_student"  # in the optimizer's state, whose momentum belongs to these weights


class SemiSupervisedTrainer(SoftLabelTrainer):
    """Labelled and unlabelled images in one batch; the model that is validated and kept is the moving average.

    Each step the moving average of the weights (the teacher) labels the weak view of unlabelled patches; the student
    is trained on labelled patches and on the strong view of these. `network_weights` of a checkpoint are the average's;
    the student's go with the optimizer's state.

    Source: Wang et al., Jaccard Metric Losses, NeurIPS 2023, appendix I; Zhao et al., AugSeg, CVPR 2023; Tarvainen and
    Valpola, Mean teachers, NeurIPS 2017.
    """

    option_groups: ClassVar[tuple[str, ...]] = (*SoftLabelTrainer.option_groups, "unlabelled")

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (upstream's signature, read back by name)
    ):
        """As upstream's; refuses cascades and options that do not fit."""
        super().__init__(plans, configuration, fold, dataset_json, device)
        with clean_refusal():
            where = f"plans {self.plans_manager.plans_name}"
            check_unlabelled(self.options, where=where)
            if self.is_cascaded:
                expected = f"a configuration without a previous stage for {type(self).__name__}"
                todo = "Unlabelled cases have no predictions of it. Train 2d, 3d_fullres or 3d_lowres."
                raise InputError(problem(where, expected=expected, found=configuration, todo=todo))
        self.average: MovingAverage | None = None
        self.dataloader_unlabelled: Loader | None = None
        self.unlabelled_cases: list[str] = []
        self.logger.local_logger.my_fantastic_logging.update({name: [] for name in SERIES})

    @property
    def single_target(self) -> bool:
        """Always: labelled targets are mixed into unlabelled ones in full resolution."""
        return True

    def initialize(self) -> None:
        """As upstream's, with the moving average."""
        super().initialize()
        network = networks.unwrapped(self.network)
        self.average = MovingAverage(network, self.options.unlabelled.ema)
        teacher = self.average.module
        if networks.has_decoder(teacher):
            teacher.decoder.deep_supervision = False  # type: ignore[union-attr]
        if self.trains_in_bfloat16:
            compute_in_bfloat16(teacher, only_training=False)
        self._teacher = torch.compile(teacher) if self._do_i_compile() else teacher
        self.optimizer.register_state_dict_post_hook(self._add_student)
        self.optimizer.register_load_state_dict_pre_hook(self._take_student)

    def _add_student(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        assert self.average is not None
        state[STATE] = self.average.training_state()

    def _take_student(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        assert self.average is not None
        if STATE in state:
            self.average.resume(state.pop(STATE))

    def _build_loss(self) -> nn.Module:
        asked, arguments = self.options.unlabelled, self._loss_arguments()
        loss = DistillationLoss(
            ce_label=asked.ce_labelled,
            ce_teacher=asked.ce_unlabelled,
            overlap_label=asked.overlap_labelled,
            overlap_teacher=asked.overlap_unlabelled,
            teacher_active=arguments["active"],
            teacher_threshold=arguments["threshold"],
            **arguments,
        ).to(self.device)
        return JointLoss(loss, self._output_weights(), self.layout, self._smoothing(), soft=self.soft)

    def on_train_start(self) -> None:
        """As upstream's; stops if unlabelled cases are missing or stale."""
        with clean_refusal():
            self.unlabelled_cases = unlabelled.check_for_training(self)
        super().on_train_start()
        assert self.average is not None
        self.average.begin()
        first = self.options.unlabelled.start_epoch
        self.print_to_log_file(
            f"{len(self.unlabelled_cases)} unlabelled cases join in from epoch {first} on."
        )

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Upstream's two, and a third one of unlabelled patches."""
        loaders = super().get_dataloaders()
        with redirect_stdout(io.StringIO()):  # said once
            rotation, dummy_2d, patch_size, mirror = (
                self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            )
        masks = self.configuration_manager.use_mask_for_norm
        # without the packing of soft labels
        stock = super(SoftLabelTrainer, self).get_training_transforms(
            self.configuration_manager.patch_size, rotation, None, mirror, dummy_2d, use_mask_for_norm=masks
        )
        transforms = two_views(
            stock,
            most=self.options.unlabelled.intensity,
            masked=[channel for channel, masked in enumerate(masks) if masked],
            channels=self.num_input_channels,
            ignore_axes=(0,) if dummy_2d else None,
        )
        with clean_refusal():
            where = f"plans {self.plans_manager.plans_name}"
            batch_size = rank_batch_size(self.options.unlabelled.batch_size, self.batch_size, where)
        self.dataloader_unlabelled = unlabelled_loader(
            self, self.unlabelled_cases, transforms, patch_size, batch_size
        )
        _ = next(self.dataloader_unlabelled)  # starts the workers
        return loaders

    def on_train_epoch_start(self) -> None:
        """As upstream's; begins the sums of what is logged."""
        super().on_train_epoch_start()
        self._sums = torch.zeros(len(TERMS) + 2, device=self.device)

    def train_step(self, batch: dict) -> dict:
        """Upstream's on labelled and unlabelled patches together, then the moving average's update."""
        assert self.average is not None
        joins = self.current_epoch >= self.options.unlabelled.start_epoch
        batch, figures = self._joined(batch) if joins else (batch, self._sums.new_zeros(2))
        result = super().train_step(batch)
        self.average.update()
        self._sums += torch.cat((self.loss.terms, figures))
        return result

    @torch.no_grad()
    def _joined(self, batch: dict) -> tuple[dict, torch.Tensor]:
        """A labelled batch with unlabelled patches behind it; the teacher's confidence, the share of valid voxels."""
        assert self.dataloader_unlabelled is not None
        asked = self.options.unlabelled
        images = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"].to(self.device, non_blocking=True)
        views = next(self.dataloader_unlabelled)["data"].to(self.device, non_blocking=True)
        weak, strong = views.chunk(2, 1)
        with autocast(self.device.type) if self.device.type == "cuda" else dummy_context():
            logits = self._teacher(weak)
        pseudo = pseudo_labels(
            logits,
            independent=self.layout.regions is not None,
            kind=asked.labels,
            threshold=asked.confidence,
        )
        strong, fractions, valid = cutmix(
            (strong, pseudo.fractions, pseudo.valid),
            (images, *self.loss.labels(target)),
            pseudo.confidence,
            probability=asked.cutmix,
        )
        joined = {**batch, "data": torch.cat((images, strong)), "target": [target, fractions, valid]}
        return joined, torch.stack((pseudo.confidence.mean(), pseudo.valid.float().mean()))

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """As upstream's; logs the terms of the loss and what the teacher is worth."""
        super().on_train_epoch_end(train_outputs)
        assert self.average is not None
        means = self._sums / len(train_outputs)
        if self.is_ddp:
            dist.all_reduce(means)
            means /= dist.get_world_size()
        for name, value in zip(SERIES, [*means.tolist(), self.average.decay], strict=True):
            self.logger.log(name, value, self.current_epoch)

    def on_epoch_end(self) -> None:
        """As upstream's; also prints what was logged."""
        values = {name.removeprefix("ssl_"): self.logger.get_value(name, step=-1) for name in SERIES}
        self.print_to_log_file(", ".join(f"{name} {value:.4f}" for name, value in values.items()))
        super().on_epoch_end()

    def on_validation_epoch_start(self) -> None:
        """As upstream's, on the averaged weights."""
        assert self.average is not None
        self.average.swap()
        super().on_validation_epoch_start()

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """As upstream's; the student gets its weights back."""
        assert self.average is not None
        self.average.swap()
        super().on_validation_epoch_end(val_outputs)

    def save_checkpoint(self, filename: str) -> None:
        """As upstream's; the weights that predict are the averaged ones."""
        assert self.average is not None
        with self.average.in_network():
            super().save_checkpoint(filename)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """As upstream's, on the averaged weights."""
        assert self.average is not None
        with self.average.in_network():
            super().perform_actual_validation(save_probabilities)

    def on_train_end(self) -> None:
        """As upstream's; ends the third loader's workers, too."""
        super().on_train_end()
        if isinstance(self.dataloader_unlabelled, NonDetMultiThreadedAugmenter):
            with redirect_stdout(io.StringIO()):
                self.dataloader_unlabelled._finish()


class nnUNetTrainerDML_SSL(SemiSupervisedTrainer):
    """The Dice semimetric loss on labelled and unlabelled images, smoothed near the boundaries of hard labels."""

    default_options: ClassVar[dict[str, Any]] = nnUNetTrainerDML_BLS.default_options


class nnUNetTrainerJML_SSL(SemiSupervisedTrainer):
    """The Jaccard metric loss on labelled and unlabelled images (Wang et al., NeurIPS 2023, appendix I)."""

    default_options: ClassVar[dict[str, Any]] = nnUNetTrainerJML_BLS.default_options
