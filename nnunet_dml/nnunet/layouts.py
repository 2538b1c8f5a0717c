"""Where images and raters' masks lie in a folder: the layouts that `nnunet-dml convert raters` knows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._images import split_ending


@dataclass(frozen=True)
class Case:
    """One case: its image files (one, or one per channel, in order) and each rater's mask."""

    name: str
    images: tuple[Path, ...]
    raters: dict[str, Path]


@dataclass
class Found:
    """What a layout found: cases sorted by name, problems, and files that were left aside."""

    cases: list[Case] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ignored: list[Path] = field(default_factory=list)


def find_cases(
    src: Path, layout: str, *, task: int | None = None, images: str | None = None, raters: str | None = None
) -> Found:
    """Look for cases in a folder.

    Args:
        src: The folder.
        layout: `qubiq`, `folders` or `flat`.
        task: For `qubiq`: the number in `taskNN_segNN`. May be left out where there is one task only.
        images: For `flat`: pattern of the images relative to `src`, with `{case}`; `*` stands for anything.
        raters: For `flat`: pattern of the masks, with `{case}` and `{rater}`.

    Raises:
        InputError: The folder is missing or of another layout, or an option is missing or does not fit.
    """
    if not src.is_dir():
        found = "a file" if src.exists() else "nothing there"
        raise InputError(problem(src, expected="a folder with images and raters' masks", found=found))
    if layout != "flat" and (images or raters):
        raise InputError("--images, --raters: expected only with --layout flat. Leave them out.")
    if layout != "qubiq" and task is not None:
        raise InputError("--task: expected only with --layout qubiq. Leave it out.")
    if layout == "qubiq":
        return _qubiq(src, task)
    return _folders(src) if layout == "folders" else _flat(src, images, raters)


def _qubiq(src: Path, task: int | None) -> Found:
    """`<case>/image.*` (or `image_0000.*`, …) and `<case>/taskNN_segNN.*`."""
    found = Found()
    masks: dict[str, list[tuple[int, str, Path]]] = {}
    images: dict[str, dict[Path, int | None]] = {}
    for folder in _visible(src):
        if not folder.is_dir():
            found.ignored.append(folder)
            continue
        masks[folder.name], images[folder.name] = [], {}
        for path in _visible(folder):
            stem, ending = split_ending(path.name)
            if ending and (match := re.fullmatch(r"task(\d+)_(seg\d+)", stem)):
                masks[folder.name].append((int(match[1]), match[2], path))
            elif ending and (match := re.fullmatch(r"image(?:_(\d{4}))?", stem)):
                images[folder.name][path] = int(match[1]) if match[1] else None
            else:
                found.ignored.append(path)
    tasks = sorted({number for rows in masks.values() for number, _, _ in rows})
    if not tasks:
        _wrong_layout(src, "case folders with image.* and task01_seg01.*, task01_seg02.*, …", "qubiq")
    if task is None and len(tasks) > 1:
        names = ", ".join(map(str, tasks))
        raise InputError(
            problem(src, expected="one task", found=f"tasks {names}", todo="Choose one with --task.")
        )
    task = tasks[0] if task is None else task
    if task not in tasks:
        names = ", ".join(map(str, tasks))
        raise InputError(problem("--task", expected=f"one of {names} (in {src})", found=str(task)))
    for name, rows in masks.items():
        if not images[name] and not rows:
            found.ignored.append(src / name)
            continue
        entries = [(rater, path) for number, rater, path in rows if number == task]
        _add_case(found, name, _channels(found, images[name]), entries, src / name, f"task{task:02d}_segNN.*")
    return found


def _folders(src: Path) -> Found:
    """`images/<case>.*` (or `<case>_0000.*`, …) and `raters/<rater>/<case>.*`."""
    if not (src / "images").is_dir() or not (src / "raters").is_dir():
        _wrong_layout(src, "the folders images/ and raters/<rater>/", "folders")
    found = Found()
    images = _readable(found, _visible(src / "images"))
    masks: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for folder in _visible(src / "raters"):
        if not folder.is_dir():
            found.ignored.append(folder)
            continue
        for stem, path in _readable(found, _visible(folder)):
            masks[stem].append((folder.name, path))
    for name, paths in _group(found, images, set(masks)).items():
        _add_case(found, name, paths, masks.pop(name, []), src / "raters", f"<rater>/{name}.*")
    _orphans(found, masks, f"an image images/{{case}}.* in {src}")
    return found


