"""The place of a new raw dataset among nnU-Net's folders."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import clear_leftovers
from nnunet_dml._folders import VARIABLES, environment_folder, folder_if_there


def dataset_folder(src: Path, dataset: str, *, overwrite: bool) -> Path:
    """Where the dataset goes; refuses a bad or taken name and a place that cannot be written."""
    match = re.fullmatch(r"(?:Dataset)?(\d{3})_([A-Za-z0-9][\w.-]*)", dataset, re.ASCII)
    if not match:
        expected = "three digits and a name of ASCII letters, digits, _, . and -, such as 501_BrainGrowth"
        raise InputError(problem("--dataset", expected=expected, found=repr(dataset)))
    raw = environment_folder("nnUNet_raw", must_exist=False)
    name = f"Dataset{match[1]}_{match[2]}"
    taken = [
        path
        for variable in VARIABLES
        if (folder := folder_if_there(variable))
        for path in sorted(folder.glob(f"Dataset{match[1]}*"))
        if path.name != name
    ]
    if taken:
        expected = f"id {match[1]} to be free or to belong to {name}"
        found = f"it is taken by {', '.join(map(str, taken))}"
        raise InputError(problem("--dataset", expected=expected, found=found, todo="Choose another id."))
    folder = raw / name
    clear_leftovers(raw, name)  # a killed run may have put the old data set aside: it comes back first
    if folder.exists() and not overwrite:
        todo = "Add --overwrite to replace it."
        raise InputError(problem(folder, expected="no dataset there yet", found="one", todo=todo))
    if folder.exists() and src.resolve().is_relative_to(folder.resolve()):
        todo = "Copy the source elsewhere first."
        raise InputError(
            problem(src, expected="a source outside the dataset to be replaced", found=str(folder), todo=todo)
        )
    parent = next(path for path in (raw, *raw.parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        found = "no permission" if parent.is_dir() else "a file"
        todo = "Change its permissions, or nnUNet_raw."
        raise InputError(problem(parent, expected="a folder to write to", found=found, todo=todo))
    return folder
