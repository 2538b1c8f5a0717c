"""Cases as a layout finds them: images, each rater's mask, and what is wrong with a folder."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem
from nnunet_dml._images import read, split_ending

LACK = "Add it, or take the case out."


@dataclass(frozen=True)
class Made(ABC):
    """An image or a mask that no single file holds as nnU-Net wants it. Goes to worker processes."""

    path: Path
    """What messages name."""

    @property
    def ending(self) -> str:
        """Of the file that is written."""
        return ".nii.gz"

    @abstractmethod
    def read(self) -> sitk.Image:
        """Put it together.

        Raises:
            InputError: A file is missing, damaged or does not fit.
        """

    def parts(self) -> tuple[Path, ...]:
        """The files whose headers have to agree with the image's; none where it lies on the image's grid anyway."""
        return ()

    @abstractmethod
    def record(self, src: Path) -> object:
        """Where it comes from, for dataset.json: no path outside `src`."""


Source = Path | Made


def load(source: Source) -> sitk.Image:
    """Read an image or a mask; see `Made.read`, `_images.read`."""
    return source.read() if isinstance(source, Made) else read(source)


def path_of(source: Source) -> Path:
    """What messages name."""
    return source.path if isinstance(source, Made) else source


def ending_of(source: Source) -> str:
    """The ending of the file, or of the one that it becomes; "" where nnU-Net cannot read it."""
    return source.ending if isinstance(source, Made) else split_ending(source.name)[1]


def parts_of(source: Source) -> tuple[Path, ...]:
    """The files whose headers have to agree with the image's."""
    return source.parts() if isinstance(source, Made) else (source,)


def record_of(source: Source, src: Path) -> object:
    """Where an image or a mask comes from, for dataset.json."""
    return source.record(src) if isinstance(source, Made) else source.relative_to(src).as_posix()


@dataclass(frozen=True)
class Case:
    """One case: its images (one, or one per channel, in order; none where only masks are at hand) and masks."""

    name: str
    images: tuple[Source, ...]
    raters: Mapping[str, Source]


@dataclass
class Found:
    """What a layout found, and what is known of its archive."""

    layout: str
    cases: list[Case] = field(default_factory=list)
    """Sorted by name."""
    problems: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    """Problems of cases that are not among `cases`, as they lack an image or masks."""
    ignored: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    labels: Mapping[str, int] = field(default_factory=dict)
    """Name → value of the archive's masks, where these are known."""
    label: str = "label1"
    """The name of the only label, where values are not known by name."""
    channel_names: tuple[str, ...] = ()
    """What the archive's images show, where that is known."""
    single: bool = False
    """Whether the archive has one annotation per case, so that there are no raters to be kept apart."""
    flat: bool = False
    """Whether an image with one axis more than its masks holds channels along it, and a last axis of one is none."""


def check_folder(src: Path, expected: str = "a folder with images and raters' masks") -> None:
    """Refuse a source that is no folder.

    Raises:
        InputError: It is none.
    """
    if not src.is_dir():
        raise InputError(problem(src, expected=expected, found="a file" if src.exists() else "nothing there"))


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, sorted."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def files_below(src: Path) -> list[Path]:
    """All files below a folder, sorted; without hidden ones, such as the `._…` files of macOS.

    Links that lead nowhere are among them: who reads them says so.
    """
    return sorted(
        path
        for path in src.rglob("*")
        if not path.is_dir() and not any(part.startswith(".") for part in path.relative_to(src).parts)
    )


def readable(found: Found, paths: Iterable[Path]) -> list[tuple[str, Path]]:
    """(name without ending, path) of the files that nnU-Net could read; the others are left aside."""
    rows = []
    for path in paths:
        stem, ending = split_ending(path.name)
        if ending and not path.is_dir():
            rows.append((stem, path))
        else:
            found.ignored.append(path)
    return rows


