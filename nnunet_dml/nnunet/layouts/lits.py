"""The archive of LiTS: `volume-N.nii`, `segmentation-N.nii`, in one folder or in `Training Batch 1`, `Training Batch 2`."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from nnunet_dml._checks import problem
from nnunet_dml.nnunet.layouts.cases import Found, add_case, check_folder, files_below
from nnunet_dml.nnunet.layouts.signs import misread

LABELS = {"liver": 1, "tumour": 2}


def find(src: Path) -> Found:
    """Volumes and segmentations of one number, `.nii` or `.nii.gz`, in whatever folders; `test-volume-N` is left aside.

    Raises:
        InputError: There are none, or no folder.
    """
    check_folder(src, "a folder with volume-0.nii and segmentation-0.nii")
    found = Found("lits", labels=LABELS, channel_names=("CT",), single=True)
    files: dict[int, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in files_below(src):
        match = re.fullmatch(r"(volume|segmentation)-(\d+)\.nii(?:\.gz)?", path.name)
        if match:
            files[int(match[2])][match[1]].append(path)
        else:
            found.ignored.append(path)
    if not any("segmentation" in it for it in files.values()):
        misread(src, "volume-0.nii, segmentation-0.nii, … or .nii.gz, here or in folders below", "lits")
    for number, kinds in sorted(files.items()):
        for kind, paths in kinds.items():
            if len(paths) > 1:
                names = " and ".join(path.relative_to(src).as_posix() for path in paths)
                expected = f"one {kind} of number {number}"
                found.problems.append(problem(src, expected=expected, found=names, todo="Keep one of them."))
        masks = [("reference", path) for path in kinds["segmentation"][:1]]
        add_case(
            found,
            f"LiTS_{number:03d}",
            tuple(kinds["volume"][:1]),
            masks,
            src,
            f"segmentation-{number}.nii",
            image=f"volume-{number}.nii for segmentation-{number}.nii",
        )
    return found
