"""nnU-Net's three folders and the data sets in them, found as nnU-Net finds them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError, problem

PLUGIN = Path(__file__).parent / "plugin"  # what nnUNet_extTrainer points at
MADE_BY = {
    "nnUNet_raw": "`nnunet-dml convert`",
    "nnUNet_preprocessed": "`nnUNetv2_plan_and_preprocess -d ID`",
    "nnUNet_results": "the first training",
}
VARIABLES = tuple(MADE_BY)
FORMAT = 1  # of the block "nnunet_dml" in dataset.json


def environment_folder(variable: str, *, must_exist: bool = True) -> Path:
    """The folder that an environment variable of nnU-Net names.

    Args:
        variable: One of `VARIABLES`.
        must_exist: Whether the folder has to be there already.

    Raises:
        InputError: The variable is unset, or names no folder.
    """
    value = os.environ.get(variable)
    if not value:
        todo = f"Run `export {variable}=FOLDER`."
        raise InputError(problem(variable, expected="a folder in this variable", found="it unset", todo=todo))
    folder = Path(value)
    if must_exist and not folder.is_dir():
        todo = "Make it or export another one."
        raise InputError(problem(variable, expected="a folder", found=f"no folder {folder}", todo=todo))
    return folder


def folder_if_there(variable: str) -> Path | None:
    """The folder that an environment variable of nnU-Net names; None where it is unset or names no folder."""
    folder = Path(os.environ.get(variable) or os.devnull)
    return folder if folder.is_dir() else None


def find_dataset(name_or_id: str | int, root: Path) -> Path:
    """The folder of a data set, given as `501`, `501_Name` or `Dataset501_Name`.

    Raises:
        InputError: None or several match; those that exist are named.
    """
    text = str(name_or_id)
    there = sorted(path.name for path in root.glob("Dataset*") if path.is_dir())
    if text.isdecimal():
        matches = [name for name in there if name.startswith(f"Dataset{text.lstrip('0').zfill(3)}_")]
    else:
        matches = [name for name in there if name in (text, f"Dataset{text}")]
    if len(matches) == 1:
        return root / matches[0]
    if matches:
        expected, found = f"one data set of id {text}", " and ".join(matches)
        raise InputError(problem(root, expected=expected, found=found, todo="Remove or rename one."))
    found = ", ".join(there) or "none at all"
    todo = "Check the id or name, and the folder's variable."
    for variable, maker in MADE_BY.items():
        if folder_if_there(variable) == root:
            todo += f" In {variable} it is made by {maker}."
    raise InputError(problem(root, expected=f"a data set {text[:80]}", found=found, todo=todo))


def rater_files(raw_folder: Path, case: str, file_ending: str) -> dict[str, Path]:
    """The mask files of a case in a raw data set, by rater and in their order; empty where it has none."""
    return {
        path.name.removesuffix(file_ending): path
        for path in sorted((raw_folder / "ratersTr" / case).glob(f"*{file_ending}"))
        if not path.name.startswith(".")
    }


def own_block(dataset_json: Mapping[str, Any], path: str | Path = "dataset.json") -> dict[str, Any]:
    """What `nnunet-dml convert` noted in dataset.json; nothing where it did not.

    Args:
        dataset_json: What the file holds.
        path: The file, for the message.

    Raises:
        InputError: It is of another kind or format.
    """
    block = dataset_json.get("nnunet_dml", {})
    found = block.get("format", FORMAT) if isinstance(block, dict) else block
    if not isinstance(block, dict) or type(found) is not int or found != FORMAT:
        expected, todo = f"a block of format {FORMAT}", "Convert the data set again, or update nnunet-dml."
        where = f"nnunet_dml in {path}"
        raise InputError(problem(where, expected=expected, found=f"{found!r:.80}", todo=todo))
    return block


def listed_raters(dataset_json: Mapping[str, Any], path: str | Path = "dataset.json") -> dict[str, list[str]]:
    """Each case's raters as `nnunet-dml convert` noted them in dataset.json; empty where it did not.

    Args:
        dataset_json: What the file holds.
        path: The file, for the message.

    Raises:
        InputError: Something else than names is listed, or see `own_block`.
    """
    block = own_block(dataset_json, path)
    try:
        listed = {case: list(entry["raters"]) for case, entry in block["cases"].items()}
    except (KeyError, TypeError, AttributeError):
        return {}
    for case, raters in listed.items():
        if not all(isinstance(it, str) for it in raters):
            where, todo = f"nnunet_dml.cases.{case}.raters in {path}", "Convert the data set again."
            raise InputError(problem(where, expected="names of raters", found=repr(raters), todo=todo))
    return listed


def label_numbers(value: Any) -> tuple[int, ...]:
    """The integers of a label or of a region, as dataset.json has them.

    Raises:
        TypeError: It is neither a number nor a list of some.
        ValueError: There are other numbers than whole ones of at least 0, or none.
    """
    numbers = value if isinstance(value, list) else [value]
    if not numbers or any(isinstance(it, bool) or int(it) != it or it < 0 for it in numbers):
        raise ValueError(f"label {value!r} is not an integer of at least 0")
    return tuple(dict.fromkeys(int(it) for it in numbers))


def all_rater_files(
    raw_folder: Path, case: str, file_ending: str, listed: list[str] | None
) -> dict[str, Path]:
    """The mask files of a case, none missing and none too many; see `rater_files`, `listed_raters`.

    Raises:
        InputError: There are others than those listed.
    """
    files = rater_files(raw_folder, case, file_ending)
    if listed is None or set(files) == set(listed):
        return files
    folder = raw_folder / "ratersTr" / case
    expected = f"the raters {', '.join(listed)} that dataset.json lists for {case}"
    todo = (
        "Restore the masks or convert the data set again; "
        f"where this is meant, change nnunet_dml.cases.{case}.raters in dataset.json."
    )
    raise InputError(problem(folder, expected=expected, found=", ".join(files) or "none", todo=todo))
