"""`nnunet-dml evaluate` against torchmetrics and MONAI on the same volumes, in fresh processes.

python benchmarks/evaluation_speed.py [--volumes 10] [--shape 450 512 512] [--classes 3] [--distinct 2] [--folder DIR]

Makes synthetic volumes (ellipsoids with noisy outlines; nnU-Net's `.npz`, not compressed, and labels as `.nii.gz`; beyond
`--distinct` of them hard links to the first ones, which are read anew all the same), then measures them one case after the
other, on one thread each:

* ours: all figures of `nnunet-dml evaluate` without `--surfaces`, against labels, per case and pooled;
* torchmetrics + MONAI, per case: what of these they have (`COUNTERPARTS`), each value of a case by a function;
* torchmetrics + MONAI, pooled: the same with torchmetrics' classes, which keep what the pooled error needs.

Seconds are of the clock, and of the processor in parentheses, without the imports (MONAI's take some ten seconds); memory is the
greatest resident size, and in parentheses how much of it is beyond the imports. A process that is killed for want of
memory is said to be.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

COUNTERPARTS = ("dice", "iou", "ece", "mce")
NOT_MEASURED = (
    "surface_dice",
    "hd95_mm",
    "crps_ml",
    "rater_dice",
    "rater_ece",
    "ged",
)  # no --surfaces, no raters
DATASET = "Dataset999_Speed"


def make(folder: Path, options: argparse.Namespace) -> None:
    """The data set and the predictions."""
    import SimpleITK as sitk

    raw, predicted = folder / DATASET, folder / "predicted"
    (raw / "labelsTr").mkdir(parents=True)
    predicted.mkdir()
    labels = {"background": 0, **{f"class {c}": c for c in range(1, options.classes)}}
    (raw / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    for i in range(options.volumes):
        files = [raw / "labelsTr" / f"case{i:02d}.nii.gz", predicted / f"case{i:02d}.npz"]
        if i < options.distinct:
            probs, truth = volume(tuple(options.shape), options.classes, seed=i)
            sitk.WriteImage(sitk.GetImageFromArray(truth), str(files[0]))
            np.savez(files[1], probabilities=probs)
            continue
        for file in files:
            name = file.name.replace(f"{i:02d}", f"{i % options.distinct:02d}")
            file.hardlink_to(file.with_name(name))


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


def ours(folder: Path, options: argparse.Namespace) -> Callable[[], list[list[float]]]:
    """What is timed; imports are done. It returns what all have: `COUNTERPARTS` of each case, means over the classes."""
    import torch

    from nnunet_dml.evaluation.dataset import read_dataset
    from nnunet_dml.evaluation.options import Options
    from nnunet_dml.evaluation.predictions import of_folder
    from nnunet_dml.evaluation.run import evaluate
    from nnunet_dml.evaluation.summary import summarise

    torch.set_num_threads(1)

    def run() -> list[list[float]]:
        dataset = read_dataset(folder / DATASET)
        chosen = Options()
        cases = of_folder(folder / "predicted").cases
        records = evaluate(cases, dataset, chosen, folder / "evaluation", overwrite=True)
        summarise(records, dataset.foreground, chosen)
        return [
            [
                *(float(np.mean([it[name] for it in r.per_class.values()])) for name in ("dice", "iou")),
                r.overall["ece"],
                r.overall["mce"],
            ]
            for r in records
        ]

    return run


def theirs(folder: Path, options: argparse.Namespace, *, pooled: bool) -> Callable[[], list[list[float]]]:
    """The same by torchmetrics and MONAI, as one would write it down."""
    import torch
    from monai.metrics import compute_dice, compute_iou
    from torchmetrics.classification import MulticlassCalibrationError
    from torchmetrics.functional.classification import multiclass_calibration_error

    torch.set_num_threads(1)
    number = options.classes
    kinds = ("l1", "max")
    kept = [MulticlassCalibrationError(number, n_bins=10, norm=kind) for kind in kinds] if pooled else []

    def errors(probs: torch.Tensor, labels: torch.Tensor) -> list[float]:
        if pooled:
            return [float(metric(probs, labels)) for metric in kept]
        return [
            float(multiclass_calibration_error(probs, labels, number, n_bins=10, norm=it)) for it in kinds
        ]

    def run() -> list[list[float]]:
        values = []
        for probs, labels in loaded(folder):
            sides = [probs.argmax(1), labels]
            hot = [torch.stack([it == c for c in range(number)], 1) for it in sides]
            values.append(
                [float(f(*hot, include_background=False).mean()) for f in (compute_dice, compute_iou)]
                + errors(probs, labels)
            )
        for metric in kept:
            metric.compute()
        return values

    return run


def loaded(folder: Path) -> Iterator[tuple[Any, Any]]:
    """Each case as a batch of one."""
    import SimpleITK as sitk
    import torch

    for path in sorted((folder / "predicted").glob("*.npz")):
        with np.load(path) as content:
            probs = torch.from_numpy(content["probabilities"])[None]
        labels = sitk.GetArrayFromImage(
            sitk.ReadImage(str(folder / DATASET / "labelsTr" / f"{path.stem}.nii.gz"))
        )
        yield probs, torch.from_numpy(labels.astype(np.int64))[None]


CANDIDATES: dict[str, Callable[..., Callable[[], list[list[float]]]]] = {
    "nnunet_dml, all figures": ours,
    "torchmetrics + MONAI, per case": lambda *args: theirs(*args, pooled=False),
    "torchmetrics + MONAI, pooled": lambda *args: theirs(*args, pooled=True),
}


def measured(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Times and memory of one candidate in this process, MiB."""
    run = CANDIDATES[name](folder, options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.perf_counter(), time.process_time()
    values = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": wall, "cpu": cpu, "peak": peak, "beyond": peak - before, "values": values}


def table(found: dict[str, dict[str, Any] | None]) -> list[str]:
    """Markdown; how often ours is faster and smaller stands in the rows of the others."""
    rows = [
        "| | seconds (CPU) | times ours | peak MiB (beyond imports) | times ours |",
        "|---|---|---|---|---|",
    ]
    mine = found[next(iter(CANDIDATES))]
    for name, its in found.items():
        if its is None or mine is None:
            rows.append(f"| {name} | killed | | killed | |")
            continue
        rows.append(
            f"| {name} | {its['wall']:.1f} ({its['cpu']:.1f}) | {its['cpu'] / mine['cpu']:.1f} | "
            f"{its['peak']:.0f} ({its['beyond']:.0f}) | {its['beyond'] / max(mine['beyond'], 1):.1f} |"
        )
    return rows


def differences(found: dict[str, dict[str, Any] | None]) -> str:
    """How far the values of the cases are from ours."""
    first, *others = [np.array(its["values"]) for its in found.values() if its is not None]
    if not others:
        return "nothing to compare with"
    worst = np.max([np.abs(it - first).max(0) for it in others], axis=0)
    return ", ".join(f"{name} {value:.1e}" for name, value in zip(COUNTERPARTS, worst, strict=True))


def main() -> None:
    """Make, measure, print; with `--only NAME` one candidate on volumes that are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--volumes", type=int, default=10)
    parser.add_argument("--shape", type=int, nargs=3, default=[450, 512, 512], metavar=("Z", "Y", "X"))
    parser.add_argument("--classes", type=int, default=3, help="background included")
    parser.add_argument("--distinct", type=int, default=2, help="how many of the volumes differ")
    parser.add_argument("--folder", type=Path, help="where to make them (default: a temporary folder)")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measured(options.only, options.folder, options)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        make(Path(name), options)
        found: dict[str, dict[str, Any] | None] = {}
        arguments = ["--shape", *map(str, options.shape), "--classes", str(options.classes), "--folder", name]
        for candidate in CANDIDATES:
            done = subprocess.run(
                [sys.executable, __file__, *arguments, "--only", candidate],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                check=False,
            )
            if done.returncode > 0:
                sys.exit(f"{candidate} ended with {done.returncode}")
            found[candidate] = json.loads(done.stdout) if done.returncode == 0 else None
        from importlib.metadata import version

        from nnunet_dml.evaluation.figures import OVERALL, PER_CLASS

        left_out = {*COUNTERPARTS, *NOT_MEASURED, *(f"soft_{it}" for it in OVERALL)}
        names = [it for it in (*PER_CLASS, *OVERALL) if it not in left_out]
        print(
            f"{options.volumes} volumes of {'×'.join(map(str, options.shape))}, {options.classes} classes; "
            + ", ".join(f"{it} {version(it)}" for it in ("torch", "torchmetrics", "monai"))
        )
        print("\n".join(table(found)))
        print(f"\nGreatest differences of a case's values from ours: {differences(found)}.")
        print(f"Counterparts: {', '.join(COUNTERPARTS)}. Measured without one: {', '.join(names)}.")


if __name__ == "__main__":
    main()
