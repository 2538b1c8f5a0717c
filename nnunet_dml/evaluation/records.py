"""What was measured on a case, and the folder that holds it: written by the evaluation, read by the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file, read_json

CASES = "cases"  # the folder of the records in that of an evaluation
SUMMARY = "summary.json"
ZONES = ("all", "foreground", "boundary")  # of voxels that calibration is measured on


@dataclass(frozen=True)
class Sources:
    """The files that a case's figures came from; all absolute."""

    prediction: str
    reference: str
    """The label map of `labelsTr`, or its stand-in."""
    soft: str = ""
    """The soft map, where the soft reference is one."""
    raters: Mapping[str, str] = field(default_factory=dict)
    """Name of a rater: file."""
    images: Sequence[str] = ()
    """A file per channel, where there are any."""


@dataclass(frozen=True)
class CaseRecord:
    """What was measured on a case. A value that is undefined is NaN; one that was not measured is absent."""

    case: str
    fold: str
    """`0` for a validation case of `fold_0`; empty for a folder without folds."""
    sources: Sources
    spacing: Sequence[float]
    """mm, in the order of the array's axes (z, y, x)."""
    overall: Mapping[str, float]
    """Values without a class: `ece`, `soft_ece`, `brier`, …"""
    per_class: Mapping[str, Mapping[str, float]]
    """Of each foreground class or region: `dice`, `bdice`, `volume_bias`, …"""
    sums: Mapping[str, Sequence[Any]]
    """What adds up over cases, nested lists: `reliability` `(3, bins)` (voxels, sum of confidences, sum of
    accuracies; `reliability_foreground`, `_boundary` in those zones; `soft_reliability…` against the soft reference),
    `bdice` (per class and threshold), …"""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """What the summary counts: `raters` (how many), `reference_empty` (per class), `ignored_voxels`, …"""
    stamp: Mapping[str, Any] = field(default_factory=dict)
    """What the figures depend on: the files' digests or times and the options. The same stamp, the same figures."""

    def array(self, name: str) -> npt.NDArray[np.float64]:
        """A sum as an array."""
        return np.asarray(self.sums[name], dtype=np.float64)


def write_record(folder: Path, record: CaseRecord) -> None:
    """Write `folder/cases/<case>.json`, whole or not at all. NaN becomes null."""
    path = folder / CASES / f"{record.case}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        text = json.dumps(_plain(asdict(record)), allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_record(path: Path) -> CaseRecord:
    """A record from its file.

    Raises:
        InputError: If it is damaged or no record.
    """
    content = read_json(path)
    try:
        return CaseRecord(
            case=_text(content["case"]),
            fold=_text(content["fold"]),
            sources=_sources(content["sources"]),
            spacing=_spacing(content["spacing"]),
            overall=_floats(content["overall"]),
            per_class={name: _floats(values) for name, values in content["per_class"].items()},
            sums=_sums(content["sums"]),
            flags=dict(content["flags"]),
            stamp=dict(content["stamp"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        found = f"{type(error).__name__}: {error}"
        todo = "Delete it and evaluate again."
        raise InputError(problem(path, expected="the record of a case", found=found, todo=todo)) from None


def read_records(folder: Path) -> list[CaseRecord]:
    """All records of an evaluation's folder, by fold and case.

    Raises:
        InputError: If there are none, or one is damaged.
    """
    files = sorted((folder / CASES).glob("*.json")) if (folder / CASES).is_dir() else []
    if not files:
        expected, todo = f"{CASES}/*.json of `nnunet-dml evaluate`", "Evaluate first."
        raise InputError(problem(folder, expected=expected, found="none", todo=todo))
    return sorted((read_record(it) for it in files), key=lambda it: (it.fold, it.case))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} for the name of a case or a fold")
    return value


def _sources(values: Mapping[str, Any]) -> Sources:
    sources = Sources(**values)
    names = [sources.prediction, sources.reference, sources.soft, *sources.raters.values(), *sources.images]
    if not all(isinstance(it, str) for it in names):
        raise TypeError("sources that are no names of files")
    return sources


def _spacing(values: Sequence[Any]) -> list[float]:
    z, y, x = values
    return [float(z), float(y), float(x)]


def _sums(values: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Nested lists of numbers; reliability sums have three rows."""
    for name, it in values.items():
        shape = np.asarray(it, dtype=np.float64).shape
        if not shape or ("reliability" in name and (len(shape), shape[0]) != (2, 3)):
            raise ValueError(f"{name} of shape {shape}")
    return dict(values)


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """What JSON can hold: no NaN, no arrays."""
    if isinstance(value, Mapping):
        return {str(key): _plain(it) for key, it in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(it) for it in value]
    if isinstance(value, (np.floating, float)):
        return None if math.isnan(value) else float(value)
    return value.item() if isinstance(value, np.generic) else value
