"""Training batches of the soft loader against nnU-Net's own, same data set, same random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from benchmarks import _trainers
from benchmarks._timing import Aim, Options, Row, Table, compare
from nnunet_dml.nnunet.trainers import nnUNetTrainerDML

OURS, NNUNET = "soft loader", "nnU-Net's loader"
BATCHES = {"full": 20, "quick": 5, "minute": 1}


def candidates(configuration: str, batches: int, **where: str) -> dict[str, Callable[[], Any]]:
    """Some batches of each; both see the same random numbers in their n-th call."""

    def several(loader: Iterator[Any], seeds: Iterator[int]) -> None:
        seed = next(seeds)
        np.random.seed(seed)
        torch.manual_seed(seed)
        for _ in range(batches):
            next(loader)

    made = {}
    for name, kind in ((OURS, nnUNetTrainerDML), (NNUNET, nnUNetTrainer)):
        loader = _trainers.make(kind, configuration, "cpu", started=False, **where).get_dataloaders()[0]
        made[name] = partial(several, loader, count())
    return made


def measure(options: Options) -> Row:
    """2D and 3D."""
    _trainers.prepare(options)
    batches = BATCHES[options.size]
    row = Row(
        "loader",
        f"Training batches with augmentation, {batches} at a time",
        "A phantom of five raters, loaded in this process (no workers). nnU-Net's loader also makes the targets of deep "
        "supervision; ours are made in the loss.",
    )
    for configuration, size in _trainers.BATCH.items():
        lines = compare(__name__, {"configuration": configuration, "batches": batches}, options, memory=False)
        title = f"{configuration}, batches of {size}"
        rates = ", ".join(f"{name} {batches / it.median:.1f}" for name, it in lines.items())
        row.tables.append(Table(title, lines, f"Batches per second: {rates}."))
        found = lines[NNUNET].median / lines[OURS].median
        row.aims.append(Aim(f"{title}: batches per second ÷ nnU-Net's", found, "≥", 0.9))
    return row
