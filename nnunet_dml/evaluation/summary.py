"""From the records of all cases to the summary and the two files."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_dml import __version__
from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file, check_can_write, read_json
from nnunet_dml.evaluation.definitions import DEFINITIONS
from nnunet_dml.evaluation.figures import OVERALL, PER_CLASS
from nnunet_dml.evaluation.options import Options
from nnunet_dml.evaluation.records import CASES, SUMMARY, CaseRecord
from nnunet_dml.evaluation.run import UNFINISHED
from nnunet_dml.evaluation.tables import CASES_CSV, cases_csv
from nnunet_dml.metrics import ece_from_counts, fine_grained
from nnunet_dml.metrics.empty_cases import mean_of_defined

POOLED = {
    "ece_pooled": "reliability",
    "soft_ece_pooled": "soft_reliability",
    "foreground_ece_pooled": "reliability_foreground",
    "soft_foreground_ece_pooled": "soft_reliability_foreground",
    "boundary_ece_pooled": "reliability_boundary",
    "soft_boundary_ece_pooled": "soft_reliability_boundary",
}
FIRST = ("dice", "bdice", "ece", "ece_pooled", "volume_bias")  # what stands first in every list
SOFT_REFERENCES = {
    "raters": "the raters' uniform mean",
    "softlabels": "the maps in softlabelsTr",
    "labels": "labelsTr as it is",
}


def summarise(records: Sequence[CaseRecord], foreground: Sequence[str], options: Options) -> dict[str, Any]:
    """Means, pooled figures and counts of all cases.

    Args:
        records: One per case.
        foreground: Names of the foreground classes or regions.
        options: What was measured.

    Returns:
        What JSON can hold; undefined figures are None.
    """
    bins = options.bins
    folds = sorted({r.fold for r in records if r.fold}, key=int)
    pooled = _pooled(records, "reliability")
    flags = {name: [r.flags[name] for r in records] for name in records[0].flags if name in _COUNTED}
    pairs = len(records) * len(foreground)
    reference_empty, prediction_empty = (np.array(flags[f"{it}_empty"]) for it in ("reference", "prediction"))
    return {
        "cases": len(records),
        "classes": list(foreground),
        "mean": means(records, foreground),
        "per_class": {
            name: {
                it: _number(_mean([r.per_class[name][it] for r in records]))
                for it in PER_CLASS
                if it in records[0].per_class[name]
            }
            for name in foreground
        },
        "per_fold": {
            fold: {
                "cases": sum(r.fold == fold for r in records),
                **means([r for r in records if r.fold == fold], foreground),
            }
            for fold in folds
        },
        "fine_grained": _fine_grained(records, len(foreground)),
        "reliability": {
            "edges": [k / bins for k in range(bins + 1)],
            "voxels": [int(n) for n in pooled[0]],
            "confidence_sum": pooled[1].tolist(),
            "accuracy_sum": pooled[2].tolist(),
        },
        "empty": {
            "pairs_of_case_and_class": pairs,
            "reference_empty": int(reference_empty.sum()),
            "prediction_empty": int(prediction_empty.sum()),
            "dice_decided_by_policy": int((reference_empty & prediction_empty).sum()),
            "bdice_thresholds_decided_by_policy": int(np.sum(flags["bdice_thresholds_both_empty"])),
            "bdice_thresholds": pairs * len(options.thresholds),
            "volume_bias_undefined": _undefined(records)["volume_bias"],
            "ece_undefined": _undefined(records)["ece"],
        },
        "undefined": {name: count for name, count in _undefined(records).items() if count},
        "raters": {
            "soft_reference": _soft_reference(flags["soft_reference"]),
            "per_case": {"min": min(flags["raters"]), "max": max(flags["raters"])},
            "cases_without_raters": [r.case for r in records if r.flags["raters"] == 0],
            "cases_with_one_rater": [r.case for r in records if r.flags["raters"] == 1],
            "cases_all_empty": [r.case for r in records if r.flags["raters_empty"]],
        },
        "ignored_voxels": sum(flags["ignored_voxels"]),
        "definitions": DEFINITIONS,
        "versions": versions(),
    }


_COUNTED = (
    "raters",
    "soft_reference",
    "reference_empty",
    "prediction_empty",
    "bdice_thresholds_both_empty",
    "ignored_voxels",
)


def means(records: Sequence[CaseRecord], foreground: Sequence[str]) -> dict[str, float | None]:
    """The means over some cases (and then over the classes), and the errors of all their voxels pooled."""
    values: dict[str, float | None] = {}
    for name in PER_CLASS:
        by_class = [
            _mean([r.per_class[it][name] for r in records if name in r.per_class[it]]) for it in foreground
        ]
        if any(name in values for r in records for values in r.per_class.values()):
            values[name] = _number(_mean(by_class))
    for name in OVERALL:
        found = [r.overall[name] for r in records if name in r.overall]
        if found:
            values[name] = _number(_mean(found))
    for name, sums in POOLED.items():
        values[name] = _number(float(ece_from_counts(torch.as_tensor(_pooled(records, sums)))))
    return {name: values[name] for name in dict.fromkeys((*FIRST, *values))}


def write(
    folder: Path, records: Sequence[CaseRecord], foreground: Sequence[str], summary: dict[str, Any]
) -> None:
    """Write `cases.csv` and `summary.json`, each whole or not at all.

    Raises:
        InputError: If they cannot be written (no permission, a full disk).
    """
    try:
        with (
            atomic_file(folder / SUMMARY) as summary_file,
            atomic_file(folder / CASES_CSV) as cases_file,
        ):
            cases_file.write_text(cases_csv(records, foreground), encoding="utf-8")
            text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
            summary_file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            problem(
                folder,
                expected=f"to write {CASES_CSV} and {SUMMARY} there",
                found=error.strerror or str(error),
                todo="The records of the cases are whole; nothing is measured twice.",
            )
        ) from None


def check_writable(folder: Path) -> None:
    """Find out before the work that the results cannot be written.

    Raises:
        InputError: If the folder is a file, or neither it nor its nearest parent can be written to, or it holds a
            `summary.json` of another program, such as nnU-Net's own in a validation folder; or it is a model's or of
            nnU-Net's predictions.
    """
    if marks := [it.name for it in (folder / "plans.json", *folder.glob("fold_*")) if it.exists()]:
        expected, found = "a folder for evaluations", f"one of nnU-Net's ({marks[0]})"
        raise InputError(problem(f"-o {folder}", expected=expected, found=found, todo="Give another -o."))
    theirs = folder / "summary.json"
    if theirs.is_file() and "source" not in read_json(theirs):
        todo = "Give another -o."
        expected, found = "a summary of `nnunet-dml evaluate` or none", "another program's"
        raise InputError(problem(theirs, expected=expected, found=found, todo=todo))
    taken = [folder] if folder.is_symlink() and not folder.exists() else []
    taken += [it for it in (folder / CASES, folder / UNFINISHED) if it.exists() and not it.is_dir()]
    if taken:
        expected, todo = "a folder or none", "Remove it or give another -o."
        found = "a link to nothing" if taken == [folder] else "a file"
        raise InputError(*(problem(it, expected=expected, found=found, todo=todo) for it in taken))
    if taken := [it for it in (folder / CASES_CSV, folder / SUMMARY) if it.is_dir()]:
        todo = "Remove it or give another -o."
        raise InputError(
            *(problem(it, expected="a file or none", found="a folder", todo=todo) for it in taken)
        )
    check_can_write(f"-o {folder}", folder)


def versions() -> dict[str, str]:
    """Of everything that the figures depend on."""
    found = {"nnunet_dml": __version__, "python": platform.python_version()}
    for name in ("nnunetv2", "torch", "numpy", "SimpleITK"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _fine_grained(records: Sequence[CaseRecord], classes: int) -> dict[str, dict[str, float | None]]:
    """Dice and IoU of the hard segmentations per dataset, image and class."""
    counts = np.stack([r.array("overlap")[:, -classes:] for r in records])
    return {
        metric: {name: _number(getattr(found, name)) for name in ("per_dataset", "per_image", "per_class")}
        for metric in ("dice", "iou")
        for found in [fine_grained(counts, metric=metric)]
    }


def _pooled(records: Sequence[CaseRecord], name: str) -> np.ndarray:
    return np.asarray(np.sum([r.array(name) for r in records], axis=0))


def _undefined(records: Sequence[CaseRecord]) -> Counter[str]:
    """How often each figure is undefined."""
    found: Counter[str] = Counter()
    for record in records:
        for values in (record.overall, *record.per_class.values()):
            found.update(name for name, value in values.items() if value != value)
    return found


def _soft_reference(kinds: Sequence[str]) -> str:
    if set(kinds) == {"labels"}:
        return "labelsTr as it is, as there is no ratersTr"
    first, *others = [name for name in SOFT_REFERENCES if name in kinds]
    texts = [SOFT_REFERENCES[first]]
    for it in others:
        number = list(kinds).count(it)
        texts.append(f"{SOFT_REFERENCES[it]} for {number} case{'s' * (number > 1)} without")
    return ", and ".join(texts)


def _mean(values: Sequence[float]) -> float:
    return float(mean_of_defined(torch.tensor(list(values), dtype=torch.float64)))


def _number(value: float) -> float | None:
    return None if value != value else value
