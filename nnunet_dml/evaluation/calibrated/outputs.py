"""Folders of calibrated predictions: whose they are, and what was done already."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file, clear_leftovers, read_json

RECORD = "nnunet_dml_calibrated.json"
DESCRIPTIONS = ("dataset.json", "plans.json")  # nnU-Net's, beside predictions and models


def check(output: Path, record: dict[str, Any], *, inputs: Path) -> None:
    """Find out before the work whether a folder can be written to; nothing is made, what a killed run left is removed.

    Args:
        output: The folder.
        record: What makes its content: the same record, the same files.
        inputs: Where the predictions or images come from.

    Raises:
        InputError: The folder is the input's, holds other files, or predictions that were calibrated in another way.
    """
    where = f"-o {output}"
    if output.resolve() == inputs.resolve():
        raise InputError(problem(where, expected="another folder than the input", found="the same"))
    if output.exists() and not output.is_dir():
        raise InputError(problem(where, expected="a folder", found="a file"))
    clear_leftovers(output)
    path = output / RECORD
    todo = "Give a new folder, or remove this one."
    if path.is_file():
        if read_json(path, todo=todo) != record:
            found = "ones that were calibrated in another way or come from elsewhere"
            expected = "no predictions, or those of the same command"
            raise InputError(problem(where, expected=expected, found=found, todo=todo))
    elif output.is_dir() and any(output.iterdir()):
        raise InputError(problem(where, expected="an empty folder", found="one in use", todo=todo))


def claim(output: Path, record: dict[str, Any], *, inputs: Path) -> None:
    """Make an output folder, or go on in one that was made by the same command; see `check`."""
    check(output, record, inputs=inputs)
    output.mkdir(parents=True, exist_ok=True)
    with atomic_file(output / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def state(source: Path) -> bytes:
    """Size and time of a file, as they are noted in the `.npz` that is made of it, as the comment of the archive."""
    found = source.stat()
    return json.dumps([found.st_size, found.st_mtime_ns]).encode()


def up_to_date(made: Path, source: Path) -> bool:
    """Whether an `.npz` is there, whole, and was made of the source as it is now."""
    try:
        with ZipFile(made) as archive:
            return archive.comment == state(source)
    except Exception:  # zipfile raises whatever it does
        return False


def describe_folder(output: Path, *folders: Path) -> None:
    """Put nnU-Net's dataset.json and plans.json, from the first folder that has them, beside predictions."""
    for name in DESCRIPTIONS:
        for folder in folders:
            if (folder / name).is_file():
                with atomic_file(output / name) as temporary:
                    shutil.copyfile(folder / name, temporary)
                break
