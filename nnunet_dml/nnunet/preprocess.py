"""Maps of every case on nnU-Net's own grid, beside nnU-Net's own preprocessed arrays.

For every case that nnU-Net has preprocessed, a source of labels (a fusion of the raters' masks, the masks themselves, the
user's own soft map) is taken the way nnU-Net takes its labels: transpose, crop to the stored bounding box, resample to the
stored shape. The result stands in `<data_identifier>_soft/<source>/<case>.b2nd`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import clear_leftovers, read_json
from nnunet_dml._folders import environment_folder, find_dataset, label_numbers, listed_raters
from nnunet_dml._images import ending_of_dataset
from nnunet_dml._parallel import each
from nnunet_dml.labels.storage import open_soft_map
from nnunet_dml.nnunet import soft_maps, unlabelled, user_maps
from nnunet_dml.nnunet.map_making import Case, make


def read_plans(path: Path, dataset: str) -> PlansManager:
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
        forward, backward = plans.transpose_forward, plans.transpose_backward
        if not sorted(forward) == sorted(backward) == [forward[axis] for axis in backward] == [0, 1, 2]:
            raise ValueError(
                "transpose_forward and transpose_backward that are no orders of three axes and back"
            )
        for name in plans.available_configurations:
            it = plans.get_configuration(name)
            _check_configuration(name, it.data_identifier, it.spacing, it.patch_size)
            _ = it.resampling_fn_probabilities
    except Exception as error:  # whatever goes wrong where something is missing
        found = soft_maps.first_line(error)
        raise InputError(problem(path, expected="nnU-Net's plans", found=found, todo=todo)) from None
    return plans


def _check_configuration(name: str, data_identifier: Any, spacing: Any, patch_size: Any) -> None:
    """Raise `ValueError` unless they are what nnU-Net plans: a plain name, and numbers above 0 for two or three axes."""
    if not isinstance(data_identifier, str) or not re.fullmatch(r"[^/\\\0]+", data_identifier.strip(".")):
        raise ValueError(f"data_identifier {data_identifier!r} in {name}")
    for key, values, kinds in (("spacing", spacing, (int, float)), ("patch_size", patch_size, (int,))):
        if not (
            isinstance(values, list)
            and 2 <= len(values) <= 3
            and all(type(it) in kinds and 0 < it < 1e6 for it in values)
        ):
            raise ValueError(f"{key} {values!r} in {name}")


def read_labels(path: Path, plans: PlansManager) -> tuple[LabelManager, str, dict[str, list[str]]]:
    """A dataset.json's labels, file ending and raters by case."""
    expected, todo = "`labels` as nnU-Net wants them", "Mend it or convert the data set again."
    content = read_json(path, todo=todo)
    try:
        for value in content["labels"].values():
            label_numbers(value)
        labels = plans.get_label_manager(content)
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        found = soft_maps.first_line(error)
        raise InputError(problem(path, expected=expected, found=found, todo=todo)) from None
    if labels.all_labels != list(range(len(labels.all_labels))):
        found = ", ".join(map(str, labels.all_labels))
        raise InputError(problem(path, expected="labels 0, 1, 2, …", found=found, todo="Renumber them."))
    return labels, ending_of_dataset(content, path), listed_raters(content, path)


def default_fusions(dataset: str) -> tuple[str, ...]:
    """What `preprocess` makes where nobody says: none for a data set of unlabelled images without raters."""
    raw = find_dataset(dataset, environment_folder("nnUNet_raw"))
    hard = unlabelled.has_images(dataset) and not (raw / "ratersTr").is_dir()
    return () if hard else (soft_maps.DEFAULT_FUSION,)


class Arrays(NamedTuple):
    """A data set's folders, its plans, and the configurations whose arrays are wanted."""

    raw: Path
    preprocessed: Path
    plans_file: Path
    plans: PlansManager
    configurations: dict[str, str]  # one configuration by the name of its arrays, which several may share


