"""Several raters' masks into an ordinary nnU-Net raw dataset with the masks of each rater beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import atomic_folder
from nnunet_dml._parallel import each
from nnunet_dml.nnunet.layouts import Case, find_cases
from nnunet_dml.nnunet.rater_cases import Facts, Target, inspect_case, write_case
from nnunet_dml.nnunet.rater_checks import (
    check_names,
    common_ending,
    default_channels,
    label_values,
    odd_cases,
    task_of,
)
from nnunet_dml.nnunet.raw_folder import dataset_folder

FORMAT = 1  # of the block "nnunet_dml" in dataset.json


@dataclass
class Conversion:
    """What was found and, unless it was a dry run, written."""

    folder: Path
    cases: list[Case]
    facts: list[Facts]
    ending: str
    channel_names: list[str]
    labels: dict[str, int]  # name → value in the raters' files, in the order of the labels 1, 2, …
    notes: list[str]
    ignored: list[Path]
    tied_voxels: list[int] | None = field(default=None)

    @property
    def raters(self) -> list[str]:
        """The names of all raters."""
        return sorted({rater for case in self.cases for rater in case.raters})

    def summary(self) -> list[str]:
        """Lines for people."""
        names = [case.name for case in self.cases]
        per_case = Counter(len(case.raters) for case in self.cases)
        grids = [facts.grid for facts in self.facts if facts.grid]
        labels = [
            f"{name} {i} (value {value})" for i, (name, value) in enumerate(self.labels.items(), start=1)
        ]
        lines = [
            f"{self.folder.name}: {len(names)} cases, {len(grids[0].size)}D, {self.ending}",
            f"raters: {len(self.raters)} ({some(self.raters, 12)})",
            "raters per case: " + ", ".join(f"{n} ({count} cases)" for n, count in sorted(per_case.items())),
            f"channels: {', '.join(self.channel_names)} (nnU-Net normalises by these names: --channel-names)",
            f"labels: background 0, {', '.join(labels)}",
            *self.notes,
        ]
        single = [case.name for case in self.cases if len(case.raters) == 1]
        empty = [c.name for c, f in zip(self.cases, self.facts, strict=True) if _is_empty(f)]
        fewer = [case.name for case in self.cases if 1 < len(case.raters) < len(self.raters)]
        for what, found in (
            ("with a single rater", single),
            ("that lack a rater", fewer),
            ("left empty by all raters", empty),
        ):
            if found:
                lines.append(f"cases {what}: {len(found)} ({', '.join(found)})")
        if self.ignored:
            lines.append(f"ignored: {len(self.ignored)} ({some([path.name for path in self.ignored], 5)})")
        if self.tied_voxels is not None:
            ties = {name: n for name, n in zip(names, self.tied_voxels, strict=True) if n}
            where = f" ({some([f'{name} {n}' for name, n in ties.items()], 5)})" if ties else ""
            lines.append(
                f"ties, given to the lowest label: {sum(ties.values())} voxels in {len(ties)} cases{where}"
            )
        return lines


def convert_raters(
    src: Path,
    *,
    dataset: str,
    layout: str,
    task: int | None = None,
    images: str | None = None,
    raters: str | None = None,
    channel_names: Sequence[str] | None = None,
    labels: Mapping[str, int] | None = None,
    channels_last: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    processes: int = 2,
) -> Conversion:
    """Write `$nnUNet_raw/Dataset…` from images and several raters' masks.

    Everything is read and checked first, and all problems are raised together; then the dataset is written to
    a temporary folder beside its place and renamed.

    Args:
        src: The folder of the source.
        dataset: `501_Name` or `Dataset501_Name`.
        layout: How `src` is organised: see `nnunet_dml.nnunet.layouts`, also for `task`, `images`, `raters`.
        task: Number of the task, for layout qubiq.
        images: Pattern of the images, for layout flat.
        raters: Pattern of the masks, for layout flat.
        channel_names: One name per channel, which decide how nnU-Net normalises. Default: made up.
        labels: Name → value in the masks; they become the labels 1, 2, … in this order. Default: the values
            found, if they are 1, 2, … without gaps, or 255 alone in 8-bit files. The name `ignore` makes nnU-Net's
            ignore label, the last one: a rater who marks it abstains there, and where all do the consensus is `ignore`.
        channels_last: Whether the last axis of the images holds channels (4D images are always read so).
        overwrite: Whether an existing dataset of the same name is replaced.
        dry_run: Only find and check.
        processes: Worker processes; 1 works without any.

    Raises:
        InputError: Bad input, one line per problem.
        OSError: The dataset could not be written. Nothing is left behind.
    """
    folder = dataset_folder(src, dataset, overwrite=overwrite or dry_run)
    check_names(labels, channel_names)
    if labels is not None:  # nnU-Net wants `ignore` to be the highest label
        labels = dict(sorted(labels.items(), key=lambda item: item[0] == "ignore"))
    found = find_cases(src, layout, task=task, images=images, raters=raters)
    check = partial(inspect_case, channels_last=channels_last)
    facts = each(check, found.cases, processes=processes, title="Checking")
    problems = found.problems + [line for fact in facts for line in fact.problems]
    ending, more = common_ending(src, found.cases, facts)
    problems += more
    problems += odd_cases(found.cases, facts)
    name = f"task{task or task_of(found.cases):02d}" if layout == "qubiq" and found.cases else "label1"
    values, notes, more = label_values(src, found.cases, facts, labels, name)
    problems += more
    count = facts[0].channels if facts else 0
    if channel_names is not None and facts and len(channel_names) != count:
        expected = f"{count} names, one per channel of the images"
        problems.append(problem("--channel-names", expected=expected, found=", ".join(channel_names)))
    if problems:
        raise InputError(*problems)
    if not found.cases:
        raise InputError(problem(src, expected="at least one case with an image and masks", found="none"))
    channel_list = list(channel_names or default_channels(count, facts[0].picture_channels))
    result = Conversion(folder, found.cases, facts, ending, channel_list, values, notes, found.ignored)
    if not dry_run:
        _write(result, src, overwrite=overwrite, processes=processes, channels_last=channels_last)
    return result


def _write(result: Conversion, src: Path, *, overwrite: bool, processes: int, channels_last: bool) -> None:
    with atomic_folder(result.folder, replace=overwrite) as folder:
        for name in ("imagesTr", "labelsTr", "ratersTr"):
            (folder / name).mkdir()
        numbers = {value: label for label, value in enumerate(result.labels.values(), start=1)}
        ignore_label = len(numbers) if "ignore" in result.labels else None
        target = Target(folder, result.ending, numbers, ignore_label, channels_last)
        work = partial(write_case, target=target)
        result.tied_voxels = each(work, result.cases, processes=processes, title="Writing")
        text = json.dumps(_dataset_json(result, src), indent=2, ensure_ascii=False)
        (folder / "dataset.json").write_text(text + "\n", encoding="utf-8")


def _dataset_json(result: Conversion, src: Path) -> dict[str, Any]:
    assert result.tied_voxels is not None

    def relative(path: Path) -> str:
        return path.relative_to(src).as_posix()

    cases = {
        case.name: {
            "raters": sorted(case.raters),
            "source": {
                "images": [relative(path) for path in case.images],
                "raters": {rater: relative(path) for rater, path in sorted(case.raters.items())},
            },
            "tied_voxels": tied,
        }
        for case, tied in zip(result.cases, result.tied_voxels, strict=True)
    }
    return {
        "channel_names": {str(i): name for i, name in enumerate(result.channel_names)},
        "labels": {"background": 0} | {name: i for i, name in enumerate(result.labels, start=1)},
        "numTraining": len(result.cases),
        "file_ending": result.ending,
        "nnunet_dml": {
            "format": FORMAT,
            "raters": result.raters,
            "ties": "lowest label",
            "source_values": dict(result.labels),
            "cases": cases,
        },
    }


def _is_empty(facts: Facts) -> bool:
    return all(set(values) <= {0} for values in facts.values.values())
