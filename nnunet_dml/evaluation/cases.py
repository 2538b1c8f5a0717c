"""One case: read, check, measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._images import Grid, misfits, read_mask
from nnunet_dml.evaluation.dataset import RawDataset
from nnunet_dml.evaluation.predictions import Prediction, read_probabilities
from nnunet_dml.labels import fuse
from nnunet_dml.metrics import (
    bdice_counts,
    bdice_from_counts,
    dice_per_class,
    ece_from_counts,
    reliability_counts,
    volume_bias,
)
from nnunet_dml.metrics.overlap import thresholds_both_empty


@dataclass
class CaseRecord:
    """What was measured on a case. Lists run over the foreground classes."""

    case: str
    fold: str
    raters: int
    dice: list[float]
    bdice: list[float]
    volume_bias: list[float]
    ece: float
    reliability: npt.NDArray[np.float64]
    """`(3, bins)`: voxels, sum of confidences, sum of accuracies; added up for the pooled ECE."""
    reference_empty: list[bool]
    prediction_empty: list[bool]
    raters_empty: bool
    bdice_thresholds_both_empty: list[int]
    ignored_voxels: int


@dataclass(frozen=True)
class LabelMap:
    """A label map and where it lies."""

    path: Path
    array: npt.NDArray[np.integer[Any]]
    """`(z, y, x)`; z is 1 for a 2D file, as in nnU-Net."""
    grid: Grid


def read_labels(path: Path, dataset: RawDataset) -> LabelMap:
    """Read a label map of a dataset.

    Raises:
        InputError: If the file cannot be read whole, or is not a 2D or 3D map of the dataset's labels.
    """
    array, grid = read_mask(path)
    shape = array.shape
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise InputError(problem(path, expected="a 2D or 3D label map", found=f"shape {shape}"))
    wrong = [value for value in np.unique(array).tolist() if value not in dataset.label_values]
    if wrong:
        expected = f"the labels {some(sorted(dataset.label_values), 20)} of dataset.json"
        raise InputError(problem(path, expected=expected, found=some(wrong)))
    return LabelMap(path, array, grid)


@dataclass
class _Raters:
    """The raters' maps, one at a time, without the ignored voxels; what is wrong with them is kept."""

    files: list[Path]
    reference: LabelMap
    keep: npt.NDArray[np.bool_] | None
    dataset: RawDataset
    problems: dict[Path, tuple[str, ...]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[npt.NDArray[np.integer[Any]]]:
        for path in self.files:
            try:
                labels = self._read(path)
            except InputError as error:
                self.problems[path] = error.problems
            else:
                yield labels

    def _read(self, path: Path) -> npt.NDArray[np.integer[Any]]:
        labels = read_labels(path, self.dataset)
        reference = self.reference
        if problems := misfits(path, labels.grid, reference.path, reference.grid):
            raise InputError(*problems)
        return counted_voxels(labels.array, self.keep)


def counted_voxels(array: npt.NDArray[Any], keep: npt.NDArray[np.bool_] | None) -> npt.NDArray[Any]:
    """`(…, z, y, x)` as `(…, N)`, only the voxels to keep; without a mask all, and nothing is copied."""
    return array.reshape(*array.shape[:-3], -1) if keep is None else array[..., keep]


def evaluate_case(prediction: Prediction, dataset: RawDataset, *, bins: int) -> CaseRecord:
    """Measure a case.

    The hard prediction is the argmax of the probabilities, which is also how nnU-Net makes its own
    segmentation of a model without regions. Voxels with the ignore label in `labelsTr` are left out of
    everything; a rater who has it elsewhere abstains there.

    Raises:
        InputError: If anything about the prediction, the reference or a rater is wrong; with all that was
            found.
    """
    classes = len(dataset.classes)
    problems: list[str] = []
    probs = reference = None
    try:
        reference = read_labels(dataset.label_file(prediction.case), dataset)
    except InputError as error:
        problems.extend(error.problems)
    try:
        probs = read_probabilities(prediction.path, num_classes=classes)
    except InputError as error:
        problems.extend(error.problems)
    soft: npt.NDArray[np.float32] | None = None
    keep: npt.NDArray[np.bool_] | None = None
    files: list[Path] = []
    try:
        files = dataset.rater_files(prediction.case)
    except InputError as error:
        problems.extend(error.problems)
    if reference is not None:
        if probs is not None and probs.shape[1:] != reference.array.shape:
            problems.append(
                problem(
                    prediction.path,
                    expected=f"shape {reference.array.shape} of {reference.path}",
                    found=f"{probs.shape[1:]}",
                    todo="Both as (z, y, x).",
                )
            )
        ignored = dataset.ignore_label
        keep = None if ignored is None else reference.array != ignored
        if keep is not None and not keep.any():
            expected, found = "voxels that are not ignored", "the ignore label everywhere"
            problems.append(
                problem(reference.path, expected=expected, found=found, todo="Leave the case out.")
            )
        elif files:
            raters = _Raters(files, reference, keep, dataset)
            try:
                soft = fuse(raters, method="uniform", num_classes=classes, ignore_label=ignored)
            except ValueError:
                if not raters.problems:
                    raise
            problems.extend(line for lines in raters.problems.values() for line in lines)
            if soft is not None and ignored is not None:
                if unlabelled := int(np.count_nonzero(soft[-1])):
                    expected = "the ignore label wherever no rater gave a label"
                    found = f"{unlabelled} voxels without it"
                    problems.append(problem(reference.path, expected=expected, found=found))
                soft = soft[:-1]
        else:
            soft = fuse(counted_voxels(reference.array, keep)[None], method="uniform", num_classes=classes)
    if problems or probs is None or reference is None or soft is None:
        raise InputError(*problems)
    labels = counted_voxels(reference.array, keep)
    ignored_voxels = reference.array.size - labels.size
    return _measure(prediction, counted_voxels(probs, keep), labels, soft, len(files), bins, ignored_voxels)


def _measure(
    prediction: Prediction,
    probs: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    soft: npt.NDArray[np.float32],
    raters: int,
    bins: int,
    ignored: int,
) -> CaseRecord:
    """The metrics of a case from `(C, N)` and `(N,)`, N being the voxels that count."""
    classes = probs.shape[0]
    hard = probs.argmax(0)
    p, y = torch.as_tensor(probs), torch.as_tensor(soft)
    counts = bdice_counts(p[None], y[None])
    reliability = reliability_counts(p[None], labels[None], bins=bins)
    foreground = range(1, classes)
    return CaseRecord(
        case=prediction.case,
        fold=prediction.fold,
        raters=raters,
        dice=dice_per_class(hard, labels, num_classes=classes).tolist(),
        bdice=bdice_from_counts(counts).tolist(),
        volume_bias=volume_bias(probs, soft).tolist(),
        ece=float(ece_from_counts(reliability)),
        reliability=reliability.numpy(),
        reference_empty=[not (labels == c).any() for c in foreground],
        prediction_empty=[not (hard == c).any() for c in foreground],
        raters_empty=not soft[1:].any(),
        bdice_thresholds_both_empty=thresholds_both_empty(counts).tolist(),
        ignored_voxels=ignored,
    )