def _flat(src: Path, images: str | None, raters: str | None) -> Found:
    """Images and masks named by patterns. A file that fits both goes to the one with more literal text."""
    for option, pattern, needed in (("--images", images, {"case"}), ("--raters", raters, {"case", "rater"})):
        names = set(re.findall(r"\{(\w*)\}", pattern or ""))
        if names != needed:
            wanted = " and ".join(f"{{{n}}}" for n in sorted(needed))
            todo = "Example: --layout flat --images '{case}_img.nii.gz' --raters '{case}_{rater}.nii.gz'."
            raise InputError(
                problem(option, expected=f"a pattern with {wanted}", found=repr(pattern), todo=todo)
            )
    assert images is not None
    assert raters is not None
    found = Found()
    literal = [len(re.sub(r"\{\w+\}|\*", "", pattern)) for pattern in (images, raters)]
    image_regex, rater_regex = _regex(images), _regex(raters)
    image_files: list[tuple[str, Path]] = []
    rater_files: list[tuple[str, Path]] = []
    for path in sorted(src.rglob("*")):
        relative = path.relative_to(src)
        if not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        name = relative.as_posix()
        as_image, as_rater = image_regex.fullmatch(name), rater_regex.fullmatch(name)
        if not split_ending(path.name)[1] or not (as_image or as_rater):
            found.ignored.append(path)
        elif as_image and as_rater and literal[0] == literal[1]:
            todo = "Make the patterns more specific."
            found.problems.append(
                problem(path, expected="an image or a mask", found="both patterns fit", todo=todo)
            )
        elif as_image and (not as_rater or literal[0] > literal[1]):
            image_files.append((_stem(as_image["case"]), path))
        else:
            rater_files.append((name, path))
    if not image_files and not rater_files:
        _wrong_layout(src, f"files like {images} and {raters}", "flat")
    stems = sorted({stem for stem, _ in image_files})
    prefixes = sorted({stem[:-5] for stem in stems if re.fullmatch(r".+_\d{4}", stem)})
    masks: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for name, path in rater_files:
        fits = _splits(raters, name, stems) or _splits(raters, name, prefixes)
        if len(fits) > 1:
            ways = " or ".join(f"case {case} by rater {rater}" for case, rater in fits)
            todo = "Rename it, or use a more specific pattern."
            found.problems.append(problem(path, expected="one reading of its name", found=ways, todo=todo))
            continue
        match = rater_regex.fullmatch(name)
        assert match is not None
        case, rater = fits[0] if fits else (_stem(match["case"]), _stem(match["rater"]))
        masks[case].append((rater, path))
    for name, paths in _group(found, image_files, set(masks)).items():
        _add_case(found, name, paths, masks.pop(name, []), src, raters.replace("{case}", name))
    _orphans(found, masks, f"an image {images} in {src}")
    return found


def _regex(pattern: str, case: str = "") -> re.Pattern[str]:
    seen: set[str] = set()
    text = ""
    for part in re.split(r"(\{case\}|\{rater\}|\*)", pattern):
        if part == "*":
            text += "[^/]*"
        elif part in ("{case}", "{rater}"):
            name = part[1:-1]
            text += (
                f"(?P={name})"
                if name in seen
                else f"(?P<{name}>{re.escape(case) if case and name == 'case' else '[^/]+'})"
            )
            seen.add(name)
        else:
            text += re.escape(part)
    return re.compile(text)


def _splits(pattern: str, name: str, cases: Iterable[str]) -> list[tuple[str, str]]:
    """The ways to read a mask's name as one of the known cases and a rater."""
    matches = ((case, _regex(pattern, case).fullmatch(name)) for case in cases if case in name)
    return [(case, _stem(match["rater"])) for case, match in matches if match]


