"""Soft maps on nnU-Net's own grid, beside nnU-Net's own preprocessed arrays.

For every case that nnU-Net has preprocessed, the raters' masks are fused in original space and then taken the way
nnU-Net takes its labels: transpose, crop to the stored bounding box, resample linearly to the stored shape, clip,
renormalise. The result stands in `<data_identifier>_soft/<fusion>/<case>.b2nd`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetBaseDataset
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import clear_leftovers, read_json
from nnunet_dml._folders import environment_folder, find_dataset, listed_raters
from nnunet_dml._parallel import each
from nnunet_dml.labels.fusion import FUSIONS, fuse
from nnunet_dml.labels.storage import open_soft_map, quantise, save_soft_map
from nnunet_dml.nnunet import soft_maps
from nnunet_dml.nnunet.rater_maps import RaterMaps


def crop(soft: np.ndarray, properties: dict[str, Any], plans: PlansManager) -> np.ndarray:
    """Transpose fractions of shape (F, *original) as nnU-Net does, and cut them to its bounding box."""
    soft = soft.transpose([0, *(axis + 1 for axis in plans.transpose_forward)])
    box = [slice(None), *(slice(low, high) for low, high in properties["bbox_used_for_cropping"])]
    return soft[tuple(box)]


def to_grid(
    soft: np.ndarray,
    properties: dict[str, Any],
    shape: Sequence[int],
    plans: PlansManager,
    configuration: ConfigurationManager,
) -> np.ndarray:
    """Resample what `crop` has cut to nnU-Net's preprocessed grid.

    Args:
        soft: (F, *cropped) fractions of the foreground classes.
        properties: nnU-Net's properties of the case.
        shape: Spatial shape of nnU-Net's preprocessed array.
        plans: The plans.
        configuration: The configuration, whose resampling of probabilities (linear) is used.

    Returns:
        (F, *shape) float32 in [0, 1] with sums of at most 1.
    """
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
    stock: nnUNetBaseDataset  # nnU-Net's own preprocessed cases
    redo: str  # the command that makes them anew
    fusion: str
    plans_file: Path
    configuration: str
    num_classes: int


def _make(case: _Case, overwrite: bool) -> str:
    """Make one soft map unless it is up to date. Returns 'kept' or what was wrong before."""
    blosc2.set_nthreads(1)
    plans = PlansManager(str(case.plans_file))
    shape, properties = soft_maps.stock_properties(case.stock, case.name, redo=case.redo)
    grid = soft_maps.grid_of(shape, properties)
    expected = soft_maps.made_for(case.fusion, case.num_classes - 1, plans.transpose_forward, grid)
    expected["sources"] = soft_maps.digests(case.files)
    reason = "overwritten" if overwrite else soft_maps.why_not_current(case.out, expected, whole=True)
    if reason is None:
        return "kept"
    configuration = plans.get_configuration(case.configuration)
    masks = RaterMaps(list(case.files.values()), plans.image_reader_writer_class(), case.num_classes)
    full = tuple(properties["shape_before_cropping"][axis] for axis in plans.transpose_backward)
    masks.check(full, case.consensus)
    soft = crop(fuse(masks, method=case.fusion, num_classes=case.num_classes)[1:], properties, plans)
    maps = to_grid(soft, properties, shape, plans, configuration)
    blocks, chunks = comp_blosc2_params(maps.shape, tuple(configuration.patch_size), soft_maps.BITS // 8)
    stored = quantise(maps, bits=soft_maps.BITS)
    metadata = {
        **expected,
        "case": case.name,
        "fractional_raw": float(_between(soft, 1e-6, 1 - 1e-6).mean()),
        "fractional": float(_between(stored, 0, soft_maps.SCALE).mean()),
        "voxels": stored[0].size,
    }
    save_soft_map(case.out, maps, metadata=metadata, bits=soft_maps.BITS, chunks=chunks, blocks=blocks)
    return reason


def _between(soft: np.ndarray, low: float, high: float) -> np.ndarray:
    """Voxels where some class is between the two."""
    return np.any((soft > low) & (soft < high), axis=0)


def _read_plans(path: Path, dataset: str) -> PlansManager:
    """nnU-Net's plans, with everything in them that soft maps need."""
    todo = f"Run `nnUNetv2_plan_and_preprocess -d {dataset}`."
    if path.stem != "nnUNetPlans":
        todo = (
            f"Plan again, or make them with `nnunet-dml configure -d {dataset} -o {path.stem} --overwrite`."
        )
    content = read_json(path, todo=todo)
    try:
        plans = PlansManager(content)
        plans.image_reader_writer_class()
        _ = plans.transpose_forward, plans.transpose_backward
        for name in plans.available_configurations:
            it = plans.get_configuration(name)
            _ = it.data_identifier, it.spacing, it.patch_size, it.resampling_fn_probabilities
    except Exception as error:  # whatever goes wrong where something is missing
        found = soft_maps.first_line(error)
        raise InputError(problem(path, expected="nnU-Net's plans", found=found, todo=todo)) from None
    return plans


