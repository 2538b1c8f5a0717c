"""Tiny data sets for nnU-Net's modes, taken through nnU-Net's own code in this process."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.experiment_planning import plan_and_preprocess_api as stock
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.run.run_training import get_trainer_from_args, run_training
from torch import nn

from nnunet_dml.cli.main import main
from tests.conftest import set_folders

CPU = torch.device("cpu")
TINY = ("training.epochs=1", "training.iterations=2", "training.val_iterations=1", "training.seed=0")


@contextmanager
def threads_for_processes() -> Iterator[None]:
    """Let nnU-Net's pools work in threads: a spawned process imports torch for seconds."""
    with pytest.MonkeyPatch.context() as patch:
        in_threads = SimpleNamespace(Pool=ThreadPool)
        patch.setattr(multiprocessing, "get_context", lambda method=None: in_threads)
        yield


@contextmanager
def for_planning() -> Iterator[None]:
    """The same for planning, which takes as many threads as the augmentation has processes; here it has none."""
    with threads_for_processes(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_n_proc_DA", "1")
        yield


@contextmanager
def made_when_asked(root: Path, make) -> Iterator[SimpleNamespace]:
    """nnU-Net's folders with `dataset(number)`, which makes a data set by `make(folders, number)` the first time."""
    with pytest.MonkeyPatch.context() as patch:
        folders = set_folders(patch, root)
        folders.dataset = cache(partial(make, folders))
        yield folders


def write_image(
    path: Path, array: np.ndarray, spacing: Sequence[float] | None = None, *, vector: bool = False
) -> None:
    """Write an array (z, y, x) or (y, x); `spacing` is in the same order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array, isVector=vector)
    if spacing is not None:
        image.SetSpacing([float(size) for size in reversed(spacing)])
    sitk.WriteImage(image, str(path))


def write_raw(
    folder: Path,
    images: Mapping[str, Sequence[np.ndarray]],
    raters: Mapping[str, Mapping[str, np.ndarray]],
    consensus: Mapping[str, np.ndarray],
    labels: Mapping[str, int | list[int]],
    *,
    spacing: Sequence[float] | None = None,
    **more: object,
) -> None:
    """Write a raw data set by hand: images by case and channel, masks by case and rater, consensus by case."""
    for case, channels in images.items():
        for number, channel in enumerate(channels):
            write_image(folder / "imagesTr" / f"{case}_{number:04d}.nii.gz", channel, spacing)
        write_image(folder / "labelsTr" / f"{case}.nii.gz", consensus[case], spacing)
        for rater, mask in raters[case].items():
            write_image(folder / "ratersTr" / case / f"{rater}.nii.gz", mask, spacing)
    cases = {case: {"raters": sorted(masks)} for case, masks in raters.items()}
    names = sorted({rater for masks in raters.values() for rater in masks})
    described = {
        "channel_names": {str(i): f"channel{i}" for i in range(len(next(iter(images.values()))))},
        "labels": labels,
        "numTraining": len(images),
        "file_ending": ".nii.gz",
        "nnunet_dml": {"format": 1, "raters": names, "cases": cases},
        **more,
    }
    (folder / "dataset.json").write_text(json.dumps(described))


class FewVoxels(DatasetFingerprintExtractor):
    """nnU-Net's extractor, but it draws thousands of intensities instead of a hundred million."""

    def __init__(self, *args, **more) -> None:
        super().__init__(*args, **more)
        self.num_foreground_voxels_for_intensitystats = 1e4


def plan(dataset: int, planner: str = "ExperimentPlanner") -> None:
    """What `nnUNetv2_extract_fingerprint` and `nnUNetv2_plan_experiment` do."""
    with for_planning():
        stock.extract_fingerprint_dataset(dataset, FewVoxels, 1, clean=False, show_progress_bar=False)
        stock.plan_experiments([dataset], planner)


def preprocess(
    dataset: int,
    configurations: Sequence[str],
    fusions: Sequence[str] = ("uniform",),
    plans: str = "nnUNetPlans",
) -> None:
    """What `nnUNetv2_preprocess` and `nnunet-dml preprocess` do."""
    with threads_for_processes():
        stock.preprocess([dataset], plans, configurations, num_processes=[1], show_progress_bar=False)
    own_preprocess(dataset, configurations, fusions, plans)


def own_preprocess(
    dataset: int, configurations: Sequence[str], fusions: Sequence[str], plans: str = "nnUNetPlans"
) -> None:
    """`nnunet-dml preprocess`."""
    command("preprocess", "-d", dataset, "-p", plans, "-c", *configurations, "--fusion", *fusions, "-np", "1")


def configure(
    dataset: int, name: str, *options: str, plans: str = "nnUNetPlans", batch_size: int = 2
) -> None:
    """`nnunet-dml configure`: two channels in the first stage."""
    command("configure", "-d", dataset, "-p", plans, "-o", name, "--scale-features", "0.0625",
            "--batch-size", batch_size, "--set", *TINY, *options)  # fmt: skip


def command(*arguments: object) -> None:
    """Run `nnunet-dml` in this process; it must succeed."""
    status = main([str(it) for it in arguments])
    assert not status, f"{arguments} ended with {status}"


def read_json(path: Path) -> dict:
    """A JSON file."""
    return json.loads(path.read_text())


def edit_json(path: Path, change) -> None:
    """Change a JSON file in place."""
    content = read_json(path)
    change(content)
    path.write_text(json.dumps(content))


def trainer_for(
    dataset: int,
    configuration: str,
    plans: str,
    name: str = "nnUNetTrainerDML",
    fold: int | str = 0,
    *,
    start: bool = True,
):
    """A trainer as `nnUNetv2_train` makes it, with its loaders unless `start` is off."""
    trainer = get_trainer_from_args(str(dataset), configuration, fold, name, plans, device=CPU)
    if start:
        trainer.initialize()
        trainer.on_train_start()
    return trainer


def train(
    dataset: int, configuration: str, plans: str, name: str = "nnUNetTrainerDML", fold: int | str = 0, **more
) -> None:
    """What `nnUNetv2_train` does after reading its arguments."""
    with threads_for_processes():
        run_training(str(dataset), configuration, fold, name, plans, device=CPU, **more)


def batches(trainer, count: int = 1) -> list[dict]:
    """Validation batches, which are not augmented, of patches that begin at the image's first voxel.

    nnU-Net draws where a patch lies; its loader crops and pads.
    """
    loader = trainer.dataloader_val.data_loader
    loader.get_bbox = lambda shape, *rest: ([0] * len(shape), list(loader.patch_size))
    return [next(trainer.dataloader_val) for _ in range(count)]


def reaching_the_loss(trainer, batch, outputs=None) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Targets and masks that the loss of one resolution is called with, finest first."""
    seen: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def note(module, arguments):
        seen.append((arguments[1], arguments[2] if len(arguments) > 2 else None))

    hook = trainer.loss.single.register_forward_pre_hook(note)
    try:
        with torch.no_grad():
            trainer.loss(trainer.network(batch["data"]) if outputs is None else outputs, batch["target"])
    finally:
        hook.remove()
    return seen


def disc(shape: Sequence[int], radius: float, centre: Sequence[float] | None = None) -> np.ndarray:
    """Whether a voxel lies in a ball, in units of half the image's sides."""
    axes = [np.linspace(-1, 1, n) for n in shape]
    grid = np.meshgrid(*axes, indexing="ij")
    centre = centre or [0.0] * len(shape)
    return sum((it - c) ** 2 for it, c in zip(grid, centre, strict=True)) <= radius**2


class PlainNetwork(nn.Module):
    """A network with one output and no decoder of nnU-Net's kind."""

    def __init__(self, input_channels: int, num_classes: int, deep_supervision: bool = False) -> None:
        super().__init__()
        self.layer = nn.Conv2d(input_channels, num_classes, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images)
