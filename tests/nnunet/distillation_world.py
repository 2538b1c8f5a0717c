"""Data sets with a trained teacher, and students of it."""

from __future__ import annotations

import numpy as np
import torch

from nnunet_dml.nnunet import trainers
from nnunet_dml.nnunet.options import merge
from tests.nnunet import mode_helpers as here
from tests.nnunet.mode_helpers import disc

REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
SETS = {  # number: name, labels, size, configuration
    960: ("Labels", {"background": 0, "rim": 1, "core": 2}, (32, 32), "2d"),
    961: ("Regions", REGIONS, (32, 32), "2d"),
    962: ("Sparse", {"background": 0, "rim": 1, "core": 2, "ignore": 3}, (32, 32), "2d"),
    963: ("SparseRegions", {**REGIONS, "ignore": 3}, (32, 32), "2d"),
    964: ("Volume", {"background": 0, "rim": 1, "core": 2}, (16, 16, 16), "3d_fullres"),
}
TEACHER = "nnUNetTrainerConfigured"  # nnU-Net's own loss and labels


def masks_of(number, shape, *, ignore):
    """Two raters."""
    masks = {}
    for rater, grow in (("a", 0.0), ("b", 0.12)):
        mask = np.zeros(shape, np.uint8)
        mask[disc(shape, 0.45 + grow, [0.05 * number, 0.1, 0.0][: len(shape)])] = 1
        mask[disc(shape, 0.2 + grow, [0.05 * number, 0.1, 0.0][: len(shape)])] = 2
        if ignore:
            mask[-5:] = 3
        masks[rater] = mask
    return masks


def make(folders, number):
    """A data set, preprocessed, with a teacher of fold 0 and plans of a student half as wide, `small`."""
    name, labels, shape, configuration = SETS[number]
    dataset = f"Dataset{number}_{name}"
    raters = {f"case{i}": masks_of(i, shape, ignore="ignore" in labels) for i in range(5)}
    noise = np.random.default_rng(0)
    images = {
        case: [(100 + 50 * (masks["b"] % 3) + noise.normal(0, 5, shape)).astype(np.float32)]
        for case, masks in raters.items()
    }
    more = {"regions_class_order": [1, 2]} if "whole" in labels else {}
    consensus = {case: masks["a"] for case, masks in raters.items()}
    here.write_raw(folders.raw / dataset, images, raters, consensus, labels, **more)
    here.plan(number)
    here.preprocess(number, [configuration], ["uniform", "random"])
    here.configure(number, "big")
    here.train(number, configuration, "big", TEACHER)
    here.command("configure", "-d", number, "-p", "big", "-o", "small", "--scale-features", "0.5",
                 "--teacher", f"{TEACHER}__big__{configuration}", "--set", "training.epochs=2")  # fmt: skip
    return dataset


def build(world, number=960, name="nnUNetTrainerDML_KD", fold=0, *, start=True, **groups):
    """A student as `nnUNetv2_train` makes it, with other options."""
    folder = world.preprocessed / world.dataset(number)
    plans = here.read_json(folder / "small.json")
    plans |= {"continue_training": False, "nnunet_dml": merge(plans["nnunet_dml"], groups)}
    trainer = getattr(trainers, name)(
        plans, SETS[number][3], fold, here.read_json(folder / "dataset.json"), here.CPU
    )
    if start:
        trainer.initialize()
        trainer.on_train_start()
    return trainer


def step(trainer):
    """A step of training and one of validation, as an epoch does them."""
    trainer.on_train_epoch_start()
    loss = trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_epoch_end([loss])
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
    return float(loss["loss"])


def series(trainer):
    return trainer.logger.local_logger.my_fantastic_logging
