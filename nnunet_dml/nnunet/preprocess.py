"""Soft maps on nnU-Net's own grid, beside nnU-Net's own preprocessed arrays.

For every case that nnU-Net has preprocessed, the raters' masks are fused in original space and then taken the way
nnU-Net takes its labels: transpose, crop to the stored bounding box, resample linearly to the stored shape, clip,
renormalise. The result stands in `<data_identifier>_soft/<fusion>/<case>.b2nd`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json, load_pickle
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_dml._checks import InputError, problem
from nnunet_dml._folders import environment_folder, find_dataset
from nnunet_dml._images import Grid, check_whole, misfits, read_mask, whole_numbers
from nnunet_dml._parallel import each
from nnunet_dml.labels.fusion import FUSIONS, fuse
from nnunet_dml.labels.storage import open_soft_map, save_soft_map
from nnunet_dml.nnunet import soft_maps


class RaterMaps:
    """One case's masks, read anew from disk at every iteration, so that only one is in memory at a time.

    Iterating yields integer arrays in the axis order of the plans' reader. Call `check` first: the reader alone
    may take a damaged file for a whole one.
    """

    def __init__(self, files: Sequence[Path], reader: BaseReaderWriter, num_classes: int) -> None:
        """Remember the files; nothing is read yet."""
        self.files, self.reader, self.num_classes = files, reader, num_classes

    def __len__(self) -> int:
        """The number of raters."""
        return len(self.files)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read one mask after the other."""
        for path in self.files:
            yield self._read(path).astype(np.uint8 if self.num_classes <= 256 else np.uint16)

    def check(self, shape: tuple[int, ...], consensus: Path | None = None) -> None:
        """Read every file once.

        Args:
            shape: That of the image, in the axis order of the reader.
            consensus: The case's file in `labelsTr`, whose spacing, origin and direction the masks should have;
                left alone with nnU-Net's nibabel readers.

        Raises:
            InputError: Files are damaged, hold other values than the labels, or lie on another grid; all are named.
        """
        nibabel = isinstance(self.reader, NibabelIO | NibabelIOWithReorient)
        grid = None if nibabel or consensus is None else read_mask(consensus)[1]
        problems: list[str] = []
        for path in self.files:
            try:
                found = self._check(path, shape)
            except InputError as error:
                problems += error.problems
            else:
                if found and grid and consensus:
                    problems += misfits(path, found, consensus, grid)
        if problems:
            raise InputError(*problems)

    def _check(self, path: Path, shape: tuple[int, ...]) -> Grid | None:
        grid = None
        if isinstance(self.reader, NibabelIO | NibabelIOWithReorient):
            check_whole(path)  # nibabel hides no NaN, and reads directions that SimpleITK refuses
        else:
            grid = read_mask(path)[1]
        labels = whole_numbers(self._read(path), path)
        if labels.shape != shape:
            raise InputError(problem(path, expected=f"shape {shape} of the image", found=str(labels.shape)))
        low, high = labels.min(), labels.max()
        if low < 0 or high >= self.num_classes:
            expected = f"labels 0 … {self.num_classes - 1} as in dataset.json"
            raise InputError(problem(path, expected=expected, found=f"{low} … {high}"))
        return grid

    def _read(self, path: Path) -> np.ndarray:
        try:
            mask: np.ndarray = self.reader.read_seg(str(path))[0][0]
        except Exception as error:  # each reader raises its own kind
            expected = f"a mask that nnU-Net's {type(self.reader).__name__} reads"
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(problem(path, expected=expected, found=first)) from None
        return mask


