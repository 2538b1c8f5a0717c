"""Checks of several raters' masks over all cases together: file ending, channels, label values, names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._images import split_ending
from nnunet_dml.nnunet.layouts import Case
from nnunet_dml.nnunet.rater_cases import Facts


def check_names(labels: Mapping[str, int] | None, channel_names: Sequence[str] | None) -> None:
    """Refuse names and values of labels and channels that nnU-Net could not keep apart."""
    problems = []
    for name, value in (labels or {}).items():
        if name in ("background", "") or value < 1:
            expected = "a name other than background, and a value of at least 1"
            problems.append(problem("--labels", expected=expected, found=f"{name}={value}"))
    if labels and set(labels) == {"ignore"}:
        found = f"ignore={labels['ignore']} alone"
        problems.append(problem("--labels", expected="a label beside ignore", found=found))
    if labels and len(set(labels.values())) < len(labels):
        found = " ".join(f"{name}={value}" for name, value in labels.items())
        problems.append(problem("--labels", expected="each value once", found=found))
    if channel_names is not None and not all(channel_names):
        problems.append(
            problem("--channel-names", expected="names such as MR,T2", found=repr(",".join(channel_names)))
        )
    if problems:
        raise InputError(*problems)


def common_ending(src: Path, cases: Sequence[Case], facts: Sequence[Facts]) -> tuple[str, list[str]]:
    """The images' common ending: nnU-Net wants one for a whole dataset."""
    by_ending: dict[str, list[str]] = {}
    for case in cases:
        for path in case.images:
            by_ending.setdefault(split_ending(path.name)[1], []).append(path.relative_to(src).as_posix())
    if len(by_ending) > 1:
        found = " and ".join(
            f"{ending} ({len(names)}: {some(names, 3)})" for ending, names in by_ending.items()
        )
        todo = "Convert the images to one format."
        return "", [problem(src, expected="one file ending for all images", found=found, todo=todo)]
    ending = next(iter(by_ending), "")
    # nnU-Net reads .nii with nibabel, in 3D only; the same in .nii.gz with SimpleITK, in 2D too
    flat = any(fact.grid is not None and len(fact.grid.size) == 2 for fact in facts)
    return (".nii.gz" if ending == ".nii" and flat else ending), []


def odd_cases(cases: Sequence[Case], facts: Sequence[Facts]) -> list[str]:
    """One line for each case whose number of axes or channels is not that of most cases."""
    rows = []
    read = [(case, fact) for case, fact in zip(cases, facts, strict=True) if fact.grid and not fact.problems]
    kinds = [(len(fact.grid.size), fact.channels) for _, fact in read if fact.grid]
    most = Counter(kinds).most_common(1)[0][0] if kinds else (0, 0)
    for (case, _), kind in zip(read, kinds, strict=True):
        if kind != most:
            expected = f"a {most[0]}D image with {most[1]} channels, as most cases have"
            rows.append(problem(case.images[0], expected=expected, found=f"{kind[0]}D with {kind[1]}"))
    return rows


def label_values(
    src: Path, cases: Sequence[Case], facts: Sequence[Facts], labels: Mapping[str, int] | None, default: str
) -> tuple[dict[str, int], list[str], list[str]]:
    """Name → value in the files, notes for the summary, and problems."""
    rows = [
        (case.raters[rater], rater in fact.wide, values)
        for case, fact in zip(cases, facts, strict=True)
        for rater, values in fact.values.items()
    ]
    seen = sorted({value for _, _, values in rows for value in values} - {0})
    if labels is not None:
        allowed = {0, *labels.values()}
        wanted = f"the values 0, {', '.join(map(str, labels.values()))} of --labels"
        problems = [
            problem(
                path, expected=wanted, found=some(values, 10), todo="Name the others too, or mend the mask."
            )
            for path, _, values in rows
            if not allowed.issuperset(values)
        ]
        absent = [
            f"note: no mask has label {name} ({value})" for name, value in labels.items() if value not in seen
        ]
        return dict(labels), absent, problems
    if seen == [255] and not any(wide for _, wide, _ in rows):
        return {default: 255}, ["values 0 and 255 in 8-bit files read as 0 and 1"], []
    if seen and seen == list(range(1, len(seen) + 1)):
        names = [default] if len(seen) == 1 else [f"label{value}" for value in seen]
        return dict(zip(names, seen, strict=True)), [], []
    if not rows:
        return {}, [], []
    rare = {value: [path for path, _, values in rows if value in values] for value in seen}
    where = [f"{value} in {len(paths)} masks, e.g. {paths[0]}" for value, paths in list(rare.items())[:10]]
    found = f"0, {some(seen, 10)} ({'; '.join(where)})" if seen else "0 only"
    line = " ".join(f"name{i}={value}" for i, value in enumerate(seen[:10] or [1], start=1))
    expected = "label values 0, 1, 2, … without gaps in the masks, or 0 and 255 in 8-bit files"
    todo = f"Say what the values mean: --labels {line}"
    return {}, [], [problem(src, expected=expected, found=found, todo=todo)]


def default_channels(count: int, picture_channels: int) -> list[str]:
    """Names for channels that were given none."""
    if picture_channels == count and count in (3, 4):
        return list("RGBA")[:count]
    return ["image"] if count == 1 else [f"channel{i}" for i in range(count)]


def task_of(cases: Sequence[Case]) -> int:
    """The task in the name of a mask of layout qubiq."""
    name = next(iter(cases[0].raters.values())).name
    match = re.match(r"task(\d+)", name)
    return int(match[1]) if match else 1
