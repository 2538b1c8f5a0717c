"""Write a plans file with options: a new name, the same preprocessed data."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file, read_json
from nnunet_dml._folders import environment_folder, find_dataset
from nnunet_dml.nnunet.option_groups import TEACHING, Options
from nnunet_dml.nnunet.options import KEY, complete, merge, validate
from nnunet_dml.nnunet.plan_changes import Changes

RESERVED = ("dataset", "dataset_fingerprint", "splits_final")
"""Other files of nnU-Net's beside plans."""


def configure(
    dataset: str,
    *,
    source: str,
    target: str,
    options: dict[str, Any],
    configurations: Sequence[str] | None = None,
    changes: Changes | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the plans `target`: those of `source` with options and, if asked, another batch size, width or network.

    Args:
        dataset: Id or name.
        source: Plans identifier to start from.
        target: Plans identifier to write.
        options: Nested groups of options, merged over those of `source`.
        configurations: Which configurations are changed; None means all that do not inherit what is changed.
        changes: Batch size, width, network, recipe; None changes nothing of these.
        overwrite: Whether existing plans of that name may be replaced.

    Returns:
        The file written.

    Raises:
        InputError: Plans or configurations are missing or damaged, the name is taken, a number is out of range, an
            option would change nothing, the options of both are bad together, or their teacher has not been trained.
    """
    changes = changes or Changes()
    changes.check(configurations)
    folder = environment_folder("nnUNet_preprocessed")
    folder = find_dataset(dataset, folder)
    source_file, target_file = folder / f"{source}.json", folder / f"{target}.json"
    if not source_file.is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*lans*.json"))) or "none"
        raise InputError(
            problem(source_file, expected="nnU-Net's plans", found=f"no such file (there: {there})")
        )
    if not re.fullmatch(r"\w[\w.-]*", target) or target in RESERVED:
        why = "nnU-Net has a file of that name" if target in RESERVED else "it becomes part of folder names"
        raise InputError(f"-o {target}: expected a plain name such as nnUNetPlans_uniform; {why}.")
    if target == source:
        raise InputError(
            f"-o {target}: expected another name than -p {source}; the plans of a name never change."
        )
    plans = read_json(source_file, todo=f"Plan data set {dataset} again with nnU-Net.")
    available = plans.get("configurations")
    if not isinstance(available, dict) or not all(isinstance(it, dict) for it in available.values()):
        found = f"configurations {available!r}"
        raise InputError(problem(source_file, expected="nnU-Net's plans", found=found))
    for name in configurations or ():
        if name not in available:
            expected, found = f"a configuration {name}", ", ".join(available)
            raise InputError(problem(source_file, expected=expected, found=found))
    plans["plans_name"] = target
    described = read_json(folder / "dataset.json") if (folder / "dataset.json").is_file() else {}
    options = merge(changes.options(plans, described), options)
    plans[KEY] = _merged(plans.get(KEY, {}), options, source_file)
    if "loss" in plans[KEY] and (folder / "dataset.json").is_file():
        _check_against_labels(plans, folder / "dataset.json", where=f"-o {target}")
    _check_teacher(plans[KEY], folder.name, chosen=options.get("teacher", {}), where=f"-o {target}")
    changes.apply(available, configurations, source_file)
    text = json.dumps(plans, indent=4)
    if target_file.exists() and not _may_be_plans(target_file):
        todo = "Move it away or give another -o."
        raise InputError(problem(target_file, expected="plans or no file", found="something else", todo=todo))
    if target_file.exists() and not overwrite and target_file.read_bytes() != text.encode():
        raise InputError(
            problem(
                target_file,
                expected="a new plans name",
                found="other plans",
                todo="Give another -o, or --overwrite.",
            )
        )
    with atomic_file(target_file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target_file


def _may_be_plans(path: Path) -> bool:
    """Whether a file holds plans, or is damaged, which `preprocess` says to replace."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return True
    return isinstance(content, dict) and "configurations" in content


def _merged(own: Any, options: dict[str, Any], source_file: Path) -> dict[str, Any]:
    """The options of plans with others over them, checked together."""
    if not isinstance(own, dict):
        found = type(own).__name__
        raise InputError(problem(source_file, expected=f"an object of options as {KEY!r}", found=found))
    merged = complete(_without_other_teacher(own, options), options)
    try:
        Options.model_validate(merged)  # what only one trainer reads is that trainer's to refuse
    except ValidationError as error:
        raise InputError(
            *(
                problem(
                    source_file,
                    expected="valid options together with those of --set",
                    found=".".join([KEY, *map(str, detail["loc"])]) + f" = {detail['input']!r}",
                    todo=detail["msg"].removesuffix(".") + ".",
                )
                for detail in error.errors()
            )
        ) from None
    return merged


def _check_against_labels(plans: dict[str, Any], dataset_json: Path, *, where: str) -> None:
    """Refuse options that do not fit the data set's labels; a training would, too."""
    # nnU-Net takes seconds to import, which most plans don't need
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_dml.nnunet.option_checks import check_against_labels
    from nnunet_dml.nnunet.soft_maps import resolve_source
    from nnunet_dml.nnunet.targets import TargetLayout

    content = read_json(dataset_json)
    options = Options.model_validate(plans[KEY])
    try:
        with redirect_stdout(io.StringIO()):  # nnU-Net says which label manager it takes
            layout = TargetLayout.of(PlansManager(plans).get_label_manager(content))
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return  # plans or labels that nnU-Net refuses at the training's start, with its own words
    source = resolve_source(options.labels.source, content, dataset_json)
    check_against_labels(options, source, layout, where=where)


def _without_other_teacher(own: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options of plans, without a model as teacher where maps are chosen now, and the other way round."""
    chosen, before = options.get("teacher", {}), own.get("teacher", {})
    if not isinstance(before, dict):
        return own  # which is refused later
    dropped = ("maps",) if chosen.get("model") else TEACHING if chosen.get("maps") else ()
    return (
        {**own, "teacher": {key: it for key, it in before.items() if key not in dropped}} if before else own
    )


def _check_teacher(options: dict[str, Any], dataset: str, *, chosen: dict[str, Any], where: str) -> None:
    """Refuse a teacher that has not been trained, or on other data, and options that nothing reads.

    Whether it fits is seen at the training's start.
    """
    teacher = validate({"teacher": options.get("teacher", {})}, where=where).teacher
    unread = [f"teacher.{name}" for name in chosen if name not in ("model", "maps")]
    if unread and teacher.model is None and teacher.maps is None:
        expected, todo = f"a teacher for {', '.join(unread)}", "Give --teacher, or --set teacher.maps=NAME."
        raise InputError(problem(where, expected=expected, found="none", todo=todo))
    if teacher.model is None:
        return
    from nnunet_dml.nnunet.teacher import locate, meant, trained_folds  # slow: nnU-Net

    for folder in meant(teacher.model) or [locate(teacher.model)]:
        there = trained_folds(folder, teacher.checkpoint)
        asked = [] if teacher.folds == "same" else [str(it) for it in teacher.folds]
        if missing := [it for it in asked if it not in there]:
            expected, found = f"fold {', '.join(missing)} of the teacher", f"folds {', '.join(there)}"
            todo = "Train it, or choose others (--teacher-folds)."
            raise InputError(problem(folder, expected=expected, found=found, todo=todo))
        plans = folder / "plans.json"
        name = read_json(plans).get("dataset_name", dataset) if plans.is_file() else dataset
        if name != dataset:
            todo = f"Train a teacher on {dataset}."
            raise InputError(
                problem(folder, expected=f"a teacher of {dataset}", found=f"one of {name}", todo=todo)
            )
