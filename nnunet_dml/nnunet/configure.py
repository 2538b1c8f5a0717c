"""Write a plans file with options: a new name, the same preprocessed data."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file
from nnunet_dml._folders import environment_folder, find_dataset
from nnunet_dml.nnunet.options import KEY, merge


def configure(
    dataset: str,
    *,
    source: str,
    target: str,
    options: dict[str, Any],
    configurations: Sequence[str] | None = None,
    batch_size: int | None = None,
    scale_features: float | None = None,
    features: Sequence[int] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the plans `target`: those of `source` with options and, if asked, another batch size or width.

    Args:
        dataset: Id or name.
        source: Plans identifier to start from.
        target: Plans identifier to write.
        options: Nested groups of options, merged over those of `source`.
        configurations: Which configurations get another batch size or width; None means all.
        batch_size: New batch size.
        scale_features: Factor on the channels of every stage (at least 1 channel is left).
        features: Channels of every stage.
        overwrite: Whether existing plans of that name may be replaced.

    Returns:
        The file written.

    Raises:
        InputError: Plans or configurations are missing, the name is taken, or a number is out of range.
    """
    folder = environment_folder("nnUNet_preprocessed")
    folder = find_dataset(dataset, folder)
    source_file, target_file = folder / f"{source}.json", folder / f"{target}.json"
    if not source_file.is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*lans*.json"))) or "none"
        raise InputError(
            problem(source_file, expected="nnU-Net's plans", found=f"no such file (there: {there})")
        )
    if not re.fullmatch(r"[\w.-]+", target):
        raise InputError(
            f"-o {target}: expected a plain name such as nnUNetPlans_uniform; it becomes part of folder names."
        )
    if target == source:
        raise InputError(
            f"-o {target}: expected another name than -p {source}; the plans of a name never change."
        )
    try:
        plans = json.loads(source_file.read_text(encoding="utf-8"))
        available = dict(plans["configurations"])
    except (ValueError, KeyError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise InputError(problem(source_file, expected="nnU-Net's plans", found=found)) from None
    chosen = list(configurations or available)
    for name in chosen:
        if name not in available:
            raise InputError(
                problem(source_file, expected=f"a configuration {name}", found=", ".join(available))
            )
    plans["plans_name"] = target
    plans[KEY] = merge(plans.get(KEY, {}), options)
    for name in chosen:
        _change_network(plans["configurations"][name], batch_size, scale_features, features, name)
    text = json.dumps(plans, indent=4)
    if target_file.exists() and not overwrite and target_file.read_text(encoding="utf-8") != text:
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


def _change_network(
    configuration: dict[str, Any],
    batch_size: int | None,
    scale_features: float | None,
    features: Sequence[int] | None,
    name: str,
) -> None:
    """Change batch size and width in place; a configuration that inherits them is left to its parent."""
    if batch_size is not None and "batch_size" in configuration:
        if batch_size < 1:
            raise InputError(f"--batch-size {batch_size}: expected at least 1.")
        configuration["batch_size"] = batch_size
    if "architecture" not in configuration or (scale_features is None and features is None):
        return
    arguments = configuration["architecture"]["arch_kwargs"]
    stages = arguments["features_per_stage"]
    if features is None:
        assert scale_features is not None
        if not scale_features > 0:
            raise InputError(f"--scale-features {scale_features}: expected a factor above 0.")
        features = [max(1, round(channels * scale_features)) for channels in stages]
    if len(features) != len(stages) or min(features) < 1:
        raise InputError(
            f"--features {list(features)}: expected {len(stages)} channels for {name}, as {stages}."
        )
    arguments["features_per_stage"] = list(features)
