"""Layout `chase`: `Image_01L.jpg`, `Image_01L_1stHO.png`, `Image_01L_2ndHO.png`, as in CHASE_DB1 (vessels, two raters)."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem
from nnunet_dml._images import read, split_ending
from nnunet_dml.nnunet.layouts.cases import Found, Made, Source, add_case, channels, files_below
from nnunet_dml.nnunet.layouts.signs import misread

_END = b"\xff\xd9"


@dataclass(frozen=True)
class Jpeg(Made):
    """A JPEG, which nnU-Net does not read; it becomes a PNG."""

    @property
    def ending(self) -> str:
        """Of the file that is written."""
        return ".png"

    def read(self) -> sitk.Image:
        """Read it; ITK takes a truncated one for whole, so its end is looked for."""
        image = read(self.path)
        if _END not in self.path.read_bytes()[-1024:]:
            todo = "Copy it again from its source."
            raise InputError(problem(self.path, expected="a whole JPEG", found="a truncated one", todo=todo))
        return image

    def parts(self) -> tuple[Path, ...]:
        """The file itself."""
        return (self.path,)

    def record(self, src: Path) -> str:
        """Its name."""
        return self.path.relative_to(src).as_posix()


def find(src: Path) -> Found:
    """Pictures `Image_NNL.*`, `Image_NNR.*` at any depth, and masks of that name with the rater's at its end.

    Raises:
        InputError: There are none.
    """
    found = Found("chase", label="vessel")
    images: dict[str, dict[Path, int | None]] = defaultdict(dict)
    masks: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for path in files_below(src):
        jpeg = path.suffix.lower() in (".jpg", ".jpeg")
        stem, ending = (path.stem, ".png") if jpeg else split_ending(path.name)
        match = re.fullmatch(r"(Image_\d+[LR])(?:_(\w+HO))?", stem)
        if not match or not ending or (jpeg and match[2]):
            found.ignored.append(path)
        elif match[2]:
            masks[match[1]].append((match[2], path))
        else:
            images[match[1]][path] = None
    if not masks:
        misread(src, "pictures Image_01L.jpg with Image_01L_1stHO.png, Image_01L_2ndHO.png", "chase")
    for name in sorted({*images, *masks}):
        files = channels(found, images[name])
        sources: tuple[Source, ...] = tuple(it if split_ending(it.name)[1] else Jpeg(it) for it in files)
        add_case(
            found, name, sources, masks[name], src, f"{name}_*HO.png", image=f"{name}.jpg beside its masks"
        )
    return found
