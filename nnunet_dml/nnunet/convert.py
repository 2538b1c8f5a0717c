"""Challenge folders, and several raters' masks, into an ordinary nnU-Net raw data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_folder
from nnunet_dml._parallel import each
from nnunet_dml.nnunet.conversion import Conversion
from nnunet_dml.nnunet.layouts import find_cases
from nnunet_dml.nnunet.layouts.cases import Case, Found
from nnunet_dml.nnunet.rater_cases import Facts, Reading, inspect_case
from nnunet_dml.nnunet.rater_checks import (
    check_names,
    common_ending,
    default_channels,
    label_values,
    named_labels,
    odd_cases,
    window_problems,
)
from nnunet_dml.nnunet.rater_writing import Target, write_case
from nnunet_dml.nnunet.raw_folder import dataset_folder


def convert(
    src: Path,
    find: Callable[[Path], Found],
    *,
    dataset: str,
    channel_names: Sequence[str] | None = None,
    labels: Mapping[str, int | None] | None = None,
    channels_last: bool = False,
    window: tuple[int, int] | None = None,
    repair_headers: bool = False,
    leave_out_bad: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    processes: int = 2,
) -> Conversion:
    """Write `$nnUNet_raw/Dataset…`: images, the consensus in `labelsTr` and, with several raters, `ratersTr`.

    Everything is read and checked first, and all problems are raised together; then the data set is written to
    a temporary folder beside its place and renamed.

    Args:
        src: The source.
        find: What looks for cases in it: see `nnunet_dml.nnunet.layouts`.
        dataset: `501_Name` or `Dataset501_Name`.
        channel_names: One name per channel, which decide how nnU-Net normalises. Default: the archive's, or made up.
        labels: Name → value in the masks, None for the value that the archive gives to this name; they become the
            labels 1, 2, … in this order. Default: the archive's, or the values found, if they are 1, 2, … without gaps,
            or 255 alone in 8-bit files. The name `ignore` makes nnU-Net's ignore label, the last one: a rater who
            marks it abstains there, and where all do the consensus is `ignore`.
        channels_last: Whether the last axis of the images holds channels (4D images are always read so).
        window: Intensities are clipped to it; channels named CT only.
        repair_headers: Whether a mask that fits its image but for its header takes the image's.
        leave_out_bad: Whether bad images and masks, and cases that lack either, are left out and listed.
        overwrite: Whether an existing data set of the same name is replaced.
        dry_run: Only find and check.
        processes: Worker processes; 1 works without any.

    Raises:
        InputError: Bad input, one line per problem.
        OSError: The data set could not be written. Nothing is left behind.
    """
    folder = dataset_folder(src, dataset, overwrite=overwrite or dry_run)
    found = find(src)
    chosen = None if labels is None else named_labels(labels, found.labels)
    check_names(chosen, channel_names)
    if chosen is not None:  # nnU-Net wants `ignore` to be the highest label
        chosen = dict(sorted(chosen.items(), key=lambda item: item[0] == "ignore"))
    reading = Reading(channels_last, found.flat, window, repair_headers)
    facts = each(partial(inspect_case, reading=reading), found.cases, processes=processes, title="Checking")
    cases, problems, left_out = list(found.cases), list(found.problems), list[str]()
    if leave_out_bad:
        cases, facts, left_out = _without_bad(found, facts)
    else:
        problems += found.incomplete
        problems += [line for it in facts for line in it.lines]
    ending, more = common_ending(src, cases, facts)
    problems += more + odd_cases(cases, facts)
    values, notes, more = label_values(src, found, cases, facts, chosen)
    good = next((it for it in facts if not it.problems), None)  # whose channels are all known
    count = good.channels if good else 0
    names = list(channel_names or _names_of(found, count, good))
    problems += more + (window_problems(window, names) if good else [])
    if good and len(names) != count:
        expected = f"{count} names, one per channel of the images"
        problems.append(problem("--channel-names", expected=expected, found=", ".join(names)))
    if problems:
        raise InputError(*dict.fromkeys(problems))  # cases may share a file
    if not cases:
        expected = "at least one case with an image and masks"
        raise InputError(problem(src, expected=expected, found="none"), *left_out)
    result = Conversion(folder, found, reading, cases, facts, ending, names, values, notes, left_out)
    if not dry_run:
        _write(result, src, overwrite=overwrite, processes=processes)
    return result


def convert_raters(
    src: Path,
    *,
    layout: str = "auto",
    task: int | None = None,
    subset: str | None = None,
    images: str | None = None,
    raters: str | None = None,
    **options: Any,
) -> Conversion:
    """`convert` of images with several raters' masks; see `nnunet_dml.nnunet.layouts.find_cases` for the layouts."""
    find = partial(find_cases, layout=layout, task=task, subset=subset, images=images, raters=raters)
    return convert(src, find, **options)


def _names_of(found: Found, count: int, facts: Facts | None) -> Sequence[str]:
    """The archive's names of channels, where it has as many; else made-up ones."""
    if len(found.channel_names) == count:
        return found.channel_names
    return default_channels(count, facts.picture_channels if facts else 1)


def _without_bad(found: Found, facts: Sequence[Facts]) -> tuple[list[Case], list[Facts], list[str]]:
    """The cases without bad images and masks, and a line for each of these."""
    cases, kept, lines = [], [], list(found.incomplete)
    for case, it in zip(found.cases, facts, strict=True):
        lines += it.lines
        raters = {rater: mask for rater, mask in case.raters.items() if rater not in it.masks}
        if not it.problems and raters:
            cases.append(replace(case, raters=raters))
            kept.append(replace(it, values={rater: it.values[rater] for rater in raters}))
        else:
            lines.append(
                f"case {case.name}, as {'its image is' if it.problems else 'all its masks are'} bad."
            )
    return cases, kept, list(dict.fromkeys(lines))


def _write(result: Conversion, src: Path, *, overwrite: bool, processes: int) -> None:
    with atomic_folder(result.folder, replace=overwrite) as folder:
        for name in ("imagesTr", "labelsTr", *(() if result.found.single else ("ratersTr",))):
            (folder / name).mkdir()
        numbers = {value: label for label, value in enumerate(result.labels.values(), start=1)}
        ignore_label = len(numbers) if "ignore" in result.labels else None
        target = Target(folder, result.ending, numbers, ignore_label, not result.found.single)
        work = partial(write_case, reading=result.reading, target=target)
        result.tied_voxels = each(work, result.cases, processes=processes, title="Writing")
        text = json.dumps(result.dataset_json(src), indent=2)  # ASCII: nnU-Net reads it in the locale
        (folder / "dataset.json").write_text(text + "\n", encoding="ascii")
