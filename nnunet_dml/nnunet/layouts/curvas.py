"""Layout `curvas`: `UKCHLL001/image.nii.gz`, `annotation_1.nii.gz`, …, as in CURVAS (three raters of a CT)."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from nnunet_dml._images import split_ending
from nnunet_dml.nnunet.layouts.cases import (
    Found,
    add_case,
    by_name,
    channels,
    files_below,
    one_folder_each,
)
from nnunet_dml.nnunet.layouts.signs import misread

LABELS = {"pancreas": 1, "kidney": 2, "liver": 3}


def find(src: Path) -> Found:
    """Folders at any depth that hold `image.*` and `annotation_N.*`.

    Raises:
        InputError: There are none.
    """
    found = Found("curvas", labels=LABELS, channel_names=("CT",))
    images: dict[Path, dict[Path, int | None]] = defaultdict(dict)
    masks: dict[Path, list[tuple[str, Path]]] = defaultdict(list)
    for path in files_below(src):
        stem, ending = split_ending(path.name)
        if ending and stem == "image":
            images[path.parent][path] = None
        elif ending and re.fullmatch(r"annotation_\d+", stem):
            masks[path.parent].append((stem, path))
        else:
            found.ignored.append(path)
    if not masks:
        misread(src, "case folders with image.* and annotation_1.*, annotation_2.*, …", "curvas")
    folders = by_name({*images, *masks})
    one_folder_each(found, src, folders)
    for name, paths in folders.items():
        for folder in paths:
            add_case(found, name, channels(found, images[folder]), masks[folder], folder, "annotation_N.*")
    return found
