"""Layout `flat`: files named by two patterns."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from nnunet_dml._checks import InputError, problem
from nnunet_dml._images import split_ending
from nnunet_dml.nnunet.layouts.cases import Found, add_case, files_below, group, orphans
from nnunet_dml.nnunet.layouts.signs import misread


def find(src: Path, images: str | None, raters: str | None) -> Found:
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
    found = Found("flat")
    literal = [len(re.sub(r"\{\w+\}|\*", "", pattern)) for pattern in (images, raters)]
    image_regex, rater_regex = _regex(images), _regex(raters)
    image_files: list[tuple[str, Path]] = []
    rater_files: list[tuple[str, Path]] = []
    for path in files_below(src):
        name = path.relative_to(src).as_posix()
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
        misread(src, f"files like {images} and {raters}", "flat")
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
    for name, paths in group(found, image_files, set(masks)).items():
        add_case(found, name, paths, masks.pop(name, []), src, raters.replace("{case}", name))
    orphans(found, masks, f"an image {images} in {src}")
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
