"""The archives of KiTS: `case_00000/imaging.nii.gz` with one segmentation (2019, 2023) or several annotations (2021).

In 2021 each instance (a kidney, a tumour, a cyst) was marked three times, and number N is not the same person from one
instance to the next. So rater N here is a combination: each instance as its annotation N has it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._images import read, read_mask, split_ending
from nnunet_dml.nnunet.layouts.cases import (
    Found,
    Made,
    Source,
    add_case,
    by_name,
    check_folder,
    files_below,
    one_folder_each,
)
from nnunet_dml.nnunet.layouts.signs import misread

LABELS = {"kidney": 1, "tumour": 2, "cyst": 3}
MASKS = ("auto", "annotations", "segmentation", "majority")
_ORDER = {
    "kidney": 1,
    "cyst": 3,
    "tumor": 2,
}  # what comes later lies on top, as in the challenge's own aggregation
_INSTANCE = re.compile(r"(kidney|cyst|tumor)_instance-(\d+)_annotation-(\d+)")
_ANNOTATIONS = "segmentations/*_annotation-N.nii.gz"
_FILES = {"segmentation": "segmentation", "majority": "aggregated_MAJ_seg"}

Instances = Mapping[tuple[str, int], Mapping[int, Path]]  # (structure, number) → annotation → file


@dataclass(frozen=True)
class Combination(Made):
    """A label map of several instances' masks; those behind lie on top."""

    instances: tuple[tuple[Path, int], ...]
    """File and value."""

    def read(self) -> sitk.Image:
        """Put the instances together, with the first one's header."""
        first = self.instances[0][0]
        labels: np.ndarray | None = None
        for path, value in self.instances:
            mask, _ = read_mask(path)
            if labels is None:
                labels = np.zeros(mask.shape, np.uint8)
            if mask.shape != labels.shape:
                expected = f"size {labels.shape[::-1]} of {first}"
                raise InputError(problem(path, expected=expected, found=str(mask.shape[::-1])))
            if (low := mask.min()) < 0 or (high := mask.max()) > 1:
                expected = "an instance's mask of 0 and 1"
                raise InputError(problem(path, expected=expected, found=f"{low if low < 0 else high}"))
            labels[mask == 1] = value
        assert labels is not None
        image = sitk.GetImageFromArray(labels)
        image.CopyInformation(read(first))
        return image

    def parts(self) -> tuple[Path, ...]:
        """The instances' files."""
        return tuple(path for path, _ in self.instances)

    def record(self, src: Path) -> list[str]:
        """The names of the instances' files."""
        return [path.relative_to(src).as_posix() for path, _ in self.instances]


def find(src: Path, *, masks: str = "auto") -> Found:
    """Folders `case_NNNNN` at any depth.

    Args:
        src: The folder.
        masks: `segmentation` (2019, 2023), `annotations` (2021, as raters), `majority` (2021's `aggregated_MAJ_seg`), or
            `auto`: annotations where there is a folder `segmentations`, else the segmentation.

    Raises:
        InputError: There are none, or no folder.
    """
    check_folder(src, "a folder with case_00000/imaging.nii.gz and masks")
    folders: dict[Path, dict[str, Path]] = defaultdict(dict)
    instances: dict[Path, dict[tuple[str, int], dict[int, Path]]] = defaultdict(lambda: defaultdict(dict))
    ignored = []
    official = False
    for path in files_below(src):
        stem, ending = split_ending(path.name)
        match = _INSTANCE.fullmatch(stem)
        inside = path.parent.name in ("segmentations", "instances")
        case = path.parent.parent if inside else path.parent
        if not re.fullmatch(r"case_\d{5}", case.name) or ending not in (".nii", ".nii.gz"):
            ignored.append(path)
        elif inside and match:
            instances[case][match[1], int(match[2])][int(match[3])] = path
            official |= path.parent.name == "segmentations"
        elif not inside and stem in ("imaging", *_FILES.values()):
            folders[case][stem] = path
        else:
            ignored.append(path)
    named = by_name({*folders, *instances})
    cases = [case for paths in named.values() for case in paths]
    if not cases:
        misread(
            src,
            "case_00000/imaging.nii.gz, segmentation.nii.gz or segmentations/*_annotation-1.nii.gz",
            "kits",
        )
    if masks == "auto":
        masks = "annotations" if official else "segmentation"
    found = Found(
        "kits", labels=LABELS, channel_names=("CT",), single=masks != "annotations", ignored=ignored
    )
    one_folder_each(found, src, named)
    unmarked, lacking = [], []
    for case in cases:
        files, name = folders[case], case.name
        if masks == "annotations":
            pattern, rows = _ANNOTATIONS, _raters(case, instances[case])
            if any(len(it) < len(rows) for it in instances[case].values()):
                lacking.append(name)
        else:
            pattern = f"{_FILES[masks]}.nii.gz"
            rows = [("reference", files[_FILES[masks]])] if _FILES[masks] in files else []
        image = (files["imaging"],) if "imaging" in files else ()
        if image and not rows:
            unmarked.append(name)
        if rows or not image or official:  # in 2021 all cases are marked
            add_case(found, name, image, rows, case, pattern, image="imaging.nii.gz beside the masks")
    if len(unmarked) == len(cases):
        expected = f"{pattern} (--masks {masks}) beside imaging.nii.gz"
        there = f"none in {len(cases)} cases ({some(unmarked)})"
        todo = "Choose other --masks, or copy them there."
        raise InputError(problem(src, expected=expected, found=there, todo=todo))
    if unmarked and not official:
        found.notes.append(f"cases without {pattern}, left out: {len(unmarked)} ({some(unmarked)})")
    if lacking:
        what = "cases in which instances lack an annotation, for which another one of theirs stands"
        found.notes.append(f"{what}: {len(lacking)} ({some(lacking)})")
    return found


def _raters(case: Path, instances: Instances) -> list[tuple[str, Source]]:
    """A combination for each number of annotation; an instance that lacks it gives its next one, counted in a circle."""
    numbers = sorted({number for files in instances.values() for number in files})
    rows: list[tuple[str, Source]] = []
    for number in numbers:
        chosen = []
        for structure, value in _ORDER.items():
            for (kind, _), files in sorted(instances.items()):
                if kind == structure:
                    own = sorted(files)
                    which = number if number in files else own[(number - 1) % len(own)]
                    chosen.append((files[which], value))
        rows.append((f"annotation{number}", Combination(case, tuple(chosen))))
    return rows
