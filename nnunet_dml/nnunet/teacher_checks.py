"""Whether a teacher fits a student: the same labels and images, and no case that it may not have seen."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import read_json, read_splits
from nnunet_dml._folders import folder_if_there
from nnunet_dml.nnunet.options import KEY
from nnunet_dml.nnunet.targets import TargetLayout
from nnunet_dml.nnunet.teacher import OFFLINE, TeacherFold, locate

if TYPE_CHECKING:
    from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer

# normalisations that do not read the intensities of the whole data set
_OF_THE_CASE = {
    "ZScoreNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
}
_OF_THE_CONFIGURATION = (
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "preprocessor_name",
)


def check_teacher(folds: Sequence[TeacherFold], trainer: SoftLabelTrainer) -> None:
    """Refuse a teacher that cannot read the student's patches, or that has been trained on its validation cases.

    Args:
        folds: The teacher's.
        trainer: The student's, before its training starts.

    Raises:
        InputError: With all that is wrong, said once where it holds for several folds.
    """
    problems: list[str] = []
    for fold in folds:
        misfit = _misfit(fold, trainer.layout, trainer.dataset_json, trainer.plans_manager)
        problems += [*_confusion(fold, trainer), *(misfit or _other_images(fold, trainer))]
    if not problems:
        problems = _leakage(folds, trainer)
    if problems:
        raise InputError(*dict.fromkeys(problems))


def check_offline(
    folds: Sequence[TeacherFold],
    *,
    layout: TargetLayout,
    dataset_json: dict[str, Any],
    plans: PlansManager,
    held_back: set[str],
    fold: int | str,
    name: str,
) -> None:
    """Refuse a teacher that knows other labels or channels, has been trained on validation cases, or was taught by these maps.

    Args:
        folds: The teacher's.
        layout: The student's labels.
        dataset_json: The student's.
        plans: The student's.
        held_back: The validation cases of the student's fold; empty for fold `all`.
        fold: The student's.
        name: Of the maps that will be made.

    Raises:
        InputError: With all that is wrong, said once where it holds for several folds.
    """
    problems = []
    for teacher in folds:
        if (teacher.plans.plans.get(KEY, {}).get("teacher") or {}).get("maps") == name:
            found = f"one that was taught by the maps {name}: teacher and student are swapped"
            todo = "Give --teacher the teacher's folder, or another --name."
            problems.append(problem(teacher.path.parent.parent, expected="a teacher", found=found, todo=todo))
    problems += [it for teacher in folds for it in _misfit(teacher, layout, dataset_json, plans)]
    if not problems and held_back:
        problems = [
            it for teacher in folds for it in _why_unsafe(teacher, held_back, plans.dataset_name, fold)
        ]
    if problems:
        raise InputError(*dict.fromkeys(problems))


def _confusion(fold: TeacherFold, trainer: SoftLabelTrainer) -> list[str]:
    """Whether teacher and student are the same model, or each other's."""
    folder, own = fold.path.parent.parent, Path(trainer.output_folder_base or "").resolve()
    expected, todo = "another model than the student's own", "Set teacher.model to the teacher's folder."
    if folder.resolve() == own:
        return [
            problem(folder, expected=expected, found="the folder that the student is written to", todo=todo)
        ]
    taught_by = (fold.plans.plans.get(KEY, {}).get("teacher") or {}).get("model")
    if taught_by is not None and locate(taught_by, fold.name).resolve() == own:
        found = f"one that was taught by it ({taught_by}): teacher and student are swapped"
        return [problem(folder, expected=expected, found=found, todo=todo)]
    return []


def _misfit(fold: TeacherFold, own: TargetLayout, ours: dict[str, Any], plans: PlansManager) -> list[str]:
    """What no teacher can do, whatever it was fed with: another data set, other labels, other channels than a student's."""
    folder, problems = fold.path.parent.parent, []
    if fold.plans.dataset_name != plans.dataset_name:  # where a case of the same name may be another image
        todo = f"Train a teacher on {plans.dataset_name}."
        expected, found = f"a teacher of {plans.dataset_name}", f"one of {fold.plans.dataset_name}"
        return [problem(folder, expected=expected, found=found, todo=todo)]
    theirs = fold.dataset_json
    layout = TargetLayout.of(fold.plans.get_label_manager(theirs))
    todo = "Choose a teacher of the same labels."
    if (layout.regions is None) != (own.regions is None):
        kinds = "regions, which may overlap,", "labels, which exclude each other,"
        expected, found = kinds if layout.regions is None else kinds[::-1]
        expected = f"a teacher trained on {expected} as the student"
        problems.append(problem(folder, expected=expected, found=f"one of {found.rstrip(',')}", todo=todo))
    elif layout != own or theirs["labels"] != ours["labels"]:
        expected = f"a teacher of the student's labels {json.dumps(ours['labels'])}"
        problems.append(problem(folder, expected=expected, found=json.dumps(theirs["labels"]), todo=todo))
    readers = [it.plans.get("image_reader_writer") for it in (plans, fold.plans)]
    if readers[0] != readers[1]:
        expected = f"a teacher whose images were read as the student's are (image_reader_writer {readers[0]})"
        todo = (
            "Plan one of them anew with the other's reader (overwrite_image_reader_writer in dataset.json)."
        )
        problems.append(problem(folder, expected=expected, found=str(readers[1]), todo=todo))
    channels = [list((it.get("channel_names") or it.get("modality") or {}).values()) for it in (ours, theirs)]
    if channels[0] != channels[1]:
        expected, found = (", ".join(map(str, names)) for names in channels)
        todo = "Choose a teacher of the same images."
        problems.append(
            problem(folder, expected=f"a teacher of the channels {expected}", found=found, todo=todo)
        )
    return problems


