"""`nnunet-dml evaluate` against torchmetrics and MONAI on the same volumes.

Ours computes all figures of `nnunet-dml evaluate` without `--surfaces`, against labels, per case and pooled; the others what of
these they have (`COUNTERPARTS`): overlap and class-wise calibration by MONAI, ECE and MCE by torchmetrics, "per case" by its
functions, "pooled" by its classes, which keep what the pooled error needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from monai.metrics import compute_dice, compute_iou
from monai.metrics.calibration import CalibrationErrorMetric
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.functional.classification import multiclass_calibration_error

from benchmarks._timing import Aim, Line, Options, Point, Row, Table, compare, over
from nnunet_dml.evaluation.dataset import read_dataset
from nnunet_dml.evaluation.figures import OVERALL, PER_CLASS
from nnunet_dml.evaluation.npz_files import LARGE
from nnunet_dml.evaluation.options import Options as EvaluationOptions
from nnunet_dml.evaluation.predictions import of_folder
from nnunet_dml.evaluation.run import evaluate
from nnunet_dml.evaluation.summary import summarise

OURS, CASES, POOLED = (
    "nnunet_dml, all figures",
    "torchmetrics + MONAI, per case",
    "torchmetrics + MONAI, pooled",
)
CANDIDATES = (OURS, CASES, POOLED)
OVERLAPS, ERRORS = ("dice", "iou", "bdice"), ("ece", "mce", "sce")
COUNTERPARTS = (*OVERLAPS, *ERRORS)
NOT_MEASURED = ("surface_dice", "hd95_mm", "crps_ml", "rater_dice", "rater_ece", "ged")  # no raters
DATASET = "Dataset999_Speed"
SHAPE = {"full": (450, 512, 512), "quick": (24, 96, 96), "minute": (4, 16, 16)}
VOLUMES = {"full": 10, "quick": 3, "minute": 2}
DISTINCT = 2  # beyond these, volumes are hard links, which are read anew all the same
DEPTHS = {"full": (14, 28, 56, 112), "quick": (24, 48, 96), "minute": (3, 6)}
CLASSES = {"full": (2, 3, 6, 12), "quick": (2, 4, 8), "minute": (2, 3)}
ROUNDS = {"full": 2, "quick": 2, "minute": 1}  # of the curves
COPIED = (
    f"the last step goes over {LARGE // 2**20} MiB, from which on probabilities are copied into a temporary file. With 12 classes that "
    "takes a fifth more of the processor's time (4.1 against 3.4 s, getrusage around the call of `ours` with `LARGE` as it is and out of "
    "reach, one core of an AMD EPYC beside tests, 2026-11-28); the rest is waiting for the disk"
)
PLANES = {"full": 28, "quick": 24, "minute": 4}  # of the curve over classes


def make(folder: Path, shape: tuple[int, ...], classes: int, volumes: int) -> None:
    """The data set and the predictions, nnU-Net's `.npz`, not compressed."""
    raw, predicted = folder / DATASET, folder / "predicted"
    (raw / "labelsTr").mkdir(parents=True)
    predicted.mkdir()
    labels = {"background": 0, **{f"class {c}": c for c in range(1, classes)}}
    (raw / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    for i in range(volumes):
        files = [raw / "labelsTr" / f"case{i:02d}.nii.gz", predicted / f"case{i:02d}.npz"]
        if i < DISTINCT:
            probs, truth = volume(shape, classes, seed=i)
            sitk.WriteImage(sitk.GetImageFromArray(truth), str(files[0]))
            np.savez(files[1], probabilities=probs)
            continue
        for file in files:
            file.hardlink_to(file.with_name(file.name.replace(f"{i:02d}", f"{i % DISTINCT:02d}")))


def volume(shape: tuple[int, ...], classes: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `(C, z, y, x)` and labels: an ellipsoid per foreground class, a few per cent of the volume in all."""
    random = np.random.default_rng(seed)
    z, y, x = np.ogrid[tuple(slice(-1, 1, complex(0, n)) for n in shape)]
    centres = random.uniform(-0.5, 0.5, (classes, 3))
    radii = random.uniform(0.2, 0.4, (classes, 3))
    probs = np.empty((classes, *shape), dtype=np.float32)
    labels = np.zeros(shape, dtype=np.uint8)
    for k in range(shape[0]):
        probs[0, k] = 0
        for c in range(1, classes):
            place = zip((z[k], y[0], x[0]), centres[c], radii[c], strict=True)
            distance = sum(((axis - centre) / radius) ** 2 for axis, centre, radius in place)
            noise = random.normal(0, 1.0, (shape[1] // 8 + 1, shape[2] // 8 + 1)).repeat(8, 0).repeat(8, 1)
            probs[c, k] = np.clip(8 * (1 - distance), -14, 14) + noise[: shape[1], : shape[2]]
            labels[k][distance < 1] = c
        np.exp(probs[:, k] - probs[:, k].max(0), out=probs[:, k])
        probs[:, k] /= probs[:, k].sum(0)
    return probs, labels


def ours(folder: Path) -> Callable[[], list[list[float]]]:
    """What is timed. All return `COUNTERPARTS` of each case, means over the classes."""

    def run() -> list[list[float]]:
        dataset, chosen = read_dataset(folder / DATASET), EvaluationOptions()
        cases = of_folder(folder / "predicted").cases
        records = evaluate(cases, dataset, chosen, folder / "evaluation", overwrite=True)
        summarise(records, dataset.foreground, chosen)
        return [
            [
                *(float(np.mean([its[name] for its in it.per_class.values()])) for name in OVERLAPS),
                *(it.overall[name] for name in ERRORS),
            ]
            for it in records
        ]

    return run


def theirs(folder: Path, classes: int, *, pooled: bool) -> Callable[[], list[list[float]]]:
    """The same by torchmetrics and MONAI, as one would write it down."""
    kinds = ("l1", "max")
    thresholds = EvaluationOptions().thresholds

    def run() -> list[list[float]]:
        kept = [MulticlassCalibrationError(classes, n_bins=10, norm=it) for it in kinds] if pooled else []
        values = []
        for probs, labels in loaded(folder):
            hot = [torch.stack([it == c for c in range(classes)], 1) for it in (probs.argmax(1), labels)]
            if pooled:
                errors = [metric(probs, labels) for metric in kept]
            else:
                errors = [multiclass_calibration_error(probs, labels, classes, 10, norm=it) for it in kinds]
            classwise = CalibrationErrorMetric(num_bins=10)
            classwise(probs, hot[1].float())
            overlaps = [f(*hot, include_background=False).mean() for f in (compute_dice, compute_iou)]
            cut = [compute_dice(probs >= it, hot[1], include_background=False).mean() for it in thresholds]
            values.append(
                [float(it) for it in (*overlaps, sum(cut) / len(cut), *errors, classwise.aggregate())]
            )
        for metric in kept:
            metric.compute()
        return values

    return run


def loaded(folder: Path) -> Iterator[tuple[Any, Any]]:
    """Each case as a batch of one."""
    for path in sorted((folder / "predicted").glob("*.npz")):
        with np.load(path) as content:
            probs = torch.from_numpy(content["probabilities"])[None]
        labels = sitk.ReadImage(str(folder / DATASET / "labelsTr" / f"{path.stem}.nii.gz"))
        yield probs, torch.from_numpy(sitk.GetArrayFromImage(labels).astype(np.int64))[None]


def candidates(folder: str, classes: int) -> dict[str, Callable[[], list[list[float]]]]:
    """Ours and theirs."""
    where = Path(folder)
    calls = [ours(where), theirs(where, classes, pooled=False), theirs(where, classes, pooled=True)]
    return dict(zip(CANDIDATES, calls, strict=True))


def differences(lines: dict[str, Line]) -> str:
    """How far the values of the cases are from ours."""
    first, *others = [np.array(it.value) for it in lines.values() if it.value is not None]
    if not others:
        return "nothing to compare with"
    worst = np.max([np.abs(it - first).max(0) for it in others], axis=0)
    return ", ".join(f"{name} {value:.1e}" for name, value in zip(COUNTERPARTS, worst, strict=True))


def exact_ece(folder: Path) -> float:
    """The first case's, by NumPy in double precision, a slice at a time."""
    probs, labels = (it[0] for it in next(loaded(folder)))
    voxels, gaps = np.zeros(10), np.zeros(10)
    for k in range(len(labels)):
        confidence, best = (it.numpy().ravel() for it in probs[:, k].max(0))
        place = np.minimum((confidence * np.float32(10)).astype(int), 9)
        voxels += np.bincount(place, minlength=10)
        gaps += np.bincount(
            place, (best == labels[k].numpy().ravel()) - confidence.astype(float), minlength=10
        )
    return float(np.abs(gaps).sum() / voxels.sum())


def _mib(line: Line) -> float:
    return math.nan if line.mib is None else line.mib


def measure(options: Options) -> Row:
    """All volumes, and one of growing size."""
    size = options.size
    shape, volumes, classes = SHAPE[size], VOLUMES[size], 3
    shown = " × ".join(map(str, reversed(shape)))
    left_out = {*COUNTERPARTS, *NOT_MEASURED, *(f"soft_{it}" for it in OVERALL)}
    more = [it for it in (*PER_CLASS, *OVERALL) if it not in left_out]
    row = Row(
        "evaluation",
        f"Evaluating {volumes} volumes of {shown}, {classes} classes",
        f"`nnunet-dml evaluate` without `--surfaces`, reading included. The others compute {', '.join(COUNTERPARTS)}; ours also "
        f"{', '.join(more)}. The volumes are {min(DISTINCT, volumes)} distinct ones, over and over, each read anew. Each candidate "
        f"has all of them once, in a fresh process, without its imports; the curves are as everywhere here. Ours keeps "
        f"probabilities of {LARGE // 2**20} MiB or more in a temporary file, which counts as memory only where the folder for temporary "
        "files is one in memory.",
    )
    make(options.folder / "volumes", shape, classes, volumes)

    def point(folder: str, number: int = classes) -> Point:
        return {"folder": str(options.folder / folder), "classes": number}

    lines = compare(__name__, point("volumes"), options, rounds=1, apart=True)  # of many volumes each
    mine, exact = lines[OURS], exact_ece(options.folder / "volumes")
    eces = ", ".join(
        f"{name} {it.value[0][COUNTERPARTS.index('ece')]:.6f}" for name, it in lines.items() if it.value
    )
    row.tables.append(
        Table(
            shown,
            lines,
            f"Greatest differences of a case's values from ours: {differences(lines)}. The first case's ECE by NumPy in double "
            f"precision is {exact:.6f}; {eces}: the others add up single precision, in which a bin's count stays at 2²⁴.",
        )
    )
    for name, its in lines.items():
        if not its.seconds:
            row.missing.append(
                f"the time of {name}, which was killed when it had all of {its.had / 1024:.1f} GiB"
            )
        elif name != OURS:
            row.aims.append(Aim(f"time of {name} ÷ ours", its.median / mine.median, "≥", 5))
            row.aims.append(Aim(f"memory ÷ {name}", _mib(mine) / _mib(its), "≤", 0.1))
    rounds = ROUNDS[size]
    for depth in DEPTHS[size]:
        make(options.folder / f"deep{depth}", (depth, *shape[1:]), classes, 1)
    voxels = [depth * math.prod(shape[1:]) for depth in DEPTHS[size]]
    points = [point(f"deep{it}") for it in DEPTHS[size]]
    row.curves.append(over(__name__, "voxels", voxels, points, options, rounds=rounds))
    for number in CLASSES[size]:
        make(options.folder / f"of{number}", (PLANES[size], *shape[1:]), number, 1)
    points = [point(f"of{it}", it) for it in CLASSES[size]]
    curve = over(__name__, "classes", CLASSES[size], points, options, rounds=rounds)
    row.curves.append(replace(curve, reason=COPIED))
    return row
