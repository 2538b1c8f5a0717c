"""Stock nnU-Net whose schedule is read from the plans."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed as dist

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file, clear_leftovers, not_trainable
from nnunet_dml.nnunet import bfloat16, checkpoints, plan_changes, segmentation_models
from nnunet_dml.nnunet.option_groups import Options
from nnunet_dml.nnunet.options import KEY, complete, validate
from nnunet_dml.nnunet.segmentation_models import SegmentationModel
from nnunet_dml.nnunet.trainers import networks

RANKS_APART = 10**6  # the seeds of the ranks of a distributed training


@contextmanager
def clean_refusal() -> Iterator[None]:
    """End the training command with one line per problem and status 2 instead of a traceback."""
    try:
        yield
    except InputError as error:
        if not dist.is_initialized() or dist.get_rank() == 0:
            for line in error.problems:
                print(f"nnunet-dml: {line}", file=sys.stderr)
        raise SystemExit(2) from None


_ATTRIBUTES = {  # training.* → what upstream's trainer reads
    "epochs": "num_epochs",
    "iterations": "num_iterations_per_epoch",
    "val_iterations": "num_val_iterations_per_epoch",
    "learning_rate": "initial_lr",
    "weight_decay": "weight_decay",
    "save_every": "save_every",
}


class nnUNetTrainerConfigured(nnUNetTrainer):
    """nnU-Net's own trainer, loss and labels, with the options `training.*` of the plans.

    The baseline to compare the other trainers with: the same schedule, seed and plans, nothing else changed.
    """

    default_options: ClassVar[dict[str, Any]] = {}
    option_groups: ClassVar[tuple[str, ...]] = ("training",)

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (upstream's signature, read back by name)
    ):
        """As upstream's; the options are checked here."""
        with clean_refusal():
            self.options = self._read_options(plans)
        super().__init__(plans, configuration, fold, dataset_json, device)
        training = self.options.training
        for option, attribute in _ATTRIBUTES.items():
            if option in training.model_fields_set:  # else what a trainer mixed in has chosen
                setattr(self, attribute, getattr(training, option))
        if self.configuration_manager.network_arch_class_name == segmentation_models.CLASS:
            self.enable_deep_supervision = False  # it has one output

    @classmethod
    def _read_options(cls, plans: dict) -> Options:
        """The class's defaults, overridden by the plans."""
        where = f"plans {plans.get('plans_name')}"
        overrides = plans.get(KEY, {})
        options = validate(complete(cls.default_options, overrides), where=where)
        # nnU-Net's own loss has no weights for a recipe to set
        asked = {group for group, it in overrides.items() if (group, it) != ("loss", plan_changes.LOSS)}
        unread = sorted(asked - set(cls.option_groups))
        if unread:
            raise InputError(
                f"{where}: {cls.__name__} reads the options {', '.join(cls.option_groups)} only, found "
                f"{', '.join(unread)}. Use a trainer that reads them (nnUNetTrainerDML …) or plans without them."
            )
        return options

    @property
    def options_json(self) -> str:
        """The options that this trainer reads; nnU-Net writes it into debug.json, where `evaluate` finds it."""
        return self.options.model_dump_json(include={*self.option_groups})

    @property
    def trains_in_bfloat16(self) -> bool:
        """Whether the networks compute in bfloat16 while training."""
        return bfloat16.is_wanted(self.options.training.bfloat16, self.device)

    def _seed(self, number: int) -> None:
        """Seed Python, NumPy and torch where the options have a seed, which `number` is added to."""
        seed = self.options.training.seed
        if seed is not None:
            random.seed(seed + number)
            np.random.seed(seed + number)
            torch.manual_seed(seed + number)

    def initialize(self) -> None:
        """As upstream's, after seeding: all ranks start from the same weights."""
        self._seed(0)
        super().initialize()
        if self.trains_in_bfloat16:
            bfloat16.compute_in_bfloat16(networks.unwrapped(self.network), only_training=True)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """As upstream's, with `training.momentum`."""
        optimizer, schedule = super().configure_optimizers()
        training = self.options.training
        for group in optimizer.param_groups:
            for option in {"momentum", "nesterov"} & training.model_fields_set:
                group[option] = getattr(training, option)
        return optimizer, schedule

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """As upstream's; a fold without training cases is refused."""
        train, val = super().get_tr_and_val_datasets()
        with clean_refusal():
            if not train.identifiers:
                path = Path(self.preprocessed_dataset_folder_base) / "splits_final.json"
                raise InputError(not_trainable(path, self.fold))
        return train, val

    def on_train_start(self) -> None:
        """As upstream's; a network that has pretrained weights gets them before its first step."""
        fresh = not self.was_initialized  # else weights were loaded: -pretrained_weights, --c
        if fresh:
            self.initialize()  # as upstream's does next
        network = networks.unwrapped(self.network)
        if fresh and isinstance(network, SegmentationModel):
            self.print_to_log_file(network.load_pretrained())
            if self.is_ddp:  # what one rank could not fetch, another may have
                for value in network.state_dict().values():
                    dist.broadcast(value, 0)
        super().on_train_start()

    def on_train_epoch_start(self) -> None:
        """As upstream's, after seeding: a resumed training goes on as if it had not been interrupted."""
        # farther apart than epochs, so that no rank draws the patches that another one draws an epoch later
        self._seed(self.current_epoch + self.local_rank * RANKS_APART)
        super().on_train_epoch_start()

    def save_checkpoint(self, filename: str) -> None:
        """As upstream's, but whole or not at all: a killed training finds the checkpoint before."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        clear_leftovers(Path(filename).parent)
        with atomic_file(filename) as temporary:
            super().save_checkpoint(str(temporary))

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """As upstream's; a checkpoint of a training with another network or other options is refused.

        So is a file that holds code, before upstream's own reading of it would run that.
        """
        checkpoint = filename_or_checkpoint
        with clean_refusal():
            if not isinstance(checkpoint, dict):
                todo = "Restore it, or go on from another one."
                checkpoint = checkpoints.load_checkpoint(Path(checkpoint), todo=todo)
            self._check_same_training(checkpoint["init_args"]["plans"])
        super().load_checkpoint(filename_or_checkpoint)

    def _check_same_training(self, trained: dict[str, Any]) -> None:
        """Raise `InputError` unless the plans of a checkpoint have these options and this configuration."""
        now, name = self.plans_manager.plans, self.plans_manager.plans_name
        todo = "Write changed plans under another name (nnunet-dml configure -o NAME), or train anew without --c."
        problems = []
        if trained.get(KEY, {}) != now.get(KEY, {}):
            expected, found = (f"the options {plans.get(KEY, {})}" for plans in (now, trained))
            problems.append(
                problem(self.output_folder, expected=f"{expected} of {name}", found=found, todo=todo)
            )
        before, after = (plans["configurations"][self.configuration_name] for plans in (trained, now))
        changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
        if changed:
            expected = f"the {self.configuration_name} of {name}"
            found = f"one with another {', '.join(changed)}"
            problems.append(problem(self.output_folder, expected=expected, found=found, todo=todo))
        if problems:
            raise InputError(*problems)