def to_grid(
    soft: np.ndarray,
    properties: dict[str, Any],
    shape: Sequence[int],
    plans: PlansManager,
    configuration: ConfigurationManager,
) -> np.ndarray:
    """Bring fractions from original space to nnU-Net's preprocessed grid.

    Args:
        soft: (F, *original) fractions of the foreground classes, in the axis order of the plans' reader.
        properties: nnU-Net's properties of the case.
        shape: Spatial shape of nnU-Net's preprocessed array.
        plans: The plans.
        configuration: The configuration, whose resampling of probabilities (linear) is used.

    Returns:
        (F, *shape) float32 in [0, 1] with sums of at most 1.
    """
    soft = soft.transpose([0, *(axis + 1 for axis in plans.transpose_forward)])
    box = [slice(None), *(slice(low, high) for low, high in properties["bbox_used_for_cropping"])]
    soft = soft[tuple(box)]
    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    target = list(configuration.spacing)
    if len(target) < len(spacing):  # 2d: slices keep their distance
        target = [spacing[0], *target]
    resampled = np.asarray(
        configuration.resampling_fn_probabilities(np.ascontiguousarray(soft), shape, spacing, target)
    )
    resampled = np.clip(resampled, 0, 1).astype(np.float32)
    total = resampled.sum(0, keepdims=True)
    return resampled / np.maximum(total, 1)


@dataclass(frozen=True)
class _Case:
    """What one worker needs to make one soft map."""

    name: str
    files: dict[str, Path]
    consensus: Path  # in labelsTr
    out: Path
    preprocessed: Path  # nnU-Net's folder of the configuration
    fusion: str
    plans_file: Path
    configuration: str
    num_classes: int

    def expected(self) -> dict[str, Any]:
        """The metadata of an up-to-date map."""
        return {
            "fusion": self.fusion,
            "sources": soft_maps.digests(self.files),
            "grid": soft_maps.grid_of(self.preprocessed, self.name),
        }


