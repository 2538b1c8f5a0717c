"""Layout `qubiq`: a folder per case with `image.*` and `taskNN_segNN.*`, as in QUBIQ's archives of 2020 and 2021.

The archives have `training_data_v2/brain-growth/Training/case01/…` and, apart, the same for validation; 2021's pancreas has
no `Training`. The papers pool both parts. An image file of brain-tumor holds four channels along an axis that its masks lack.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._images import split_ending
from nnunet_dml.nnunet.layouts.cases import Found, add_case, channels, files_below, one_folder_each
from nnunet_dml.nnunet.layouts.signs import misread

_PART = re.compile(r"(train|training|val|validation|test|testing)([_-].*)?", re.IGNORECASE)


class _Folder:
    """One case's folder."""

    def __init__(self) -> None:
        self.images: dict[Path, int | None] = {}
        self.masks: dict[int, list[tuple[str, Path]]] = defaultdict(list)


def find(src: Path, task: int | None, subset: str | None) -> Found:
    """Folders at any depth that hold `image.*` (or `image_0000.*`, …) and `taskNN_segNN.*`, pooled.

    Args:
        src: The folder.
        task: The number in `taskNN`; None where there is one only.
        subset: The name of a folder above the cases, such as `brain-growth`; None where all cases belong together.

    Raises:
        InputError: No such folders, or a choice is missing or does not exist.
    """
    found = Found("qubiq", flat=True)
    folders = _case_folders(src, found)
    masks = "task01_seg01.*, task01_seg02.*, …"
    if not folders:
        misread(src, f"case folders with image.* and {masks}", "qubiq")
    if not any(it.masks for it in folders.values()):
        names = some(path.relative_to(src).as_posix() for path in folders)
        there, todo = f"images of {len(folders)} cases ({names}) and no masks", "Unpack the masks there, too."
        raise InputError(problem(src, expected=f"{masks} beside the images", found=there, todo=todo))
    folders = _of_subset(src, folders, subset)
    task = _chosen_task(src, folders, task)
    found.label = f"task{task:02d}"
    pattern = f"task{task:02d}_segNN.*"
    unmarked = []
    parts: Counter[str] = Counter()
    for name, path in _names(src, folders, found):
        folder = folders[path]
        if not folder.masks and _part(src, path).lower().startswith("test"):
            unmarked.append(name)
            continue
        parts[_part(src, path)] += 1
        others = ", ".join(f"task{it:02d}" for it in sorted(folder.masks))
        images = channels(found, folder.images)
        rows = folder.masks.get(task, [])
        add_case(found, name, images, rows, path, pattern, instead=others or "none")
    if len(parts) > 1:
        counts = [f"{part or 'no part'} {count}" for part, count in sorted(parts.items())]
        found.notes.append(f"parts pooled: {', '.join(counts)} cases")
    if unmarked:
        found.notes.append(f"test cases without masks, left out: {len(unmarked)} ({some(unmarked)})")
    return found


def _case_folders(src: Path, found: Found) -> dict[Path, _Folder]:
    folders: dict[Path, _Folder] = defaultdict(_Folder)
    for path in files_below(src):
        stem, ending = split_ending(path.name)
        mask = re.fullmatch(r"task(\d+)_(seg\d+)", stem)
        image = re.fullmatch(r"image(?:_(\d{4}))?", stem)
        if path.parent == src or not ending or not (mask or image):
            found.ignored.append(path)
        elif mask:
            folders[path.parent].masks[int(mask[1])].append((mask[2], path))
        elif image:
            folders[path.parent].images[path] = int(image[1]) if image[1] else None
    return dict(folders)


def _above(src: Path, folder: Path) -> tuple[str, ...]:
    """The names of the folders between the source and a case, without those of training and validation parts."""
    return tuple(name for name in folder.relative_to(src).parts[:-1] if not _PART.fullmatch(name))


def _part(src: Path, folder: Path) -> str:
    """`training`, `validation`, …; "" where no folder's name says so."""
    names = [match[1] for it in folder.relative_to(src).parts[:-1] if (match := _PART.fullmatch(it))]
    return names[-1] if names else ""


def _of_subset(src: Path, folders: dict[Path, _Folder], subset: str | None) -> dict[Path, _Folder]:
    subsets = {path: _above(src, path) for path in folders}
    there = sorted({"/".join(names) for names in subsets.values()} - {""})
    if subset is None and len(set(subsets.values())) > 1:
        todo = "Choose one with --subset."
        raise InputError(problem(src, expected="one subset", found=", ".join(there), todo=todo))
    if subset is None or (set(subsets.values()) == {()} and subset == src.name):
        return folders
    chosen = {path: folder for path, folder in folders.items() if subset in subsets[path]}
    if not chosen:
        expected = f"one of {', '.join(there) or src.name} (in {src})"
        raise InputError(problem("--subset", expected=expected, found=subset))
    return chosen


def _chosen_task(src: Path, folders: dict[Path, _Folder], task: int | None) -> int:
    tasks = sorted({number for folder in folders.values() for number in folder.masks})
    names = ", ".join(map(str, tasks))
    if task is None and len(tasks) == 1:
        return tasks[0]
    if task is None:
        todo = "Choose one with --task."
        raise InputError(problem(src, expected="one task", found=f"tasks {names or 'none'}", todo=todo))
    if task not in tasks:
        raise InputError(problem("--task", expected=f"one of {names} (in {src})", found=str(task)))
    return task


def _names(src: Path, folders: dict[Path, _Folder], found: Found) -> list[tuple[str, Path]]:
    """Cases by name: that of the folder, with its part before it where several parts share it.

    The same case in the same part twice, as in two editions of the archive, is a problem.
    """
    count = Counter(path.name for path in folders)
    named: dict[str, list[Path]] = defaultdict(list)
    for path in folders:
        name = f"{_part(src, path)}_{path.name}".lstrip("_") if count[path.name] > 1 else path.name
        named[name].append(path)
    one_folder_each(found, src, named)
    return sorted((name, path) for name, paths in named.items() for path in paths)
