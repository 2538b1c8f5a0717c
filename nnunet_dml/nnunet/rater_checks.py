"""Checks of several raters' masks over all cases together: file ending, channels, label values, names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml.nnunet.layouts.cases import Case, Found, ending_of, path_of
from nnunet_dml.nnunet.rater_cases import Facts


def check_names(labels: Mapping[str, int] | None, channel_names: Sequence[str] | None) -> None:
    """Refuse names and values of labels and channels that nnU-Net could not keep apart."""
    problems = []
    for name, value in (labels or {}).items():
        if (
            name in ("background", "", "all") or value < 1 or not name.isprintable()
        ):  # `all` is a row of cases.csv
            expected = "a printable name other than background and all, and a value of at least 1"
            problems.append(problem("--labels", expected=expected, found=repr(f"{name}={value}")))
    if labels and set(labels) == {"ignore"}:
        found = f"ignore={labels['ignore']} alone"
        problems.append(problem("--labels", expected="a label beside ignore", found=found))
    if labels and len(set(labels.values())) < len(labels):
        found = " ".join(f"{name}={value}" for name, value in labels.items())
        problems.append(problem("--labels", expected="each value once", found=found))
    if channel_names is not None and not all(it and it.isprintable() for it in channel_names):
        problems.append(
            problem("--channel-names", expected="names such as MR,T2", found=repr(",".join(channel_names)))
        )
    if problems:
        raise InputError(*problems)


def common_ending(src: Path, cases: Sequence[Case], facts: Sequence[Facts]) -> tuple[str, list[str]]:
    """The images' common ending: nnU-Net wants one for a whole dataset."""
    by_ending: dict[str, list[str]] = {}
    for case in cases:
        for source in case.images:
            name = path_of(source).relative_to(src).as_posix()
            by_ending.setdefault(ending_of(source), []).append(name)
    if set(by_ending) == {".nii", ".nii.gz"}:
        return ".nii.gz", []  # the same but for the packing
    if len(by_ending) > 1:
        found = " and ".join(
            f"{ending} ({len(names)}: {some(names, 3)})" for ending, names in by_ending.items()
        )
        todo = "Convert the images to one format."
        return "", [problem(src, expected="one file ending for all images", found=found, todo=todo)]
    ending = next(iter(by_ending), ".nii.gz")
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
            rows.append(
                problem(path_of(case.images[0]), expected=expected, found=f"{kind[0]}D with {kind[1]}")
            )
    return rows


def named_labels(labels: Mapping[str, int | None], known: Mapping[str, int]) -> dict[str, int]:
    """Labels with the value of each; a name alone takes the value that the archive gives to it.

    Raises:
        InputError: The archive knows no such name.
    """
    made: dict[str, int] = {}
    for name, value in labels.items():
        if value is None and name not in known:
            expected = f"NAME=VALUE, or one of {', '.join(known)}" if known else "NAME=VALUE"
            raise InputError(problem("--labels", expected=expected, found=repr(name)))
        made[name] = known[name] if value is None else value
    return made


def label_values(
    src: Path, found: Found, cases: Sequence[Case], facts: Sequence[Facts], labels: Mapping[str, int] | None
) -> tuple[dict[str, int], list[str], list[str]]:
    """Name → value in the files, notes for the summary, and problems.

    Values that an archive is known to have and that are not among `labels` are background.
    """
    rows = [
        (path_of(case.raters[rater]), rater in fact.wide, values)
        for case, fact in zip(cases, facts, strict=True)
        for rater, values in fact.values.items()
    ]
    seen = sorted({value for _, _, values in rows for value in values} - {0})
    known = found.labels
    if labels is not None or (known and seen):
        chosen = {name: it for name, it in known.items() if it in seen} if labels is None else labels
        allowed = {0, *chosen.values(), *known.values()}
        meant = [str(value) for value in chosen.values()]
        meant += [f"{it} ({name})" for name, it in known.items() if it not in chosen.values()]
        wanted = f"the values 0, {', '.join(meant)} of {'--labels' if labels is not None else found.layout}"
        problems = [
            problem(
                path, expected=wanted, found=some(values, 10), todo="Name the others too, or mend the mask."
            )
            for path, _, values in rows
            if not allowed.issuperset(values)
        ]
        notes = [
            f"note: no mask has label {name} ({value})" for name, value in chosen.items() if value not in seen
        ]
        left = [name for name, value in known.items() if value in seen and value not in chosen.values()]
        notes += [f"made background: {', '.join(left)}"] if left else []
        return dict(chosen), notes, problems
    default = found.label
    if seen == [255] and not any(wide for _, wide, _ in rows):
        return {default: 255}, ["values 0 and 255 in 8-bit files read as 0 and 1"], []
    if seen and seen == list(range(1, len(seen) + 1)):
        names = [default] if len(seen) == 1 else [f"label{value}" for value in seen]
        return dict(zip(names, seen, strict=True)), [], []
    if not rows:
        return {}, [], []
    rare = {value: [path for path, _, values in rows if value in values] for value in seen}
    where = [f"{value} in {len(paths)} masks, e.g. {paths[0]}" for value, paths in list(rare.items())[:10]]
    there = f"0, {some(seen, 10)} ({'; '.join(where)})" if seen else "0 only"
    line = " ".join(f"name{i}={value}" for i, value in enumerate(seen[:10] or [1], start=1))
    expected = "label values 0, 1, 2, … without gaps in the masks, or 0 and 255 in 8-bit files"
    todo = f"Say what the values mean: --labels {line}"
    return {}, [], [problem(src, expected=expected, found=there, todo=todo)]


def window_problems(window: tuple[int, int] | None, names: Sequence[str]) -> list[str]:
    """What is wrong with a window of Hounsfield units for channels of these names."""
    if window is None:
        return []
    if window[0] >= window[1]:
        found = f"{window[0]} {window[1]}"
        return [problem("--window", expected="a lower and a higher number", found=found)]
    others = [name for name in names if name.casefold() != "ct"]
    if not others:
        return []
    todo = f"Where they are Hounsfield units, say so: --channel-names {','.join(['CT'] * len(names))}"
    return [problem("--window", expected="channels named CT", found=", ".join(names), todo=todo)]


def default_channels(count: int, picture_channels: int) -> list[str]:
    """Names for channels that were given none."""
    if picture_channels == count and count in (3, 4):
        return list("RGBA")[:count]
    return ["image"] if count == 1 else [f"channel{i}" for i in range(count)]