def _make(case: _Case, overwrite: bool) -> str:
    """Make one soft map unless it is up to date. Returns 'kept' or what was wrong before."""
    blosc2.set_nthreads(1)
    expected = case.expected()
    reason = "overwritten" if overwrite else soft_maps.why_not_current(case.out, expected, whole=True)
    if reason is None:
        return "kept"
    plans = PlansManager(str(case.plans_file))
    configuration = plans.get_configuration(case.configuration)
    properties = load_pickle(str(case.preprocessed / f"{case.name}.pkl"))
    masks = RaterMaps(list(case.files.values()), plans.image_reader_writer_class(), case.num_classes)
    full = tuple(properties["shape_before_cropping"][axis] for axis in plans.transpose_backward)
    masks.check(full, case.consensus)
    soft = fuse(masks, method=case.fusion, num_classes=case.num_classes)[1:]
    maps = to_grid(soft, properties, expected["grid"]["shape"], plans, configuration)
    blocks, chunks = comp_blosc2_params(maps.shape, tuple(configuration.patch_size), soft_maps.BITS // 8)
    raw_share, share = (float(_fractional(m).mean()) for m in (soft, maps))
    metadata = {**expected, "case": case.name, "fractional_raw": raw_share, "fractional": share}
    save_soft_map(case.out, maps, metadata=metadata, bits=soft_maps.BITS, chunks=chunks, blocks=blocks)
    return reason


def _fractional(soft: np.ndarray) -> np.ndarray:
    """Voxels where some class is neither 0 nor 1."""
    return np.any((soft > 1e-6) & (soft < 1 - 1e-6), axis=0)


def preprocess(
    dataset: str,
    *,
    plans_name: str = "nnUNetPlans",
    configurations: Sequence[str] | None = None,
    fusions: Sequence[str] = (soft_maps.DEFAULT_FUSION,),
    num_processes: int = 2,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Make the soft maps of a data set; those that are up to date are kept.

    Args:
        dataset: Id or name.
        plans_name: nnU-Net's plans identifier.
        configurations: Names such as `2d`; None takes all configurations that nnU-Net has preprocessed.
        fusions: Fusions of the raters.
        num_processes: Worker processes.
        overwrite: Whether to make up-to-date maps anew.

    Returns:
        One row per configuration and fusion: its folder, counts of cases by what was done, cases without raters,
        cases with a single rater, shares of fractional voxels.

    Raises:
        InputError: Folders, plans, cases or raters are missing or bad; all of them are named.
    """
    for fusion in fusions:
        if fusion not in FUSIONS:
            raise InputError(
                problem(f"--fusion {fusion}", expected=f"one of {', '.join(FUSIONS)}", found=fusion)
            )
    raw = find_dataset(dataset, environment_folder("nnUNet_raw"))
    preprocessed = environment_folder("nnUNet_preprocessed") / raw.name
    plans_file = preprocessed / f"{plans_name}.json"
    if not plans_file.is_file():
        todo = f"Run `nnUNetv2_plan_and_preprocess -d {dataset}` first, or give -p."
        raise InputError(problem(plans_file, expected="nnU-Net's plans", found="no such file", todo=todo))
    plans = PlansManager(str(plans_file))
    dataset_json = load_json(str(raw / "dataset.json"))
    num_classes = len(plans.get_label_manager(dataset_json).all_labels)
    # configurations may share their arrays: each set of arrays needs its soft maps once
    by_folder: dict[str, str] = {}
    for name in configurations or plans.available_configurations:
        if name not in plans.available_configurations:
            raise InputError(
                problem(
                    plans_file,
                    expected=f"a configuration {name}",
                    found=", ".join(plans.available_configurations),
                )
            )
        identifier = plans.get_configuration(name).data_identifier
        if configurations or (preprocessed / identifier).is_dir():
            by_folder.setdefault(identifier, name)
    jobs: dict[tuple[str, str], list[_Case]] = {}
    missing = []
    for identifier, configuration in by_folder.items():
        folder = preprocessed / identifier
        cases = sorted(path.stem for path in folder.glob("*.pkl"))
        if not cases:
            todo = f"Run `nnUNetv2_plan_and_preprocess -d {dataset} -c {configuration}` first."
            raise InputError(
                problem(folder, expected="nnU-Net's preprocessed cases", found="none", todo=todo)
            )
        files = {case: soft_maps.mask_files(raw, case, dataset_json["file_ending"]) for case in cases}
        missing += [path for masks in files.values() for path in masks.values() if not path.is_file()]
        for fusion in fusions:
            out = soft_maps.folder(preprocessed, identifier, fusion)
            jobs[configuration, fusion] = [
                _Case(
                    case,
                    files[case],
                    raw / "labelsTr" / f"{case}{dataset_json['file_ending']}",
                    out / f"{case}.b2nd",
                    folder,
                    fusion,
                    plans_file,
                    configuration,
                    num_classes,
                )
                for case in cases
            ]
    if missing:
        raise InputError(*(problem(path, expected="a mask", found="no such file") for path in missing))
    for work in jobs.values():
        out = work[0].out.parent
        out.mkdir(parents=True, exist_ok=True)
        for leftover in out.glob(".tmp-*"):  # of a run that was killed
            leftover.unlink()
    everything = [case for work in jobs.values() for case in work]
    did = each(partial(_make, overwrite=overwrite), everything, processes=num_processes, title="Soft labels")
    done = {case.out: reason for case, reason in zip(everything, did, strict=True)}
    return [_summary(work, done) for work in jobs.values()]


def _summary(work: list[_Case], done: dict[Path, str]) -> dict[str, Any]:
    metadata = [open_soft_map(case.out).metadata for case in work]
    did = [done[case.out] for case in work]
    return {
        "folder": work[0].out.parent,
        "configuration": work[0].configuration,
        "fusion": work[0].fusion,
        "cases": {reason: did.count(reason) for reason in sorted(set(did))},
        "without_raters": [case.name for case in work if list(case.files) == ["labelsTr"]],
        "single_rater": [
            case.name for case in work if len(case.files) == 1 and list(case.files) != ["labelsTr"]
        ],
        "fractional_raw": float(np.mean([m["fractional_raw"] for m in metadata])),
        "fractional": float(np.mean([m["fractional"] for m in metadata])),
    }
