"""Stock nnU-Net whose schedule is read from the plans."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.options import KEY, Options, merge, validate


@contextmanager
def clean_refusal() -> Iterator[None]:
    """End the training command with one line per problem and status 2 instead of a traceback."""
    try:
        yield
    except InputError as error:
        for line in error.problems:
            print(f"nnunet-dml: {line}", file=sys.stderr)
        raise SystemExit(2) from None


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
        self.num_epochs = training.epochs
        self.num_iterations_per_epoch = training.iterations
        self.num_val_iterations_per_epoch = training.val_iterations
        self.initial_lr = training.learning_rate
        self.weight_decay = training.weight_decay
        self.save_every = training.save_every

    @classmethod
    def _read_options(cls, plans: dict) -> Options:
        """The class's defaults, overridden by the plans."""
        where = f"plans {plans.get('plans_name')}"
        overrides = plans.get(KEY, {})
        options = validate(merge(cls.default_options, overrides), where=where)
        unread = sorted(set(overrides) - set(cls.option_groups))
        if unread:
            raise InputError(
                f"{where}: {cls.__name__} reads the options {', '.join(cls.option_groups)} only, found "
                f"{', '.join(unread)}. Use a trainer that reads them (nnUNetTrainerDML …) or plans without them."
            )
        return options

    def initialize(self) -> None:
        """As upstream's, after seeding."""
        seed = self.options.training.seed
        if seed is not None:
            random.seed(seed + self.local_rank)
            np.random.seed(seed + self.local_rank)
            torch.manual_seed(seed)  # the same weights on every rank
        super().initialize()

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """As upstream's; a checkpoint of a training with other options is refused."""
        super().load_checkpoint(filename_or_checkpoint)
        trained = self.my_init_kwargs["plans"].get(KEY, {})
        now = self.plans_manager.plans.get(KEY, {})
        with clean_refusal():
            if trained != now:
                raise InputError(
                    f"{filename_or_checkpoint if isinstance(filename_or_checkpoint, str) else 'checkpoint'}: expected "
                    f"a training with the options {now} of the plans {self.plans_manager.plans_name}, found one with "
                    f"{trained}. Write the new options under another plans name (nnunet-dml configure -o NAME)."
                )
