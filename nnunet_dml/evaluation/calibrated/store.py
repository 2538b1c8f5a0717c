"""The folder in a model that holds its calibrator: `calibration.json` and a file of arrays for each calibrator.

All paths in it are names within it, so it goes wherever the model's folder is copied.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_folder, clear_leftovers, read_json
from nnunet_dml.calibration import METHODS, Calibrator, calibrator_arrays, read_calibrator
from nnunet_dml.evaluation.calibrated.fit import Fitted
from nnunet_dml.evaluation.dataset import RawDataset, describe
from nnunet_dml.evaluation.summary import versions

FOLDER = "nnunet_dml_calibration"
RECORD = "calibration.json"
FORMAT = 1
_FINAL = "calibrator.npz"
_AGAIN = "Fit it again: `nnunet-dml calibrate fit`."


@dataclass(frozen=True)
class Stored:
    """A calibrator as it lies in a model's folder."""

    folder: Path
    record: dict[str, Any]

    @property
    def digest(self) -> str:
        """What changes whenever it is fitted to something else."""
        return hashlib.sha256(json.dumps(self.record["files"], sort_keys=True).encode()).hexdigest()

    @property
    def method(self) -> str:
        """The final calibrator's."""
        return str(self.record["method"])

    @property
    def group_of(self) -> dict[str, str]:
        """The group of each case that it was fitted on."""
        return {case: name for name, group in self.record["groups"].items() for case in group["cases"]}

    def final(self) -> Calibrator:
        """The calibrator for images that the model was not trained on.

        Raises:
            InputError: Its file is missing, damaged or another.
        """
        return self._read(_FINAL)

    def without(self, group: str) -> Calibrator:
        """The calibrator that knows nothing of a group's cases; errors as of `final`."""
        return self._read(self.record["groups"][group]["file"])

    def _read(self, name: str) -> Calibrator:
        path = self.folder / name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise InputError(problem(path, expected="a calibrator", found="no file", todo=_AGAIN)) from None
        if hashlib.sha256(content).hexdigest() != self.record["files"].get(name):
            expected = f"the file that {RECORD} was written with"
            raise InputError(problem(path, expected=expected, found="a damaged or another one", todo=_AGAIN))
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return read_calibrator(dict(arrays))
        except Exception as error:  # zipfile and NumPy raise whatever they say
            found = f"another content ({error})"
            raise InputError(
                problem(path, expected="a calibrator's arrays", found=found, todo=_AGAIN)
            ) from None


def write(model: Path, dataset: RawDataset, fitted: Fitted, *, options: Mapping[str, Any]) -> Path:
    """Store what was fitted in a model's folder, in place of an older one, whole or not at all.

    Returns:
        The folder.
    """
    target = model / FOLDER
    clear_leftovers(model, FOLDER)
    with atomic_folder(target, replace=True) as temporary:
        calibrators = {_FINAL: fitted.calibrator} | {
            f"without_{n}.npz": it for n, it in fitted.without.items()
        }
        files = {}
        for name, calibrator in calibrators.items():
            arrays: dict[str, Any] = calibrator_arrays(calibrator)
            np.savez_compressed(temporary / name, **arrays)
            files[name] = hashlib.sha256((temporary / name).read_bytes()).hexdigest()
        record = {
            "format": FORMAT,
            "method": fitted.method,
            "keeps_argmax": fitted.calibrator.keeps_argmax,
            "dataset": dataset.name,
            "model": model.name,
            "labels": describe(dataset),
            "reference": fitted.reference,
            "cases": sum(len(it.cases) for it in fitted.groups),
            "voxels": fitted.voxels,
            "sampled": fitted.rows,
            "cross_fitted": {
                "methods": fitted.figures,
                "before": fitted.figures["none"],
                "after": fitted.after,
            },
            "groups": {
                group.name: {
                    "file": f"without_{group.name}.npz",
                    "method": fitted.without[group.name].method,
                    "cases": [it.case for it in group.cases],
                }
                for group in fitted.groups
            },
            "files": files,
            "options": dict(options),
            "notes": fitted.notes,
            "versions": versions(),
        }
        text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False)
        (temporary / RECORD).write_text(text + "\n", encoding="utf-8")
    return target


def read(model: Path) -> Stored | None:
    """The calibrator in a model's folder; None if none was fitted.

    Raises:
        InputError: `calibration.json` is damaged or of another format.
    """
    clear_leftovers(model, FOLDER)
    folder = model / FOLDER
    if not folder.is_dir():
        return None
    path = folder / RECORD
    record = read_json(path, todo=_AGAIN)
    try:
        groups = record["groups"].values()
        whole = type(record["format"]) is int and record["format"] == FORMAT
        whole = whole and record["method"] in METHODS
        whole = whole and all(_is_group(it) for it in groups)
        whole = whole and isinstance(record["files"], dict) and isinstance(record["labels"]["channels"], list)
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        expected = f"a calibration of format {FORMAT}"
        raise InputError(problem(path, expected=expected, found="another content", todo=_AGAIN))
    return Stored(folder, record)


def _is_group(group: dict[str, Any]) -> bool:
    """Whether a group's calibrator lies in the folder and its cases are named."""
    file = group["file"]
    return Path(file).name == file and all(isinstance(case, str) for case in group["cases"])


def files_to_give_away(model: Path) -> dict[str, bytes]:
    """What a model's calibrator needs on another machine, by path in the model's folder; empty if none was fitted.

    Without the names of the cases, and without the calibrators that only these need.

    Raises:
        InputError: As of `read`; a file is missing or damaged.
    """
    stored = read(model)
    if stored is None:
        return {}
    stored.final()  # refuses what could not be used there
    files = {_FINAL: stored.record["files"][_FINAL]}
    record = {**stored.record, "groups": {}, "notes": [], "files": files}
    return {
        f"{FOLDER}/{RECORD}": f"{json.dumps(record, indent=2, ensure_ascii=False)}\n".encode(),
        f"{FOLDER}/{_FINAL}": (stored.folder / _FINAL).read_bytes(),
    }


def check_labels(stored: Stored, dataset: RawDataset) -> None:
    """Refuse to calibrate probabilities of other classes or regions.

    Args:
        stored: The calibrator.
        dataset: The labels of what it is to be applied to.

    Raises:
        InputError: They differ.
    """
    theirs = describe(dataset)
    if stored.record["labels"] != theirs:
        expected, found = (
            ", ".join(f"{name} {own}" for name, own in it["channels"])
            for it in (theirs, stored.record["labels"])
        )
        expected = f"a calibrator of the labels of {dataset.folder / 'dataset.json'} ({expected})"
        raise InputError(problem(stored.folder, expected=expected, found=f"one of {found}", todo=_AGAIN))
