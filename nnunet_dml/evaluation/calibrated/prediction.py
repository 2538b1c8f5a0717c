"""What nnU-Net predicted, calibrated: segmentations and probability maps."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file, clear_leftovers
from nnunet_dml._images import PICTURES, Grid, read, split_ending, write
from nnunet_dml._parallel import each
from nnunet_dml.calibration import Calibrator, Uncalibrated
from nnunet_dml.evaluation.calibrated.apply import calibrated
from nnunet_dml.evaluation.dataset import RawDataset
from nnunet_dml.evaluation.map_files import ENDING, MAPS, write_maps
from nnunet_dml.evaluation.predictions import read_probabilities


@dataclass(frozen=True)
class Finished:
    """A case."""

    case: str
    changed: int
    """Voxels whose label is another than nnU-Net's."""
    voxels: int


def finish(
    staging: Path,
    output: Path,
    labels: RawDataset,
    calibrator: Calibrator | None,
    *,
    bits: int,
    processes: int,
) -> list[Finished]:
    """Make segmentations and probability maps of nnU-Net's predictions.

    Args:
        staging: What `nnUNetv2_predict --save_probabilities` wrote.
        output: Gets `<case><ending>`, the segmentation, and `probabilities/<case>.nii.gz`.
        labels: The model's.
        calibrator: None leaves the probabilities as they are.
        bits: Of the maps, 8 or 16.
        processes: How many cases are worked on at once.

    Raises:
        InputError: With every problem of every case.
    """
    (output / MAPS).mkdir(parents=True, exist_ok=True)
    clear_leftovers(output / MAPS)
    work = partial(
        _finish_case, output=output, labels=labels, calibrator=calibrator or Uncalibrated(), bits=bits
    )
    return each(work, sorted(staging.glob("*.npz")), processes=processes, title="Writing")


def _finish_case(
    path: Path, *, output: Path, labels: RawDataset, calibrator: Calibrator, bits: int
) -> Finished:
    case = path.name.removesuffix(".npz")
    stock = path.with_name(case + labels.file_ending)
    image = read(stock)
    theirs = sitk.GetArrayFromImage(image)
    probs = read_probabilities(path, num_classes=labels.channels, regions=bool(labels.regions))
    if probs[0].size != theirs.size:
        expected = f"the shape of {stock.name}, {theirs.shape}"
        raise InputError(problem(path, expected=expected, found=str(probs.shape[1:])))
    probs = calibrated(calibrator, probs)
    changed = 0
    if calibrator.keeps_argmax:  # nnU-Net's own file, to the bit
        with atomic_file(output / stock.name) as temporary:
            shutil.copyfile(stock, temporary)
    else:
        ours = segmentation(probs, labels).reshape(theirs.shape).astype(theirs.dtype)
        changed = int(np.count_nonzero(ours != theirs))
        with atomic_file(output / stock.name) as temporary:
            write(ours, Grid.of(image), temporary)
    maps = probs if labels.regions else probs[1:]
    write_maps(output / MAPS / (case + ENDING), maps, _grid(image, stock, probs.shape[1:]), bits=bits)
    return Finished(case, changed, theirs.size)


def segmentation(probs: npt.NDArray[np.floating[Any]], labels: RawDataset) -> npt.NDArray[np.integer[Any]]:
    """The labels `(z, y, x)` that nnU-Net makes of probabilities `(C, z, y, x)`.

    The class of the greatest, the first of several; of regions each one above 0.5, later ones over earlier ones.
    """
    if not labels.regions:
        return probs.argmax(0)
    result = np.zeros(probs.shape[1:], dtype=np.int64)
    for region, label in zip(probs, labels.regions_class_order, strict=True):
        result[region > 0.5] = label
    return result


def _grid(image: sitk.Image, path: Path, shape: tuple[int, ...]) -> Grid:
    """The grid of a segmentation; pictures have none, their voxels are of size 1."""
    if split_ending(path.name)[1] not in PICTURES:
        return Grid.of(image)
    return Grid(shape[::-1], (1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel().tolist()))
