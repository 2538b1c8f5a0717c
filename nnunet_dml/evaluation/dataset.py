"""An nnU-Net raw dataset as the evaluation sees it: classes or regions, references, raters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import read_json
from nnunet_dml._folders import all_rater_files, label_numbers, listed_raters
from nnunet_dml._images import ending_of_dataset

LABELS = ("labelsTr", "labelsTs")
SOFT_MAPS = "softlabelsTr"
REORIENTING = "NibabelIOWithReorient"
ALL_CLASSES = "all"
"""The row of `cases.csv` for what has no class."""


@dataclass(frozen=True)
class RawDataset:
    """Where a raw dataset's references lie and what its labels mean."""

    folder: Path
    classes: tuple[str, ...]
    """Names of the background and, in the order of the model's channels, of the other classes or of the regions; without
    the ignore label."""
    ignore_label: int | None
    file_ending: str
    listed_raters: dict[str, list[str]] = field(default_factory=dict)
    """The raters of each case, where `dataset.json` lists them."""
    regions: tuple[tuple[int, ...], ...] = ()
    """The labels of each region; empty for a dataset of classes that exclude one another."""
    regions_class_order: tuple[int, ...] = ()
    """The label that nnU-Net writes for each region, later ones over earlier ones."""

    @property
    def name(self) -> str:
        """The folder's name, `Dataset501_BrainGrowth`."""
        return self.folder.name

    @property
    def foreground(self) -> tuple[str, ...]:
        """Names of what is measured: the foreground classes or the regions."""
        return self.classes[1:]

    @property
    def channels(self) -> int:
        """How many channels the probabilities have: the classes with the background, or the regions."""
        return len(self.regions) or len(self.classes)

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """The labels of each foreground class or region."""
        return self.regions or tuple((label,) for label in range(1, len(self.classes)))

    @property
    def labels(self) -> int:
        """One more than the greatest label, the ignore label left aside."""
        return 1 + max(label for members in self.members for label in members)

    @property
    def label_values(self) -> set[int]:
        """The numbers that a label map may hold."""
        ignored = set() if self.ignore_label is None else {self.ignore_label}
        return {0, *(label for members in self.members for label in members)} | ignored

    def label_files(self, case: str) -> list[Path]:
        """Where the consensus of a case may lie, in order."""
        return [self.folder / part / (case + self.file_ending) for part in LABELS]

    def label_file(self, case: str) -> Path:
        """The consensus of a case, of a test case in `labelsTs`; that in `labelsTr` where there is none."""
        files = self.label_files(case)
        return next((it for it in files if it.is_file()), files[0])

    def labelled_cases(self, part: str = LABELS[0]) -> list[str]:
        """The cases with a consensus in `labelsTr` or `labelsTs`."""
        files = (self.folder / part).glob(f"*{self.file_ending}")
        return sorted(it.name.removesuffix(self.file_ending) for it in files if not it.name.startswith("."))

    def rater_files(self, case: str) -> list[Path]:
        """The raters' files of a case, in order; none where the dataset has none for it.

        Raises:
            InputError: If there are others than those listed.
        """
        listed = self.listed_raters.get(case)
        return list(all_rater_files(self.folder, case, self.file_ending, listed).values())

    def soft_file(self, case: str) -> Path | None:
        """The soft map that the user brought for a case, where there is one."""
        for ending in dict.fromkeys((self.file_ending, ".nii.gz")):
            path = self.folder / SOFT_MAPS / (case + ending)
            if path.is_file():
                return path
        return None

    def image_files(self, case: str) -> list[Path]:
        """The channels of a case's image, where it is there."""
        for folder in (self.folder / "imagesTr", self.folder / "imagesTs"):
            files = [folder / f"{case}_{k:04d}{self.file_ending}" for k in range(100)]
            if found := [it for it in files if it.is_file()]:
                return found
        return []


