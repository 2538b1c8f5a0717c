"""An evaluation that `nnunet-dml evaluate` wrote, read back; and whether two of them may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import read_json
from nnunet_dml.evaluation.measures import MEASURES
from nnunet_dml.evaluation.records import CASES, SUMMARY, CaseRecord, read_records

SAME_VOLUME = 1e-4
"""How far, relatively, two evaluations' volumes of one reference may differ: sums of float32 in another order."""

ADDED = {"surfaces"}
"""Options that add figures and change none."""


@dataclass(frozen=True)
class Evaluation:
    """The figures of a model's cases."""

    folder: Path
    name: str
    """What tables and figures call it."""
    summary: dict[str, Any]
    records: list[CaseRecord]
    """By fold and case."""

    @property
    def dataset(self) -> str:
        """The raw data set's name."""
        return str(self.summary["dataset"])

    @property
    def classes(self) -> list[str]:
        """The foreground classes or regions, in order."""
        return [str(name) for name in self.summary["classes"]]

    @property
    def cases(self) -> dict[str, CaseRecord]:
        """The records by the case's name."""
        return {record.case: record for record in self.records}

    @property
    def measures(self) -> list[str]:
        """Names of what was measured in any case, in the order of `MEASURES`."""
        found = {
            name for r in self.records for values in (r.overall, *r.per_class.values()) for name in values
        }
        return [name for name in MEASURES if name in found]

    def values(self, measure: str) -> npt.NDArray[np.float64]:
        """A measure of all cases.

        Returns:
            `(cases, classes)`, or `(cases, 1)` where it has no class; NaN where undefined or not measured.
        """
        if MEASURES[measure].per_class:
            rows = [
                [r.per_class.get(name, {}).get(measure, np.nan) for name in self.classes]
                for r in self.records
            ]
        else:
            rows = [[r.overall.get(measure, np.nan)] for r in self.records]
        return np.array(rows, dtype=np.float64)

    def only(self, cases: Sequence[str]) -> Evaluation:
        """The same with these cases, in this order."""
        known = self.cases
        return Evaluation(self.folder, self.name, self.summary, [known[name] for name in cases])


def read_evaluation(folder: Path, name: str = "") -> Evaluation:
    """An evaluation from its folder.

    Args:
        folder: With `summary.json` and `cases/<case>.json`.
        name: What to call it; the folder's name by default.

    Raises:
        InputError: It is no evaluation, or a file of it is damaged.
    """
    todo = "Give the folder that `nnunet-dml evaluate -o` wrote."
    if not folder.is_dir():
        found = "a file" if folder.exists() else "none"
        raise InputError(problem(folder, expected="a folder of an evaluation", found=found, todo=todo))
    path = folder / SUMMARY
    summary = read_json(path, todo=todo)
    lacking = [key for key in ("dataset", "classes", "source") if key not in summary]
    if lacking or not isinstance(summary["classes"], list) or not summary["classes"]:
        found = f"none of {', '.join(lacking)} in it" if lacking else "no classes in it"
        raise InputError(problem(path, expected="a summary of an evaluation", found=found, todo=todo))
    kinds = {"options": dict, "raters": dict, "notes": list, "training": dict}
    if wrong := [key for key, kind in kinds.items() if not isinstance(summary.get(key, kind()), kind)]:
        found = f"{', '.join(wrong)} of another kind"
        raise InputError(problem(path, expected="a summary of an evaluation", found=found, todo=todo))
    records = read_records(folder)
    evaluation = Evaluation(folder, name or folder.resolve().name, summary, records)
    names = set(evaluation.classes)
    wrong = [r.case for r in records if set(r.per_class) != names]
    if wrong:
        expected = f"the classes {', '.join(evaluation.classes)} of {SUMMARY} in every case"
        todo = "Evaluate again, into an empty folder."
        raise InputError(
            problem(folder / CASES, expected=expected, found=f"others in {some(wrong)}", todo=todo)
        )
    if len(records) != summary.get("cases", len(records)):
        expected = f"the records of the {summary['cases']} cases in {SUMMARY}"
        todo = "Evaluate again."
        raise InputError(problem(folder / CASES, expected=expected, found=f"{len(records)}", todo=todo))
    if not any(r.overall for r in records) and not evaluation.measures:
        raise InputError(problem(folder / CASES, expected="figures in the records", found="none"))
    return evaluation