def _stem(name: str) -> str:
    return split_ending(name)[0]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _readable(found: Found, paths: Iterable[Path]) -> list[tuple[str, Path]]:
    """(name without ending, path) of the files that nnU-Net could read; the others are left aside."""
    rows = []
    for path in paths:
        stem, ending = split_ending(path.name)
        if ending and path.is_file():
            rows.append((stem, path))
        else:
            found.ignored.append(path)
    return rows


def _group(found: Found, images: list[tuple[str, Path]], masked: set[str]) -> dict[str, tuple[Path, ...]]:
    """Image files by case.

    `<case>_0000` is a channel of `<case>`, unless masks are named so too: then it is part of the name.
    """
    numbered = re.compile(r"(.+)_(\d{4})")
    named = any(numbered.fullmatch(stem) and stem in masked for stem, _ in images)
    cases: dict[str, dict[Path, int | None]] = defaultdict(dict)
    for stem, path in images:
        channel = None if named else numbered.fullmatch(stem)
        cases[channel[1] if channel else stem][path] = int(channel[2]) if channel else None
    return {name: _channels(found, paths) for name, paths in sorted(cases.items())}


def _channels(found: Found, paths: dict[Path, int | None]) -> tuple[Path, ...]:
    """One case's image files in the order of their channels: one image, or 0000, 0001, … without gaps."""
    numbers = sorted(paths.values(), key=lambda n: -1 if n is None else n)
    if numbers and numbers not in ([None], list(range(len(paths)))):
        names = ", ".join(path.name for path in paths)
        expected = "one image for each case, or channels _0000, _0001, … without gaps"
        todo = "Keep one of them, or rename them."
        found.problems.append(problem(next(iter(paths)).parent, expected=expected, found=names, todo=todo))
    return tuple(sorted(paths, key=lambda path: paths[path] or 0))


def _add_case(
    found: Found,
    name: str,
    images: tuple[Path, ...],
    masks: list[tuple[str, Path]],
    where: Path,
    pattern: str,
) -> None:
    """Keep a case, or say what it lacks."""
    raters: dict[str, Path] = {}
    for rater, path in masks:
        if rater in raters:
            todo = "Keep one of them."
            both = f"{raters[rater].name} and {path.name}"
            found.problems.append(
                problem(
                    path.parent, expected=f"one mask of case {name} by rater {rater}", found=both, todo=todo
                )
            )
        raters.setdefault(rater, path)
    if not images:
        found.problems.append(
            problem(where, expected="image.* beside the masks", found="no image", todo=_LACK)
        )
    if not raters:
        expected = f"at least one rater's mask {pattern} for case {name}"
        found.problems.append(problem(where, expected=expected, found="none", todo=_LACK))
    if images and raters:
        found.cases.append(Case(name, images, raters))


_LACK = "Add it, or take the case out."


def _orphans(found: Found, masks: dict[str, list[tuple[str, Path]]], expected: str) -> None:
    for case, rows in sorted(masks.items()):
        near = [path.name for path in found.ignored if path.name.startswith(case)]
        what = f"only {', '.join(near)}, which nnU-Net does not read" if near else "none"
        wanted = expected.replace("{case}", case)
        found.problems.extend(problem(path, expected=wanted, found=what, todo=_LACK) for _, path in rows)


def _wrong_layout(src: Path, expected: str, layout: str) -> None:
    """Raise, saying what was looked for and what lies there."""
    names = [path.name + "/" * path.is_dir() for path in _visible(src)]
    found = some(names) or "an empty folder"
    todo = ""
    if layout != "folders" and (src / "images").is_dir() and (src / "raters").is_dir():
        todo = "This looks like --layout folders."
    elif layout != "qubiq" and next(src.glob("*/task*_seg*"), None):
        todo = "This looks like --layout qubiq."
    raise InputError(problem(src, expected=f"{expected} (layout {layout})", found=found, todo=todo))