def read_dataset(folder: Path) -> RawDataset:
    """A raw dataset from its folder.

    Raises:
        InputError: If its `dataset.json` is missing, damaged or of a kind that cannot be evaluated.
    """
    path = folder / "dataset.json"
    content = read_json(path)
    try:
        labels = {str(name): label_numbers(value) for name, value in content["labels"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            problem(
                path,
                expected="`labels` (name: integer, or the list of a region's integers) as nnU-Net wants them",
                found=f"{type(error).__name__} {error}",
            )
        ) from None
    ending = ending_of_dataset(content, path)
    if content.get("overwrite_image_reader_writer") == REORIENTING:
        raise InputError(_reoriented(path))
    shown = json.dumps(content["labels"])
    if ALL_CLASSES in labels:
        expected = f"names of labels other than {ALL_CLASSES}, which is a row of cases.csv"
        raise InputError(problem(path, expected=expected, found=shown, todo="Give it another name."))
    ignored = labels.pop("ignore", None)
    if ignored is not None and len(ignored) != 1:
        raise InputError(problem(path, expected="one integer as label `ignore`", found=shown))
    ignore = None if ignored is None else ignored[0]
    last = max((label for members in labels.values() for label in members), default=0)
    if ignore is not None and ignore <= last:
        expected = f"a label `ignore` above all others, the last of which is {last}"
        raise InputError(problem(path, expected=expected, found=str(ignore)))
    listed = listed_raters(content, path)
    if any(len(members) > 1 for members in labels.values()):
        regions = {name: members for name, members in labels.items() if set(members) != {0}}
        order = _region_order(content.get("regions_class_order"), path, regions)
        names = ("background", *regions)
        return RawDataset(folder, names, ignore, ending, listed, tuple(regions.values()), order)
    ordered = sorted(labels, key=lambda name: labels[name])
    if [labels[name] for name in ordered] != [(k,) for k in range(len(ordered))] or len(ordered) < 2:
        expected = "labels 0 (background), 1, 2, … without a gap"
        raise InputError(problem(path, expected=expected, found=shown))
    return RawDataset(folder, tuple(ordered), ignore, ending, listed)


def label_set(folder: Path) -> RawDataset:
    """The labels in the dataset.json of a model or of predictions; their reader must not turn the axes.

    Raises:
        InputError: There is none, or it is damaged.
    """
    check_reader(folder)
    return read_dataset(folder)


def describe(dataset: RawDataset) -> dict[str, Any]:
    """What has to be the same between probabilities and what they are measured against or calibrated by."""
    names = dataset.foreground if dataset.regions else dataset.classes
    members = dataset.members if dataset.regions else ((0,), *dataset.members)
    return {
        "regions": bool(dataset.regions),
        "channels": [[name, list(own)] for name, own in zip(names, members, strict=True)],
    }


def check_same_labels(folder: Path, raw: RawDataset) -> None:
    """Check that a model or predictions have the labels of a raw dataset, names and values.

    Args:
        folder: With nnU-Net's dataset.json.
        raw: The raw dataset.

    Raises:
        InputError: They differ, or dataset.json is missing or damaged.
    """
    if describe(raw) != describe(label_set(folder)):
        expected, found = (str(read_json(it / "dataset.json")["labels"]) for it in (raw.folder, folder))
        expected = f"the labels of {raw.folder / 'dataset.json'}: {expected}"
        todo = "Give the data set that the model was trained on."
        raise InputError(problem(folder / "dataset.json", expected=expected, found=found, todo=todo))


def check_reader(folder: Path) -> None:
    """Refuse what nnU-Net's one reader made that turns the arrays.

    Raises:
        InputError: The plans.json of a model or of predictions names it, or is damaged.
    """
    plans = folder / "plans.json"
    if plans.is_file() and read_json(plans).get("image_reader_writer") == REORIENTING:
        raise InputError(_reoriented(plans))


def _region_order(order: Any, path: Path, regions: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    known = {label for members in regions.values() for label in members}
    whole = isinstance(order, list) and all(type(it) is int and it in known for it in order)
    if not whole or len(order) != len(regions):
        expected = f"`regions_class_order`, a label for each of the {len(regions)} regions"
        found = "none" if order is None else json.dumps(order)
        raise InputError(problem(path, expected=expected, found=found))
    return tuple(order)


def _reoriented(path: Path) -> str:
    return (
        f"{path}: predictions made with {REORIENTING} are not supported yet: their axes are those of "
        "the reoriented image, not of the files in labelsTr."
    )
