"""The masks of several raters on disk: which cases, raters and classes there are, and reading a case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import read_json
from nnunet_dml._folders import all_rater_files, listed_raters
from nnunet_dml._images import PICTURES, Grid, ending_of_dataset, misfits, read_mask, split_ending
from nnunet_dml._parallel import each


@dataclass(frozen=True)
class Classes:
    """What the values in masks mean."""

    values: tuple[int, ...]
    """All that a mask may hold besides the ignore label, ascending: 0, the background, comes first."""
    members: Mapping[str, tuple[int, ...]]
    """Each foreground class or region: its values."""
    ignore: int | None = None

    @property
    def indices(self) -> list[list[int]]:
        """Each class or region: the places of its values among `values`."""
        return [[self.values.index(value) for value in values] for values in self.members.values()]


@dataclass(frozen=True)
class RaterCase:
    """A case and its files."""

    name: str
    masks: dict[str, Path]
    """By rater, in order."""
    image: Path | None = None
    """The first channel; None where there are no images."""


@dataclass(frozen=True)
class Raters:
    """All cases of a folder."""

    folder: Path
    cases: list[RaterCase]
    classes: Classes

    @property
    def compared(self) -> list[RaterCase]:
        """The cases with two raters or more."""
        return [case for case in self.cases if len(case.masks) > 1]


@dataclass
class CaseMasks:
    """The masks of a case."""

    labels: npt.NDArray[np.unsignedinteger[Any]]
    """`(R, z, y, x)` or `(R, y, x)`: places among `Classes.values`; any number where a rater abstains."""
    voted: npt.NDArray[np.bool_] | None
    """The same shape: where a rater did not abstain; None where all voted everywhere."""
    grid: Grid
    voxel_ml: float = field(default=float("nan"))
    """The volume of a voxel; NaN for 2D files and for formats without a voxel size."""


def of_dataset(folder: Path) -> Raters:
    """The raters of a raw dataset.

    Args:
        folder: With `dataset.json`, `ratersTr/<case>/<rater>.*` and, for pictures, `imagesTr`.

    Raises:
        InputError: `dataset.json` is missing, damaged or says something else than nnU-Net understands; raters that it
            lists are lost; masks have another file ending; or no case has two raters.
    """
    path = folder / "dataset.json"
    content = read_json(path)
    classes = _classes(content.get("labels"), path)
    ending = ending_of_dataset(content, path)
    listed = listed_raters(content, path)
    labelled = {file.name.removesuffix(ending) for file in (folder / "labelsTr").glob(f"*{ending}")}
    annotated = {sub.name for sub in (folder / "ratersTr").glob("*") if sub.is_dir()}
    cases: list[RaterCase] = []
    problems: list[str] = []
    for name in sorted(labelled | annotated | set(listed)):
        if name.startswith("."):
            continue
        image = folder / "imagesTr" / f"{name}_0000{ending}"
        try:
            masks = all_rater_files(folder, name, ending, listed.get(name))
        except InputError as error:
            problems += error.problems
            continue
        own = folder / "ratersTr" / name
        others = [
            file.name for file in sorted(own.glob("*")) if split_ending(file.name)[1] not in ("", ending)
        ]
        if others:
            problems.append(problem(own, expected=f"masks that end in {ending}", found=some(others)))
        cases.append(RaterCase(name, masks, image))
    if problems:
        raise InputError(*problems)
    return _checked(Raters(folder, cases, classes), folder / "ratersTr")


def of_folder(folder: Path, *, processes: int = 1) -> Raters:
    """The raters of any folder of masks without a dataset; every value in a mask is a class of its own.

    Args:
        folder: With `<case>/<rater>.*`.
        processes: How many cases are read at once to learn the values.

    Raises:
        InputError: It is no folder, a rater has two masks for a case, a mask is damaged, or no case has two raters.
    """
    if not folder.is_dir():
        raise InputError(problem(folder, expected="a folder of masks, CASE/RATER.*", found="no folder"))
    cases: list[RaterCase] = []
    problems: list[str] = []
    for sub in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        masks: dict[str, Path] = {}
        for path in sorted(sub.iterdir()):
            rater, ending = split_ending(path.name)
            if not ending or path.name.startswith("."):
                continue
            if rater in masks:
                found = f"{masks[rater].name} and {path.name}"
                problems.append(problem(sub, expected=f"one mask of rater {rater}", found=found))
            masks[rater] = path
        cases.append(RaterCase(sub.name, masks))
    if problems:
        raise InputError(*problems)
    raters = _checked(Raters(folder, cases, Classes((0,), {})), folder)
    seen = set().union(*each(_values, raters.compared, processes=processes, title="Looking for labels"))
    foreground = sorted(seen - {0})
    if not foreground:
        raise InputError(problem(folder, expected="masks with labels besides 0", found="none"))
    return replace(
        raters, classes=Classes((0, *foreground), {f"label {value}": (value,) for value in foreground})
    )


def read_case(case: RaterCase, classes: Classes) -> CaseMasks:
    """Read a case's masks.

    Raises:
        InputError: With everything that is wrong with any of them: damage, another grid than the first one's, unknown
            labels.
    """
    problems: list[str] = []
    arrays: list[npt.NDArray[Any]] = []
    first: tuple[Path, Grid] | None = None
    known = np.array(classes.values)
    for path in case.masks.values():
        try:
            array, grid = read_mask(path)
        except InputError as error:
            problems += error.problems
            continue
        first = first or (path, grid)
        if wrong := misfits(path, grid, *first):
            problems += wrong
            continue
        allowed = [*classes.values] + ([] if classes.ignore is None else [classes.ignore])
        values = np.unique(array)
        if strange := [value for value in values.tolist() if value not in allowed]:
            expected = f"the labels {some(allowed, 20)}"
            problems.append(problem(path, expected=expected, found=some(strange)))
        arrays.append(array)
    if first and len(first[1].size) not in (2, 3):
        expected, found = "masks in 2D or 3D", f"{len(first[1].size)} axes"
        problems.append(problem(first[0], expected=expected, found=found))
    if problems or first is None:
        raise InputError(*problems)
    labels = np.empty((len(arrays), *arrays[0].shape), dtype=np.min_scalar_type(len(known)))
    voted = None if classes.ignore is None else np.empty(labels.shape, dtype=np.bool_)
    for r, array in enumerate(arrays):
        labels[r] = np.searchsorted(known, array)
        if voted is not None:
            voted[r] = array != classes.ignore
    path, grid = first
    measured = len(grid.size) == 3 and split_ending(path.name)[1] not in PICTURES
    return CaseMasks(labels, voted, grid, float(np.prod(grid.spacing)) / 1000 if measured else float("nan"))


def _checked(raters: Raters, where: Path) -> Raters:
    """The same, unless there is nothing to compare."""
    if raters.compared:
        return raters
    single = sum(len(case.masks) == 1 for case in raters.cases)
    found = f"none: {len(raters.cases)} cases, {single} of them with one rater"
    expected = "at least one case with the masks of two raters, CASE/RATER.*"
    raise InputError(problem(where, expected=expected, found=found))


def _values(case: RaterCase) -> set[int]:
    problems: list[str] = []
    seen: set[int] = set()
    for path in case.masks.values():
        try:
            values = np.unique(read_mask(path)[0]).tolist()
        except InputError as error:
            problems += error.problems
            continue
        if values and values[0] < 0:
            problems.append(problem(path, expected="labels of at least 0", found=str(values[0])))
        seen.update(values)
    if problems:
        raise InputError(*problems)
    return seen


def _classes(labels: object, path: Path) -> Classes:
    """The classes or regions of `labels` in dataset.json."""
    expected = "`labels` as nnU-Net wants them: background 0, then integers or lists of integers"
    if not isinstance(labels, dict) or labels.get("background") != 0:
        raise InputError(problem(path, expected=expected, found=repr(labels)))
    members = {str(name): tuple(v) if isinstance(v, list) else (v,) for name, v in labels.items()}
    every = [value for values in members.values() for value in values]
    if not all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in every):
        raise InputError(problem(path, expected=expected, found=repr(labels)))
    del members["background"]
    ignore = members.pop("ignore", None)
    values = tuple(sorted({0, *(value for inside in members.values() for value in inside)}))
    if ignore is not None and (len(ignore) != 1 or ignore[0] <= values[-1]):
        expected = "one ignore label above all others"
        raise InputError(problem(path, expected=expected, found=repr(labels)))
    if not members or not all(members.values()):
        raise InputError(problem(path, expected=expected, found=repr(labels)))
    return Classes(values, members, None if ignore is None else ignore[0])
