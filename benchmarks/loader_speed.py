"""Batches per second of the soft loader against nnU-Net's own, same data set, in one process and in alternation.

python benchmarks/loader_speed.py -d 501 [-c 2d] [-p nnUNetPlans] [--rounds 9] [--batches 20]

Needs a data set that is preprocessed by nnU-Net and by `nnunet-dml preprocess`. Both loaders run in this process with
nnU-Net's training augmentation, so the figures are the cost of a batch on one core. nnU-Net's loader also makes the
targets of deep supervision; ours are made on the device, in the loss.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json

os.environ["nnUNet_n_proc_DA"] = "0"

from nnunet_dml._folders import environment_folder, find_dataset
from nnunet_dml.nnunet.trainers import nnUNetTrainerConfigured, nnUNetTrainerDML


def training_loader(
    trainer_class: type, dataset: str, configuration: str, plans_name: str
) -> Iterator[dict[str, Any]]:
    """The training loader of a trainer, fold 0."""
    folder = find_dataset(dataset, environment_folder("nnUNet_preprocessed"))
    plans = {**load_json(str(folder / f"{plans_name}.json")), "continue_training": False}
    if trainer_class is nnUNetTrainerConfigured:
        plans["nnunet_dml"] = {}
    trainer = trainer_class(
        plans, configuration, 0, load_json(str(folder / "dataset.json")), torch.device("cpu")
    )
    trainer.initialize()
    return trainer.get_dataloaders()[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-d", dest="dataset", required=True)
    parser.add_argument("-c", dest="configuration", default="2d")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=20)
    options = parser.parse_args()
    with TemporaryDirectory() as scratch, contextlib.redirect_stdout(None):
        os.environ["nnUNet_results"] = scratch
        loaders = {
            name: training_loader(trainer, options.dataset, options.configuration, options.plans)
            for name, trainer in (
                ("nnunet_dml, soft", nnUNetTrainerDML),
                ("nnU-Net, hard", nnUNetTrainerConfigured),
            )
        }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    names = list(loaders)
    for i in range(options.rounds):
        for name in names if i % 2 == 0 else reversed(names):
            np.random.seed(i)  # the same augmentations for both
            torch.manual_seed(i)
            start = time.perf_counter()
            for _ in range(options.batches):
                batch = next(loaders[name])
            rates[name].append(options.batches / (time.perf_counter() - start))
    print(
        f"{options.dataset} {options.configuration}: {tuple(batch['data'].shape)}, {options.rounds} rounds of {options.batches}"
    )
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        ratio = medians[names[0]] / medians[name]
        print(
            f"  {name:<17} {medians[name]:6.1f} batches/s ({min(values):.1f}–{max(values):.1f})   ours/this {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
