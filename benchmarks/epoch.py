"""An epoch of training on soft labels against an epoch of nnU-Net's own, same data set, same schedule."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from benchmarks import _trainers
from benchmarks._timing import Aim, Options, Row, Table, compare
from nnunet_dml.nnunet.trainers import nnUNetTrainerDML

OURS, NNUNET = "nnUNetTrainerDML, soft", "nnUNetTrainer"
ITERATIONS = {"full": (10, 2), "quick": (4, 1), "minute": (1, 1)}  # of training, of validation
ROUNDS = {"full": 3, "quick": 3, "minute": 1}


def epoch(trainer: Any, steps: int, validation_steps: int) -> None:
    """What `run_training` does, but for the picture of the progress and the checkpoint."""
    with contextlib.redirect_stdout(None):
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train)) for _ in range(steps)])
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            trainer.on_validation_epoch_end(
                [trainer.validation_step(next(trainer.dataloader_val)) for _ in range(validation_steps)]
            )


def candidates(
    configuration: str, iterations: tuple[int, int], device: str = "cpu", **where: str
) -> dict[str, Callable[[], Any]]:
    """The first epoch, again and again."""
    trainers = {
        name: _trainers.make(kind, configuration, device, started=True, **where)
        for name, kind in ((OURS, nnUNetTrainerDML), (NNUNET, nnUNetTrainer))
    }
    return {name: lambda it=it: epoch(it, *iterations) for name, it in trainers.items()}


def measure(options: Options) -> Row:
    """2D and 3D, on all devices."""
    _trainers.prepare(options)
    steps = ITERATIONS[options.size]
    row = Row(
        "epoch",
        f"An epoch of {steps[0]} training and {steps[1]} validation steps",
        "A phantom of five raters, nnU-Net's network at a quarter of its width, batches loaded in this process; without the picture "
        "of the progress and the checkpoint, which both write alike.",
    )
    for device in options.devices:
        for configuration, size in _trainers.BATCH.items():
            point = {"configuration": configuration, "iterations": steps, "device": device}
            lines = compare(__name__, point, options, rounds=ROUNDS[options.size], memory=False)
            title = f"{configuration}, batches of {size}, {device}"
            row.tables.append(Table(title, lines))
            row.aims.append(
                Aim(f"{title}: time ÷ nnUNetTrainer", lines[OURS].median / lines[NNUNET].median, "≤", 1.05)
            )
    if "cuda" not in options.devices:
        row.missing.append("an epoch on a GPU")
    return row
