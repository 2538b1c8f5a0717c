"""An nnU-Net raw dataset as the evaluation sees it: classes, references, raters."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import read_json
from nnunet_dml._folders import all_rater_files, listed_raters


@dataclass(frozen=True)
class RawDataset:
    """Where a raw dataset's references lie and what its labels mean."""

    folder: Path
    classes: tuple[str, ...]
    """Names in the order of the labels, background first, without the ignore label."""
    ignore_label: int | None
    file_ending: str
    listed_raters: dict[str, list[str]] = field(default_factory=dict)
    """The raters of each case, where `dataset.json` lists them."""

    @property
    def name(self) -> str:
        """The folder's name, `Dataset501_BrainGrowth`."""
        return self.folder.name

    @property
    def label_values(self) -> set[int]:
        """The numbers that a label map may hold."""
        return {*range(len(self.classes))} | ({self.ignore_label} if self.ignore_label is not None else set())

    def label_file(self, case: str) -> Path:
        """The consensus of a case."""
        return self.folder / "labelsTr" / (case + self.file_ending)

    def rater_files(self, case: str) -> list[Path]:
        """The raters' files of a case, in order; none where the dataset has none for it.

        Raises:
            InputError: If there are others than those listed.
        """
        listed = self.listed_raters.get(case)
        return list(all_rater_files(self.folder, case, self.file_ending, listed).values())


def read_dataset(folder: Path) -> RawDataset:
    """A raw dataset from its folder.

    Raises:
        InputError: If its `dataset.json` is missing, damaged or of a kind that cannot be evaluated.
    """
    path = folder / "dataset.json"
    content = read_json(path)
    try:
        labels = {name: _label(value) for name, value in content["labels"].items()}
        ending = str(content["file_ending"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            problem(
                path,
                expected="`labels` (name: integer) and `file_ending` as nnU-Net wants them",
                found=f"{type(error).__name__} {error}",
            )
        ) from None
    if any(value is None for value in labels.values()):
        raise InputError(
            f"{path}: region-based models are not supported yet: their channels overlap and do not sum to "
            "one, so the top label and its calibration are not defined."
        )
    if content.get("overwrite_image_reader_writer") == "NibabelIOWithReorient":
        raise InputError(reoriented(path))
    ignore = labels.pop("ignore", None)
    order = sorted(labels, key=lambda name: labels[name] or 0)
    if [labels[name] for name in order] != list(range(len(order))) or len(order) < 2:
        raise InputError(
            problem(
                path,
                expected="labels 0 (background), 1, 2, … without a gap",
                found=json.dumps(content["labels"]),
            )
        )
    return RawDataset(folder, tuple(order), ignore, ending, listed_raters(content))


def reoriented(path: Path) -> str:
    """The refusal of nnU-Net's one reader that turns the arrays."""
    return (
        f"{path}: predictions made with NibabelIOWithReorient are not supported yet: their axes are those of "
        "the reoriented image, not of the files in labelsTr."
    )


def _label(value: Any) -> int | None:
    """A label's integer; None for a region, a list of several labels."""
    if isinstance(value, list):
        if len(value) != 1:
            return None
        value = value[0]
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(f"label {value!r} is not an integer")
    return int(value)
