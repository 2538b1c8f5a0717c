"""From the validation cases of a model to samples of voxels, one per fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml._checks import InputError, problem
from nnunet_dml._parallel import each
from nnunet_dml.calibration import VoxelSample
from nnunet_dml.evaluation.dataset import RawDataset
from nnunet_dml.evaluation.predictions import Prediction, read_probabilities
from nnunet_dml.evaluation.references import read_references, reference_files
from nnunet_dml.labels import fuse

LEAST_FOLDS = 3  # so that a method can be chosen, too, without the fold that it is measured on
_PARTS = 5


@dataclass(frozen=True)
class Group:
    """Cases that are left out together: a fold, or a part of one."""

    name: str
    cases: tuple[Prediction, ...]


def groups_of(cases: Sequence[Prediction]) -> list[Group]:
    """The folds; with fewer than three of them their cases are dealt out into about five groups.

    A case of the same fold was predicted by the same network, so such groups know a little more of one another than folds do.

    Raises:
        InputError: Fewer than two cases.
    """
    if len(cases) < 2:
        found = ", ".join(it.case for it in cases) or "none"
        expected = "at least two validation cases, to fit on one what is measured on the other"
        raise InputError(problem("validation", expected=expected, found=found, todo="Train more folds."))
    folds = sorted({it.fold for it in cases}, key=int)
    by_fold = [[it for it in cases if it.fold == fold] for fold in folds]
    if len(folds) >= LEAST_FOLDS:
        return [Group(f"fold_{fold}", tuple(own)) for fold, own in zip(folds, by_fold, strict=True)]
    parts = -(-_PARTS // len(folds))
    return [
        Group(f"fold_{fold}_part_{k}", tuple(own[k::parts]))
        for fold, own in zip(folds, by_fold, strict=True)
        for k in range(min(parts, len(own)))
    ]


def reference_kinds(cases: Sequence[Prediction], dataset: RawDataset, choice: str) -> dict[str, int]:
    """How many cases are compared with what: `raters`, `softlabels`, `labels`.

    With `auto` a calibrated probability means the share of the raters who would label the voxel, where there are raters.
    Against the majority vote a model that knows these shares looks under-confident, and a calibrator would make it
    pretend to be surer than the raters are.

    Raises:
        InputError: Cases lack what was chosen.
    """
    kinds: list[str] = []
    problems: list[str] = []
    for case in cases:
        try:
            kinds.append(reference_files(case.case, dataset, choice).kind)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return dict(Counter(kinds))


def sample_groups(
    groups: Sequence[Group], dataset: RawDataset, *, reference: str, size: int, processes: int
) -> list[VoxelSample]:
    """A sample of the voxels of each group.

    Args:
        groups: Of the same model.
        dataset: The raw dataset with the references.
        reference: One of `options.REFERENCES`.
        size: As of `VoxelSample`.
        processes: How many groups are read at once.

    Raises:
        InputError: With every problem of every case.
    """
    work = partial(_sample, dataset=dataset, reference=reference, size=size)
    threads = partial(torch.set_num_threads, 1)
    items = list(enumerate(groups))
    return each(work, items, processes=processes, title="Reading folds", initializer=threads)


def _sample(item: tuple[int, Group], *, dataset: RawDataset, reference: str, size: int) -> VoxelSample:
    number, group = item
    sample = VoxelSample(size=size, independent=bool(dataset.regions), seed=number)
    problems: list[str] = []
    for case in group.cases:
        try:
            probs, labels, mask = read_case(case, dataset, reference=reference)
        except InputError as error:
            problems += error.problems
            continue
        p, y = (torch.from_numpy(np.ascontiguousarray(it))[None] for it in (probs, labels))
        sample.update(p, y, mask=None if mask is None else torch.from_numpy(mask)[None, None])
    if problems:
        raise InputError(*problems)
    return sample


def read_case(
    case: Prediction, dataset: RawDataset, *, reference: str
) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]:
    """Probabilities, reference and the voxels that count.

    Returns:
        `(C, z, y, x)`, `(C, z, y, x)`, and boolean `(z, y, x)` or None; C are the classes or the regions.

    Raises:
        InputError: A file is missing, damaged or does not fit.
    """
    files = reference_files(case.case, dataset, reference)
    if files.kind != "raters":
        files = replace(files, raters={})
    truth = read_references(files, dataset)
    labels = truth.labels
    regions = bool(dataset.regions)
    probs = read_probabilities(case.path, num_classes=dataset.channels, regions=regions)
    if probs.shape[1:] != labels.array.shape:
        expected = f"shape {labels.array.shape} of {labels.path}"
        raise InputError(
            problem(case.path, expected=expected, found=str(probs.shape[1:]), todo="Both as (z, y, x).")
        )
    ignore = dataset.ignore_label
    keep = None if ignore is None else labels.array != ignore
    if truth.soft is not None:
        fused = truth.soft
    else:
        votes = list(truth.raters.values()) or [labels.array]
        fused = fuse(votes, method="uniform", num_classes=dataset.labels, ignore_label=ignore)
        if keep is not None:
            keep &= fused[-1] == 0
            fused = fused[:-1]
    if regions:
        fused = np.stack([fused[list(members)].sum(0) for members in dataset.regions])
    return probs, fused, keep