def group(found: Found, images: list[tuple[str, Path]], masked: set[str]) -> dict[str, tuple[Path, ...]]:
    """Image files by case.

    `<case>_0000` is a channel of `<case>`, unless masks are named so too: then it is part of the name.
    """
    numbered = re.compile(r"(.+)_(\d{4})")
    named = any(numbered.fullmatch(stem) and stem in masked for stem, _ in images)
    cases: dict[str, dict[Path, int | None]] = defaultdict(dict)
    for stem, path in images:
        channel = None if named else numbered.fullmatch(stem)
        cases[channel[1] if channel else stem][path] = int(channel[2]) if channel else None
    return {name: channels(found, paths) for name, paths in sorted(cases.items())}


def channels(found: Found, paths: Mapping[Path, int | None]) -> tuple[Path, ...]:
    """One case's image files in the order of their channels: one image, or 0000, 0001, … without gaps."""
    numbers = sorted(paths.values(), key=lambda n: -1 if n is None else n)
    if numbers and numbers not in ([None], list(range(len(paths)))):
        names = ", ".join(path.name for path in paths)
        expected = "one image for each case, or channels _0000, _0001, … without gaps"
        todo = "Keep one of them, or rename them."
        found.problems.append(problem(next(iter(paths)).parent, expected=expected, found=names, todo=todo))
    return tuple(sorted(paths, key=lambda path: paths[path] or 0))


def add_case(
    found: Found,
    name: str,
    images: tuple[Source, ...],
    masks: Iterable[tuple[str, Source]],
    where: Path,
    pattern: str,
    *,
    image: str = "image.* beside the masks",
    instead: str = "none",
) -> None:
    """Keep a case, or say what it lacks.

    Args:
        found: What gets the case, or the problem.
        name: Of the case.
        images: Its images.
        masks: Its (rater, mask) pairs.
        where: The folder that messages name.
        pattern: Of the masks, for messages.
        image: What the image is called, for messages.
        instead: What is there in the place of masks, for messages.
    """
    raters: dict[str, Source] = {}
    for rater, mask in masks:
        if rater in raters:
            both = f"{path_of(raters[rater]).name} and {path_of(mask).name}"
            expected = f"one mask of case {name} by rater {rater}"
            line = problem(path_of(mask).parent, expected=expected, found=both, todo="Keep one of them.")
            found.problems.append(line)
        raters.setdefault(rater, mask)
    if not images:
        found.incomplete.append(problem(where, expected=image, found="no image", todo=LACK))
    if not raters:
        expected = f"at least one rater's mask {pattern} for case {name}"
        found.incomplete.append(problem(where, expected=expected, found=instead, todo=LACK))
    if images and raters:
        found.cases.append(Case(name, images, raters))


def one_folder_each(found: Found, src: Path, folders: Mapping[str, list[Path]]) -> None:
    """Say which cases have several folders, by name: as in two editions of an archive."""
    for name, paths in folders.items():
        if len(paths) > 1:
            there = " and ".join(path.relative_to(src).as_posix() for path in paths)
            todo = "Are there two editions of the archive? Convert one of them."
            found.problems.append(problem(src, expected=f"one folder of {name}", found=there, todo=todo))


def by_name(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Folders by their own names, sorted."""
    named: dict[str, list[Path]] = defaultdict(list)
    for folder in sorted(folders, key=lambda it: (it.name, it)):
        named[folder.name].append(folder)
    return named


def orphans(found: Found, masks: Mapping[str, list[tuple[str, Path]]], expected: str) -> None:
    """Say that masks have no image."""
    for case, rows in sorted(masks.items()):
        near = [path.name for path in found.ignored if path.name.startswith(case)]
        what = f"only {', '.join(near)}, which nnU-Net does not read" if near else "none"
        wanted = expected.replace("{case}", case)
        found.incomplete.extend(problem(path, expected=wanted, found=what, todo=LACK) for _, path in rows)
