"""By which names a layout or an archive is recognised, and what to say of a folder that is another one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml.nnunet.layouts.cases import visible

_CONTOURS = (
    "RIGA's pictures with outlines drawn on them are no masks: fill the outlines, and use --layout folders"
)
# layout → (what a path below the folder looks like, what to do where another layout was meant)
_SIGNS = {
    "folders": (r"(images/|raters/[^/]+/)[^/]+", "This looks like --layout folders."),
    "qubiq": (r"(.+/)?task\d+_seg\d+\.[^/]+", "This looks like --layout qubiq."),
    "curvas": (r"(.+/)?annotation_\d+\.[^/]+", "This looks like --layout curvas."),
    "chase": (r"(.+/)?Image_\d+[LR]_\w+HO\.[^/]+", "This looks like --layout chase."),
    "LiTS": (r"(.+/)?(volume|segmentation)-\d+\.nii(\.gz)?", "This looks like `nnunet-dml convert lits`."),
    "KiTS": (
        r"(.+/)?case_\d{5}/(imaging\.|segmentation\.|segmentations/|instances/).+",
        "This looks like `nnunet-dml convert kits`.",
    ),
    "LIDC-IDRI": (r"(.+/)?LIDC-IDRI-\d{4}/.+\.dcm", "This looks like `nnunet-dml convert lidc`."),
    "RIGA": (r"(?i:(.+/)?image\d+(prime|-[1-6])\.(jpe?g|tiff?))", f"{_CONTOURS}."),
}
LAYOUTS = ("auto", "qubiq", "folders", "flat", "curvas", "chase")  # those of `convert raters`


def layouts_seen(src: Path) -> list[str]:
    """The layouts and archives that the names in a folder point to."""
    both = (src / "images").is_dir() and (src / "raters").is_dir()
    patterns = {
        name: re.compile(pattern) for name, (pattern, _) in _SIGNS.items() if name != "folders" or both
    }
    seen: set[str] = set()
    for path in src.rglob("*"):
        name = path.relative_to(src).as_posix()
        seen |= {it for it, pattern in patterns.items() if it not in seen and pattern.fullmatch(name)}
    return [name for name in _SIGNS if name in seen]


def only_layout(src: Path) -> str:
    """The layout of `convert raters` that a folder has.

    Raises:
        InputError: None or several, or that of another command.
    """
    seen = layouts_seen(src)
    if len(seen) == 1 and seen[0] in LAYOUTS:
        return seen[0]
    if len(seen) > 1:
        todo = "Choose one with --layout."
        raise InputError(problem(src, expected="one layout", found=" and ".join(seen), todo=todo))
    expected = (
        "CASE/task01_seg01.* (qubiq), images/ and raters/ (folders), CASE/annotation_1.* (curvas) "
        "or Image_01L_1stHO.* (chase)"
    )
    todo = _SIGNS[seen[0]][1] if seen else "For other names use --layout flat with --images and --raters."
    raise InputError(problem(src, expected=expected, found=_there(src), todo=todo))


def misread(src: Path, expected: str, layout: str) -> NoReturn:
    """Raise, saying what was looked for, what lies there and what it looks like.

    Args:
        src: The folder.
        expected: What the layout consists of.
        layout: Its name.

    Raises:
        InputError: Always.
    """
    others = [it for it in layouts_seen(src) if it != layout]
    todo = _SIGNS[others[0]][1] if others else ""
    raise InputError(problem(src, expected=f"{expected} (layout {layout})", found=_there(src), todo=todo))


def _there(src: Path) -> str:
    names = [path.name + "/" * path.is_dir() for path in visible(src)]
    return some(names) or "an empty folder"
