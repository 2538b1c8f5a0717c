"""What calibration does to a teacher on its student's training patches.

    python scripts/teacher_on_patches.py -d 17 -p student_kde [-c 2d] [--folds 0 1 2] [--batches 20]

For plans of nnUNetTrainerDML_KD: Dice, Brier score, ECE and volume bias of the teacher against the labels before and after its
calibration, over all voxels and over those that it changes (wrong ones and those near a boundary). Needs the trained
teacher and nnU-Net's folders; writes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from tempfile import TemporaryDirectory
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json

os.environ["nnUNet_n_proc_DA"] = "0"

from nnunet_dml._folders import environment_folder, find_dataset
from nnunet_dml.metrics import ece_from_counts, reliability_counts
from nnunet_dml.nnunet.trainers import nnUNetTrainerDML_KD


def started(options: argparse.Namespace, fold: int) -> Any:
    """A student just before its first step."""
    folder = find_dataset(options.dataset, environment_folder("nnUNet_preprocessed"))
    plans = {**load_json(str(folder / f"{options.plans}.json")), "continue_training": False}
    with TemporaryDirectory() as scratch, contextlib.redirect_stdout(None):
        results = os.environ["nnUNet_results"]
        os.environ["nnUNet_results"] = scratch  # where the student's folder is made
        trainer = nnUNetTrainerDML_KD(
            plans, options.configuration, fold, load_json(str(folder / "dataset.json")), torch.device("cpu")
        )
        os.environ["nnUNet_results"] = results  # where the teacher is
        trainer.initialize()
        trainer.on_train_start()
        trainer.on_train_epoch_start()
    return trainer


def figures(probs: torch.Tensor, labels: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Sums of a batch: intersection, sizes, squared error, voxels, foreground given and wanted; then the reliability."""
    hard, truth = probs.argmax(1)[keep], labels.argmax(1)[keep]
    foreground, wanted = hard > 0, truth > 0
    right = ((hard == truth) & wanted).sum()
    error = (probs - labels).square().sum(1)[keep].sum()
    counts = reliability_counts(probs, labels.argmax(1), mask=keep)
    volume = [it[:, 1:].sum(1)[keep].sum() for it in (probs, labels)]
    sums = torch.stack([right, foreground.sum() + wanted.sum(), error, keep.sum(), *volume]).double()
    return torch.cat([sums, counts.flatten()])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-d", dest="dataset", required=True)
    parser.add_argument("-p", dest="plans", required=True)
    parser.add_argument("-c", dest="configuration", default="2d")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batches", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| fold | voxels | share | Dice before | after | Brier before | after | ECE before | after | volume bias before | after |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for fold in arguments.folds:
        student = started(arguments, fold)
        sums = torch.zeros(2, 2, 36, dtype=torch.float64)
        for _ in range(arguments.batches):
            probs, labels, mask = student._see(student._on_device(next(student.dataloader_train)))
            after = student.calibration(probs, labels, mask)
            everywhere = torch.ones_like(probs[:, 0], dtype=torch.bool)
            changed = (after != probs).any(1)
            for i, keep in enumerate((everywhere, changed)):
                for j, it in enumerate((probs, after)):
                    sums[i, j] += figures(it, labels, keep)
        for i, name in enumerate(("all", "changed")):
            dice = [100 * 2 * float(it[0] / it[1]) for it in sums[i]]
            brier = [float(it[2] / it[3]) for it in sums[i]]
            errors = [100 * float(ece_from_counts(it[6:].view(3, 10))) for it in sums[i]]
            volume = [100 * float(it[4] / it[5] - 1) for it in sums[i]]
            share = 100 * float(sums[i, 0, 3] / sums[0, 0, 3])
            print(
                f"| {fold} | {student.calibration.parameter} | {name} | {share:.1f} % | {dice[0]:.2f} | {dice[1]:.2f} | {brier[0]:.4f} | {brier[1]:.4f} | "
                f"{errors[0]:.2f} | {errors[1]:.2f} | {volume[0]:+.2f} | {volume[1]:+.2f} |"
            )