def _other_images(fold: TeacherFold, trainer: SoftLabelTrainer) -> list[str]:
    """Why the student's patches are not what the teacher was trained on."""
    folder, problems = fold.path.parent.parent, []
    theirs, ours = fold.configuration, trainer.configuration_manager
    if len(theirs.patch_size) != len(ours.patch_size):
        expected, found = (f"{len(it.patch_size)}D patches" for it in (ours, theirs))
        return [problem(folder, expected=f"a teacher of {expected}", found=found, todo=OFFLINE)]
    stages = [it.previous_stage_name or "none" for it in (ours, theirs)]
    if stages[0] != stages[1]:
        expected = f"a teacher whose previous stage is the student's ({stages[0]})"
        todo = "Choose a teacher of the same stage of the cascade."
        return [problem(folder, expected=expected, found=stages[1], todo=todo)]
    read_by_us = _preprocessing(trainer.plans_manager, ours)
    read_by_them = _preprocessing(fold.plans, theirs)
    changed = [key for key, value in read_by_us.items() if not _same(value, read_by_them[key])]
    for key in changed:
        expected = f"the student's {key} ({_short(read_by_us[key])}) in the teacher's preprocessing"
        problems.append(problem(folder, expected=expected, found=_short(read_by_them[key]), todo=OFFLINE))
    strides = theirs.network_arch_init_kwargs.get("strides")
    if strides is not None:
        factors = [
            math.prod(_per_axis(step, len(ours.patch_size))[i] for step in strides)
            for i in range(len(ours.patch_size))
        ]
        if any(size % factor for size, factor in zip(ours.patch_size, factors, strict=True)):
            expected = f"a student's patch that the teacher's strides {factors} divide"
            found = str([int(size) for size in ours.patch_size])
            problems.append(problem(folder, expected=expected, found=found, todo=OFFLINE))
    return problems


def _preprocessing(plans: PlansManager, configuration: ConfigurationManager) -> dict[str, Any]:
    """What decides on the arrays that a network is fed with."""
    settings = {key: configuration.configuration.get(key) for key in _OF_THE_CONFIGURATION}
    settings["transpose_forward"] = list(plans.transpose_forward)
    read = not set(configuration.normalization_schemes) <= _OF_THE_CASE
    settings["foreground intensities"] = (
        plans.foreground_intensity_properties_per_channel if read else "not read"
    )
    return settings


def _per_axis(step: Any, axes: int) -> Sequence[int]:
    """A stride as nnU-Net writes it: a number or one per axis."""
    return [int(step)] * axes if isinstance(step, int) else [int(it) for it in step]


def _same(a: Any, b: Any) -> bool:
    """Whether two settings are equal; numbers to rounding."""
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-6)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) < 100 else f"{text[:100]} …"


def _leakage(folds: Sequence[TeacherFold], trainer: SoftLabelTrainer) -> list[str]:
    """Which folds have been trained on validation cases of the student, or may have been."""
    if trainer.fold == "all":  # it holds no case back
        return []
    held_back = {str(case) for case in trainer.do_split()[1]}
    name = trainer.plans_manager.dataset_name
    return [reason for fold in folds for reason in _why_unsafe(fold, held_back, name, trainer.fold)]


def _why_unsafe(fold: TeacherFold, held_back: set[str], dataset: str, student_fold: int | str) -> list[str]:
    where, mine = fold.path.parent, f"fold {student_fold} of {dataset}"
    expected = f"a teacher that was not trained on the validation cases of the student ({mine})"
    todo = "Choose its fold that held these cases back (teacher.folds=same for the student's own)."
    if fold.fold == "all":
        return [problem(where, expected=expected, found="one that was trained on all cases", todo=todo)]
    name = fold.plans.dataset_name
    split = _split(name, int(fold.fold))
    if split is not None and (seen := sorted(held_back & split[0])):
        found = f"{some(seen)} among the training cases of its fold in splits_final.json"
        return [problem(where, expected=expected, found=found, todo=todo)]
    # splits_final.json may be another one than at its training; what it was validated on it has not seen
    summary = where / "validation" / "summary.json"
    if not summary.is_file():
        found = f"no validation/{summary.name}, which says which cases it held back"
        todo = "Validate the teacher's fold (`nnUNetv2_train … --val`)."
        return [problem(where, expected=expected, found=found, todo=todo)]
    if unknown := sorted(held_back - _validated(summary, fold.dataset_json)):
        found = f"{some(unknown)} not among the cases that it was validated on ({summary.name})"
        return [problem(where, expected=expected, found=found, todo=todo)]
    return []


def _split(dataset: str, fold: int) -> tuple[set[str], set[str]] | None:
    """Training and validation cases of a fold in splits_final.json; None where it does not say."""
    preprocessed = folder_if_there("nnUNet_preprocessed")
    path = None if preprocessed is None else preprocessed / dataset / "splits_final.json"
    if path is None or not path.is_file():
        return None
    splits = read_splits(path)
    if fold >= len(splits):
        return None  # nnU-Net drew them at random
    return set(splits[fold]["train"]), set(splits[fold]["val"])


def _validated(summary: Path, dataset_json: dict[str, Any]) -> set[str]:
    """The cases that nnU-Net's validation of a fold has measured."""
    todo = "Validate the teacher's fold again (`nnUNetv2_train … --val`)."
    try:
        files = [
            Path(case["prediction_file"]).name for case in read_json(summary, todo=todo)["metric_per_case"]
        ]
    except (KeyError, TypeError):
        expected = "nnU-Net's summary of a validation"
        raise InputError(problem(summary, expected=expected, found="something else", todo=todo)) from None
    return {name.removesuffix(dataset_json["file_ending"]) for name in files}
