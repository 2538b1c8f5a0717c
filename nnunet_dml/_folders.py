"""nnU-Net's three folders and the data sets in them, found as nnU-Net finds them."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_dml._checks import InputError

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def environment_folder(variable: str) -> Path:
    """The folder that an environment variable of nnU-Net names.

    Raises:
        InputError: The variable is unset, or names no folder.
    """
    value = os.environ.get(variable)
    if not value:
        raise InputError(f"{variable}: expected a folder, found the variable unset. Run `export {variable}=FOLDER`.")
    folder = Path(value)
    if not folder.is_dir():
        raise InputError(f"{variable}: expected a folder, found no folder {folder}. Make it or export another one.")
    return folder


def find_dataset(name_or_id: str | int, root: Path) -> Path:
    """The folder of a data set, given as `501`, `501_Name` or `Dataset501_Name`.

    Raises:
        InputError: None or several match; those that exist are named.
    """
    text = str(name_or_id)
    there = sorted(path.name for path in root.glob("Dataset*") if path.is_dir())
    if text.isdigit():
        matches = [name for name in there if name.startswith(f"Dataset{int(text):03d}_")]
    else:
        matches = [name for name in there if name in (text, f"Dataset{text}")]
    if len(matches) == 1:
        return root / matches[0]
    if matches:
        raise InputError(f"{root}: expected one data set of id {text}, found {', '.join(matches)}. Remove or rename one.")
    found = ", ".join(there) or "none"
    raise InputError(f"{root}: expected a data set {text}, found {found}. Check the id or name and the folder's variable.")