def find_arrays(dataset: str, plans_name: str, configurations: Sequence[str] | None) -> Arrays:
    """Find a data set and its preprocessed arrays.

    Args:
        dataset: Id or name.
        plans_name: nnU-Net's plans identifier.
        configurations: Names such as `2d`; None takes all configurations that nnU-Net has preprocessed.

    Raises:
        InputError: Folders, plans or configurations are missing or bad.
    """
    raw = find_dataset(dataset, environment_folder("nnUNet_raw"))
    preprocessed = environment_folder("nnUNet_preprocessed") / raw.name
    plans_file = preprocessed / f"{plans_name}.json"
    if not plans_file.is_file():
        todo = f"Run `nnUNetv2_plan_and_preprocess -d {dataset}` first, or give -p."
        raise InputError(problem(plans_file, expected="nnU-Net's plans", found="no such file", todo=todo))
    plans = read_plans(plans_file, dataset)
    available = plans.available_configurations
    by_folder: dict[str, str] = {}
    for name in configurations or available:
        if name not in available:
            expected, found = f"a configuration {name}", ", ".join(available)
            raise InputError(problem(plans_file, expected=expected, found=found))
        identifier = plans.get_configuration(name).data_identifier
        if configurations or (preprocessed / identifier).is_dir():
            by_folder.setdefault(identifier, name)
    return Arrays(raw, preprocessed, plans_file, plans, by_folder)


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
        fusions: Sources of labels, each with maps of its own: `soft_maps.SOURCES`.
        num_processes: Worker processes.
        overwrite: Whether to make up-to-date maps anew.

    Returns:
        One row per configuration and fusion: its folder, counts of cases by what was done, cases without raters,
        cases with a single rater, shares of fractional voxels inside nnU-Net's bounding boxes.

    Raises:
        InputError: Folders, plans, cases or raters are missing or bad; all of them are named.
    """
    for fusion in fusions:
        if fusion not in soft_maps.SOURCES:
            raise InputError(
                problem("--fusion", expected=f"one of {', '.join(soft_maps.SOURCES)}", found=fusion)
            )
    raw, preprocessed, plans_file, plans, by_folder = find_arrays(dataset, plans_name, configurations)
    labels, file_ending, listed = read_labels(raw / "dataset.json", plans)
    jobs: dict[tuple[str, str], list[Case]] = {}
    problems: list[str] = []
    missing: dict[tuple[Path, str], list[str]] = {}
    for identifier, configuration in by_folder.items():
        folder = preprocessed / identifier
        names = sorted(path.stem for path in folder.glob("*.pkl"))
        if not names:
            todo = f"Run `nnUNetv2_plan_and_preprocess -d {dataset} -c {configuration}` first."
            raise InputError(
                problem(folder, expected="nnU-Net's preprocessed cases", found="none", todo=todo)
            )
        redo = soft_maps.stock_command_for(raw.name, plans_name, configuration)
        stock = soft_maps.stock_dataset(folder, redo=redo)
        for fusion in fusions:
            out = soft_maps.folder(preprocessed, identifier, fusion)
            for place in (out.parent, out):
                if place.exists() and not place.is_dir():
                    todo = "Remove it or move it away."
                    problems.append(problem(place, expected="a folder or none", found="a file", todo=todo))
            work = jobs[configuration, fusion] = []
            for name in names:
                try:
                    files = soft_maps.source_files(
                        raw, name, file_ending, listed.get(name), fusion, ignore=labels.has_ignore_label
                    )
                except InputError as error:
                    problems += error.problems
                    continue
                for path in files.values():
                    if not path.is_file():
                        missing.setdefault((path.parent, fusion), []).append(path.name)
                work.append(
                    Case(
                        name=name,
                        source=fusion,
                        files=files,
                        consensus=raw / "labelsTr" / f"{name}{file_ending}",
                        out=out / f"{name}.b2nd",
                        stock=stock,
                        redo=redo,
                        plans_file=plans_file,
                        configuration=configuration,
                        num_classes=len(labels.all_labels),
                        ignore_label=labels.ignore_label,
                    )
                )
    for (folder, fusion), names in missing.items():
        expected, todo = "a mask of every case", "Restore them."
        if fusion == "file" and folder.name == user_maps.FOLDER:
            expected, todo = "a soft map of every case", "Write them, or choose another --fusion."
        names = list(dict.fromkeys(names))
        problems.append(problem(folder, expected=expected, found=f"no {some(names)}", todo=todo))
    if problems:
        raise InputError(*dict.fromkeys(problems))
    for work in jobs.values():
        out = work[0].out.parent
        out.mkdir(parents=True, exist_ok=True)
        clear_leftovers(out)
    everything = [case for work in jobs.values() for case in work]
    work_on = partial(make, overwrite=overwrite)
    try:
        did = each(work_on, everything, processes=num_processes, title="Soft labels")
    except BaseException:
        for out in {work[0].out.parent for work in jobs.values()}:
            with suppress(OSError):  # those that hold something stay
                out.rmdir()
                out.parent.rmdir()
        raise
    done = {case.out: reason for case, reason in zip(everything, did, strict=True)}
    return [_summary(work, done) for work in jobs.values()]


def _summary(work: list[Case], done: dict[Path, str]) -> dict[str, Any]:
    metadata = [open_soft_map(case.out).metadata for case in work]
    did = [done[case.out] for case in work]
    voxels = [m["voxels"] for m in metadata]
    boxes = [np.prod([high - low for low, high in m["grid"]["bbox"]]) for m in metadata]
    return {
        "folder": work[0].out.parent,
        "configuration": work[0].configuration,
        "fusion": work[0].source,
        "cases": {reason: did.count(reason) for reason in sorted(set(did))},
        "without_raters": [case.name for case in work if list(case.files) == ["labelsTr"]],
        "single_rater": [
            case.name for case in work if len(case.files) == 1 and not {"labelsTr", "file"} & set(case.files)
        ],
        "fractional_raw": float(np.average([m["fractional_raw"] for m in metadata], weights=boxes)),
        "fractional": float(np.average([m["fractional"] for m in metadata], weights=voxels)),
    }