def read_evaluations(folders: Sequence[Path], names: Sequence[str] | None = None) -> list[Evaluation]:
    """Several evaluations that may be compared.

    Args:
        folders: At least one.
        names: What to call them, one each; by default the folders' names, with as much of their paths as tells them
            apart.

    Raises:
        InputError: A folder is given twice or is no evaluation; names are too few, too many or double; or the
            evaluations differ in data set, classes, options or reference.
    """
    resolved = [folder.resolve() for folder in folders]
    twice = [str(a) for i, a in enumerate(folders) if resolved[i] in resolved[:i]]
    if twice:
        raise InputError(
            problem(
                ", ".join(twice), expected="each evaluation once", found="it twice", todo="Leave one out."
            )
        )
    if names is None:
        names = _told_apart(resolved)
    elif len(names) != len(folders) or len(set(names)) != len(names):
        found = f"{len(names)}: {' '.join(names)}"
        raise InputError(problem("--names", expected=f"{len(folders)} different names", found=found))
    found_all: list[Evaluation] = []
    problems: list[str] = []
    for folder, name in zip(folders, names, strict=True):
        try:
            found_all.append(read_evaluation(folder, name))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    for other in found_all[1:]:
        check_comparable(found_all[0], other)
    return found_all


def check_comparable(first: Evaluation, other: Evaluation) -> None:
    """Check that two evaluations measured the same things against the same reference.

    Raises:
        InputError: With everything in which they differ: data set, classes, options, the reference's volumes.
    """
    problems = []
    options, its = first.summary.get("options", {}), other.summary.get("options", {})
    reference, theirs = (it.summary.get("raters", {}).get("soft_reference") for it in (first, other))
    pairs = [
        ("the data set", first.dataset, other.dataset),
        ("the classes", ", ".join(first.classes), ", ".join(other.classes)),
        ("the soft reference", reference, theirs),
        *((f"the option {key}", options.get(key), its.get(key)) for key in sorted({*options, *its} - ADDED)),
    ]
    for what, wanted, found in pairs:
        if wanted != found:
            todo = f"Only evaluations of one kind can be compared; {first.folder} is of the other."
            problems.append(
                problem(other.folder, expected=f"{what} {_said(wanted)}", found=_said(found), todo=todo)
            )
    if not problems:
        problems = _other_volumes(first, other)
    if problems:
        raise InputError(*problems)


def _other_volumes(first: Evaluation, other: Evaluation) -> list[str]:
    """The problem that a case's reference has another volume: labels or raters were changed in between."""
    common = sorted(first.cases.keys() & other.cases.keys())
    if not common:
        return []
    a, b = (it.only(common).values("reference_ml") for it in (first, other))
    differ = ~np.isclose(a, b, rtol=SAME_VOLUME, atol=1e-9, equal_nan=True) & ~np.isnan(a) & ~np.isnan(b)
    wrong = [name for name, row in zip(common, differ, strict=True) if row.any()]
    if not wrong:
        return []
    i, c = np.argwhere(differ)[0]
    expected = f"the reference of {first.folder}, {a[i, c]:.4g} ml of {first.classes[c]} in {common[i]}"
    found = f"{b[i, c]:.4g} ml; it differs in {some(wrong)}"
    return [problem(other.folder, expected=expected, found=found, todo="Evaluate both again.")]


def _said(value: object) -> str:
    return "none" if value is None else str(value)


def _told_apart(folders: Sequence[Path]) -> list[str]:
    """The ends of the paths, as long as they must be to differ."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = [Path(*folder.parts[-depth:]).as_posix() for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]
