"""What a case is measured against: the consensus, the raters, a soft map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_dml._checks import InputError, problem
from nnunet_dml.evaluation.dataset import SOFT_MAPS, RawDataset
from nnunet_dml.evaluation.label_maps import LabelMap, read_labels
from nnunet_dml.evaluation.predictions import Prediction
from nnunet_dml.evaluation.probability_files import read_fractions


@dataclass(frozen=True)
class ReferenceFiles:
    """The files of a case's references, and which of them is the soft one."""

    labels: Path
    raters: dict[str, Path]
    soft: Path | None
    """The map in `softlabelsTr`, where that is the soft reference."""
    kind: str
    """`raters`, `softlabels` or `labels`: what the soft reference is."""


@dataclass
class References:
    """The maps of a case, all on one grid."""

    labels: LabelMap
    kind: str
    raters: dict[str, npt.NDArray[np.integer[Any]]] = field(default_factory=dict)
    """By name: `(z, y, x)`, in a byte per voxel where the labels allow it."""
    soft: npt.NDArray[np.float32] | None = None
    """`(labels, z, y, x)`, the background first: the map in `softlabelsTr`, where that is the soft reference."""


def reference_files(case: str, dataset: RawDataset, choice: str) -> ReferenceFiles:
    """Find a case's references.

    Args:
        case: Its name.
        dataset: Where they lie.
        choice: One of `options.REFERENCES`.

    Raises:
        InputError: If a case lacks what was chosen, or raters are missing that dataset.json lists.
    """
    ending = dataset.file_ending
    raters = {path.name.removesuffix(ending): path for path in dataset.rater_files(case)}
    soft = dataset.soft_file(case)
    kind = choice
    if choice == "auto":
        kind = "raters" if raters else "softlabels" if soft is not None else "labels"
    todo = "With --reference auto each case has what there is."
    if kind == "raters" and not raters:
        folder = dataset.folder / "ratersTr" / case
        raise InputError(problem(folder, expected=f"raters of {case}", found="none", todo=todo))
    if kind == "softlabels" and soft is None:
        path = dataset.folder / SOFT_MAPS / f"{case}{ending}"
        raise InputError(problem(path, expected="the soft map of the case", found="no file", todo=todo))
    return ReferenceFiles(dataset.label_file(case), raters, soft if kind == "softlabels" else None, kind)


def check_references(cases: Iterable[Prediction], dataset: RawDataset) -> None:
    """Check that every prediction has its label map.

    Raises:
        InputError: Naming all that have none.
    """
    todo = "Remove the prediction, or restore the reference."
    problems = []
    for it in cases:
        files = dataset.label_files(it.case)
        if not any(path.is_file() for path in files):
            names = " or ".join(f"{path.parent.name}/{path.name}" for path in files)
            expected = f"its reference in {dataset.folder}, {names}"
            problems.append(problem(it.path, expected=expected, found="neither", todo=todo))
    if problems:
        raise InputError(*problems)


def read_references(files: ReferenceFiles, dataset: RawDataset) -> References:
    """Read a case's references.

    Raises:
        InputError: With everything that is wrong with any of them.
    """
    problems: list[str] = []
    labels = None
    try:
        labels = read_labels(files.labels, dataset)
    except InputError as error:
        problems += error.problems
    if (
        labels is not None
        and dataset.ignore_label is not None
        and (labels.array == dataset.ignore_label).all()
    ):
        expected, found = "voxels that are not ignored", "the ignore label everywhere"
        problems.append(problem(labels.path, expected=expected, found=found, todo="Leave the case out."))
    raters = {}
    for name, path in files.raters.items():
        try:
            raters[name] = read_labels(path, dataset, like=labels).array
        except InputError as error:
            problems += error.problems
    soft = None
    if files.soft is not None:
        try:
            soft = read_fractions(files.soft, channels=dataset.labels - 1, like=labels)
        except InputError as error:
            problems += error.problems
    if problems or labels is None:
        raise InputError(*problems)
    return References(labels, files.kind, raters, soft)