def _read_labels(path: Path, plans: PlansManager) -> tuple[dict[str, Any], int]:
    """The content of a dataset.json and its number of classes; refuses labels that soft maps cannot hold."""
    expected, todo = (
        "`labels` and `file_ending` as nnU-Net wants them",
        "Mend it or convert the data set again.",
    )
    content = read_json(path, todo=todo)
    try:
        labels = plans.get_label_manager(content)
        file_ending = content["file_ending"]
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        found = soft_maps.first_line(error)
        raise InputError(problem(path, expected=expected, found=found, todo=todo)) from None
    if not isinstance(file_ending, str):
        raise InputError(problem(path, expected=expected, found=f"file_ending {file_ending!r}", todo=todo))
    if labels.has_regions:
        reason = "fractions of overlapping regions are not defined"
        raise InputError(f"{path}: region-based labels are not supported yet: {reason}.")
    if labels.has_ignore_label:
        reason = "train with labels.source=hard"
        raise InputError(f"{path}: an ignore label together with soft labels is not supported yet; {reason}.")
    return content, len(labels.all_labels)


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
        cases with a single rater, shares of fractional voxels inside nnU-Net's bounding boxes.

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
    plans = _read_plans(plans_file, dataset)
    dataset_json, num_classes = _read_labels(raw / "dataset.json", plans)
    file_ending, listed = dataset_json["file_ending"], listed_raters(dataset_json)
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
    problems: list[str] = []
    for identifier, configuration in by_folder.items():
        folder = preprocessed / identifier
        cases = sorted(path.stem for path in folder.glob("*.pkl"))
        if not cases:
            todo = f"Run `nnUNetv2_plan_and_preprocess -d {dataset} -c {configuration}` first."
            raise InputError(
                problem(folder, expected="nnU-Net's preprocessed cases", found="none", todo=todo)
            )
        files: dict[str, dict[str, Path]] = {}
        for case in cases:
            try:
                files[case] = soft_maps.mask_files(raw, case, file_ending, listed.get(case))
            except InputError as error:
                problems += error.problems
            else:
                missing = [path for path in files[case].values() if not path.is_file()]
                problems += [problem(path, expected="a mask", found="no such file") for path in missing]
        redo = soft_maps.stock_command_for(raw.name, plans_name, configuration)
        stock = soft_maps.stock_dataset(folder, redo=redo)
        for fusion in fusions:
            out = soft_maps.folder(preprocessed, identifier, fusion)
            jobs[configuration, fusion] = [
                _Case(
                    case,
                    masks,
                    raw / "labelsTr" / f"{case}{file_ending}",
                    out / f"{case}.b2nd",
                    stock,
                    redo,
                    fusion,
                    plans_file,
                    configuration,
                    num_classes,
                )
                for case, masks in files.items()
            ]
    if problems:
        raise InputError(*dict.fromkeys(problems))
    for work in jobs.values():
        out = work[0].out.parent
        out.mkdir(parents=True, exist_ok=True)
        clear_leftovers(out)
    everything = [case for work in jobs.values() for case in work]
    did = each(partial(_make, overwrite=overwrite), everything, processes=num_processes, title="Soft labels")
    done = {case.out: reason for case, reason in zip(everything, did, strict=True)}
    return [_summary(work, done) for work in jobs.values()]


def _summary(work: list[_Case], done: dict[Path, str]) -> dict[str, Any]:
    metadata = [open_soft_map(case.out).metadata for case in work]
    did = [done[case.out] for case in work]
    voxels = [m["voxels"] for m in metadata]
    boxes = [np.prod([high - low for low, high in m["grid"]["bbox"]]) for m in metadata]
    return {
        "folder": work[0].out.parent,
        "configuration": work[0].configuration,
        "fusion": work[0].fusion,
        "cases": {reason: did.count(reason) for reason in sorted(set(did))},
        "without_raters": [case.name for case in work if list(case.files) == ["labelsTr"]],
        "single_rater": [
            case.name for case in work if len(case.files) == 1 and list(case.files) != ["labelsTr"]
        ],
        "fractional_raw": float(np.average([m["fractional_raw"] for m in metadata], weights=boxes)),
        "fractional": float(np.average([m["fractional"] for m in metadata], weights=voxels)),
    }
