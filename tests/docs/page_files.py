"""Files that the pages take for granted, made of the world's phantom: `patientNN_1/image.nii.gz`, `task01_segNN.nii.gz`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import yaml

from tests.docs.pages import blocks


def qubiq(here: Path) -> None:
    """QUBIQ's folders of two tasks."""
    for subset in ("brain-growth", "prostate"):
        shutil.copytree(here / "phantom", here / "QUBIQ" / subset / "Training")
    for mask in (here / "QUBIQ/prostate").rglob("task01_*"):
        shutil.copyfile(mask, mask.with_name(mask.name.replace("task01", "task02")))


def benchmarks(here: Path) -> None:
    """The page's own grid, and a short one of a single training."""
    qubiq(here)
    code = next(it.code for it in blocks("yaml") if it.page == "docs/how-to/benchmarks.md")
    (here / "mine.yaml").write_text(code)
    grid = yaml.safe_load(code)
    grid["labels"] = {"uniform": grid["labels"]["uniform"]}
    grid["methods"] = {"DML": grid["methods"]["DML"]}
    grid["networks"]["narrow"] = {"batch_size": 2, "features": [4] * 5}
    grid["options"] = {"training.epochs": 1, "training.iterations": 2}
    (here / "short.yaml").write_text(yaml.safe_dump({**grid, "folds": [0]}))


def raters(here: Path) -> None:
    """A folder of each layout of the page."""
    qubiq(here)
    in_folders(here, here / "cells", lambda mask: mask * 128 + (mask == 0) * (np.arange(64) < 8) * 255)
    shutil.copytree(here / "nnUNet_raw/Dataset501_BrainGrowth/ratersTr", here / "MASKS")
    for name in ("SRC", "LiTS"):
        (here / name).mkdir()
    for case in sorted((here / "phantom").iterdir()):
        shutil.copyfile(case / "image.nii.gz", here / "SRC" / f"{case.name}_img.nii.gz")
        for mask in case.glob("task01_*"):
            shutil.copyfile(mask, here / "SRC" / f"{case.name}_{mask.name[7:]}")
        for part, file in (("volume", "image"), ("segmentation", "task01_seg01")):
            slices = [sitk.ReadImage(str(case / f"{file}.nii.gz"))] * 4
            sitk.WriteImage(sitk.JoinSeries(slices), str(here / f"LiTS/{part}-{int(case.name[7:9])}.nii.gz"))


def partial(here: Path) -> None:
    """Raters who abstain on the left."""
    in_folders(here, here / "SRC", lambda mask: np.where(np.arange(64) < 8, 255, mask))


def soft_maps(here: Path) -> None:
    """The mean of the raters as soft maps of one's own."""
    folder = here / "nnUNet_raw/Dataset501_BrainGrowth/softlabelsTr"
    folder.mkdir()
    for case in (here / "phantom").iterdir():
        masks = [sitk.Cast(sitk.ReadImage(str(it)), sitk.sitkFloat32) for it in case.glob("task01_*")]
        sitk.WriteImage(sum(masks[1:], masks[0]) / len(masks), str(folder / f"{case.name}.nii.gz"))


def in_folders(here: Path, target: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """The phantom in layout `folders`, its masks changed."""
    for case in (here / "phantom").iterdir():
        for mask in case.glob("task01_*"):
            image = sitk.ReadImage(str(mask))
            new = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image).astype(int)).astype(np.uint8))
            new.CopyInformation(image)
            path = target / "raters" / mask.name[7:12] / f"{case.name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(new, str(path))
        (target / "images").mkdir(exist_ok=True)
        shutil.copyfile(case / "image.nii.gz", target / "images" / f"{case.name}.nii.gz")
