"""Dice, BDice and ECE of an evaluation once more, from the files, by a few lines of NumPy that share no code with it.

    python scripts/check_evaluation.py EVALUATION_FOLDER …

For predictions of classes as `.npz` against raters (their uniform mean) without an ignore label. Prints both versions of
each mean; ends with status 1 where a case differs by more than 1e-5.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

BINS, THRESHOLDS = 10, np.arange(1, 10) / 10


def read(path: str) -> np.ndarray:
    """A label map, (z, y, x)."""
    array = sitk.GetArrayFromImage(sitk.ReadImage(path))
    return array[None] if array.ndim == 2 else array


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Of two masks; 1 if both are empty."""
    return 1.0 if not a.any() and not b.any() else 2 * np.sum(a & b) / (a.sum() + b.sum())


def ece(confidence: np.ndarray, right: np.ndarray) -> float:
    """Of all voxels, in bins of equal width."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return sum(abs((confidence - right)[bins == k].sum()) for k in range(BINS)) / confidence.size


def figures(case: dict) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Dice and BDice over the foreground classes, ECE of the image; confidences; hits."""
    probs = np.load(case["sources"]["prediction"])["probabilities"]
    truth = read(case["sources"]["reference"])
    raters = np.stack([read(path) for path in case["sources"]["raters"].values()])
    hard, confidence = probs.argmax(0), probs.max(0)
    classes = range(1, len(probs))
    soft = [np.mean(raters == c, axis=0, dtype=np.float32) for c in range(len(probs))]
    right = hard == truth
    values = {
        "dice": np.mean([dice(hard == c, truth == c) for c in classes]),
        "bdice": np.mean(
            [dice(probs[c] >= np.float32(t), soft[c] >= np.float32(t)) for c in classes for t in THRESHOLDS]
        ),
        "ece": ece(confidence, right),
    }
    return values, confidence.ravel(), right.ravel()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    worst = 0.0
    for folder in map(Path, sys.argv[1:]):
        with (folder / "cases.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        theirs: dict[str, dict[str, list[float]]] = {}
        for row in rows:
            for name in ("dice", "bdice", "ece"):
                if row[name]:
                    theirs.setdefault(row["case"], {}).setdefault(name, []).append(float(row[name]))
        ours, voxels = {}, []
        for path in sorted((folder / "cases").glob("*.json")):
            case = json.loads(path.read_text(encoding="utf-8"))
            ours[case["case"]], *seen = figures(case)
            voxels.append(seen)
        if ours.keys() != theirs.keys():
            sys.exit(f"{folder}: other cases in cases.csv than in cases/")
        for name in ("dice", "bdice", "ece"):
            both = np.array([[ours[it][name], np.mean(theirs[it][name])] for it in ours])
            worst = max(worst, np.abs(np.subtract(*both.T)).max())
            print(
                f"{folder.name}: {name} {both[:, 0].mean():.6f} by NumPy, {both[:, 1].mean():.6f} by evaluate"
            )
        pooled = ece(*(np.concatenate(it) for it in zip(*voxels, strict=True)))
        theirs_pooled = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["mean"][
            "ece_pooled"
        ]
        worst = max(worst, abs(pooled - theirs_pooled))
        print(f"{folder.name}: pooled ECE {pooled:.6f} by NumPy, {theirs_pooled:.6f} by evaluate")
    print(f"greatest difference {worst:.1e}")
    sys.exit(int(worst > 1e-5))
