"""The formats of image files, by the endings of their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError, problem

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")  # those of nnU-Net
PICTURES = (".png", ".bmp", ".tif", ".tiff")  # no geometry that nnU-Net would read; RGB stays in one file


def split_ending(name: str) -> tuple[str, str]:
    """A file's name without its ending, and the ending in lower case; "" where nnU-Net cannot read it.

    >>> split_ending("case.1.nii.gz"), split_ending("notes.txt")
    (('case.1', '.nii.gz'), ('notes.txt', ''))
    """
    for ending in ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)], ending
    return name, ""


def ending_of_dataset(dataset_json: Mapping[str, Any], path: Path) -> str:
    """The `file_ending` of a data set.

    Args:
        dataset_json: What its dataset.json holds.
        path: That file, for the message.

    Raises:
        InputError: It is missing or none of nnU-Net's.
    """
    ending = dataset_json.get("file_ending")
    if not isinstance(ending, str) or ending not in ENDINGS:
        expected = "one of nnU-Net's endings as `file_ending`"
        todo = "Mend it or convert the data set again."
        raise InputError(problem(path, expected=expected, found=repr(ending), todo=todo))
    return ending
