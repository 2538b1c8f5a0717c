"""Folds that never have one patient's cases on both sides: nnU-Net's `splits_final.json`, by group."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.utilities.crossval_split import generate_crossval_split
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import atomic_file, read_json
from nnunet_dml._folders import environment_folder, find_dataset
from nnunet_dml._images import ending_of_dataset

FILE = "splits_final.json"
SEED = 12345  # nnU-Net's own

Split = dict[str, list[str]]


def split_by_group(cases: Sequence[str], pattern: str, *, folds: int = 5) -> list[Split]:
    """Folds over groups of cases, by nnU-Net's own function and seed.

    Args:
        cases: Their names.
        pattern: A regular expression that matches a whole name, with one pair of parentheses around the group.
        folds: How many.

    Returns:
        A dictionary of `train` and `val` for each fold, as in `splits_final.json`.

    Raises:
        InputError: The pattern is none, does not match a case, or finds fewer groups than folds.

    >>> [it["val"] for it in split_by_group(["a_1", "a_2", "b_1"], "(.)_.", folds=2)]
    [['b_1'], ['a_1', 'a_2']]
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        expected, found = "a regular expression", f"{pattern!r} ({error})"
        raise InputError(problem("--groups", expected=expected, found=found)) from None
    if groups != 1:
        expected = "one pair of parentheses, around the group's name"
        raise InputError(problem(f"--groups {pattern}", expected=expected, found=str(groups)))
    matches = {case: re.fullmatch(pattern, case) for case in sorted(cases)}
    if unmatched := [case for case, match in matches.items() if match is None or match[1] is None]:
        expected = "a pattern that matches every case's name"
        raise InputError(
            problem(f"--groups {pattern}", expected=expected, found=f"no match of {some(unmatched)}")
        )
    group_of = {case: match[1] for case, match in matches.items() if match}
    names = sorted(set(group_of.values()))
    if not 2 <= folds <= len(names):
        expected = f"2 folds or more, and as many groups ({len(names)}: {some(names)})"
        raise InputError(problem("--folds", expected=expected, found=str(folds)))
    return [
        {side: [case for case in matches if group_of[case] in fold[side]] for side in ("train", "val")}
        for fold in generate_crossval_split(names, seed=SEED, n_splits=folds)
    ]


def write_splits(
    dataset: str, pattern: str, *, folds: int = 5, overwrite: bool = False
) -> tuple[Path, list[Split]]:
    """Write the `splits_final.json` of a data set.

    Args:
        dataset: Id or name, in nnUNet_raw; nnUNet_preprocessed gets its folder.
        pattern: As of `split_by_group`.
        folds: How many.
        overwrite: Replace a file of other folds.

    Returns:
        The file and what is in it.

    Raises:
        InputError: As `split_by_group`, dataset.json is damaged, or there are other folds already.
    """
    raw = find_dataset(dataset, environment_folder("nnUNet_raw"))
    described = read_json(raw / "dataset.json")
    ending_of_dataset(described, raw / "dataset.json")
    cases = list(get_filenames_of_train_images_and_targets(str(raw), described))
    splits = split_by_group(cases, pattern, folds=folds)
    path = environment_folder("nnUNet_preprocessed", must_exist=False) / raw.name / FILE
    text = json.dumps(splits, indent=2)
    if path.is_file() and not overwrite:
        if path.read_bytes() == text.encode():
            return path, splits
        todo = "Models trained on them would not fit the new ones. Give --overwrite to replace them."
        raise InputError(problem(path, expected="no folds yet", found="others", todo=todo))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path, splits
