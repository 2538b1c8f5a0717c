"""A phantom that went through nnU-Net's preprocessing, and trainers that are ready for a step or an epoch."""

from __future__ import annotations

import contextlib
import io
import os
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks._timing import Options
from nnunet_dml._files import read_json
from nnunet_dml._folders import environment_folder, find_dataset
from nnunet_dml.cli.main import main as nnunet_dml
from scripts.make_phantom import make_phantom

NUMBER, PLANS = 902, "speed"
PHANTOM = {
    "full": {"cases": 12, "size": 128, "depth": 40},
    "quick": {"cases": 6, "size": 48, "depth": 16},
    "minute": {"cases": 5, "size": 32, "depth": 8},
}
BATCH = {"2d": 8, "3d_fullres": 2}


def prepare(options: Options) -> None:
    """Convert, plan and preprocess a 3D phantom of five raters once; nnU-Net's folders are in `options.folder`."""
    for kind in ("raw", "preprocessed", "results"):
        (options.folder / kind).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{kind}"] = str(options.folder / kind)
    if not (options.folder / "phantom").is_dir():
        os.environ["nnUNet_n_proc_DA"] = (
            "1"  # nnU-Net's planning makes it its number of threads, of which 0 is none
        )
        _prepare(options)
    os.environ["nnUNet_n_proc_DA"] = "0"


def _prepare(options: Options) -> None:
    from nnunetv2.experiment_planning import plan_and_preprocess_api as stock

    make_phantom(options.folder / "phantom", raters=5, **PHANTOM[options.size])
    with contextlib.redirect_stdout(io.StringIO()):
        command("convert", "raters", options.folder / "phantom", "--dataset", f"{NUMBER}_Speed", "-np", 1)
        stock.extract_fingerprints([NUMBER], num_processes=1, verbose=False, show_progress_bar=False)
        stock.plan_experiments([NUMBER])
        stock.preprocess([NUMBER], configurations=list(BATCH), num_processes=[1], show_progress_bar=False)
        command("preprocess", "-d", NUMBER, "-c", *BATCH, "-np", 1)
        narrow = ("--scale-features", 0.25)
        command("configure", "-d", NUMBER, "-o", "half", "-c", "2d", "--batch-size", BATCH["2d"], *narrow)
        rest = ("-c", "3d_fullres", "--batch-size", BATCH["3d_fullres"], *narrow)
        command("configure", "-d", NUMBER, "-p", "half", "-o", PLANS, *rest)


def command(*words: Any) -> None:
    """Run `nnunet-dml` in this process."""
    if nnunet_dml([str(it) for it in words]):
        raise RuntimeError(f"nnunet-dml {words[0]} failed")


def make(
    kind: type,
    configuration: str,
    device: str,
    *,
    dataset: str = str(NUMBER),
    plans: str = PLANS,
    started: bool,
) -> Any:
    """A trainer on fold 0, initialised, or just before its first step; what it writes goes away."""
    folder = find_dataset(dataset, environment_folder("nnUNet_preprocessed"))
    content = {**read_json(folder / f"{plans}.json"), "continue_training": False}
    results = os.environ["nnUNet_results"]
    with TemporaryDirectory() as scratch, contextlib.redirect_stdout(None):
        os.environ["nnUNet_results"] = scratch  # where the trainer's own folder is made
        try:
            trainer = kind(
                content, configuration, 0, read_json(folder / "dataset.json"), torch.device(device)
            )
        finally:
            os.environ["nnUNet_results"] = results  # where a teacher is
        trainer.initialize()
        if started:
            trainer.on_train_start()
            trainer.on_train_epoch_start()
        trainer.print_to_log_file = lambda *words, **how: None  # its file is gone
    return trainer
