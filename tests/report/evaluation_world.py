"""A small evaluation on disk, with plausible figures and, where wanted, the files they came from."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_dml.evaluation.records import CaseRecord, Sources, write_record

BINS = 10
THRESHOLDS = [k / 10 for k in range(1, 10)]


def write_evaluation(
    folder: Path,
    *,
    cases: int = 8,
    classes: tuple[str, ...] = ("lesion",),
    quality: float = 0.9,
    gap: float = 0.05,
    seed: int = 0,
    names: list[str] | None = None,
    sources=lambda case: Sources("/gone/p.npz", "/gone/r.nii.gz"),
    **changes,
) -> Path:
    """Write records and a summary.

    The references are those of the seed; the prediction's Dice is about `quality`, its confidence too high by `gap`,
    both with a noise that the folder's name decides.
    """
    rng = np.random.default_rng(seed)
    own = np.random.default_rng(zlib.crc32(folder.name.encode()))
    names = names or [f"case{k:03d}" for k in range(cases)]
    records = []
    for k, name in enumerate(names):
        hard, size = rng.uniform(-0.05, 0.05), rng.uniform(2, 40, len(classes))
        per_class = {}
        for c, label in enumerate(classes):
            dice = float(np.clip(quality + hard + own.normal(0, 0.01) - 0.03 * c, 0, 1))
            volume = size[c] * (1 + own.normal(0.02, 0.08))
            per_class[label] = {
                "dice": dice,
                "iou": dice / (2 - dice),
                "soft_dice": dice - 0.01,
                "bdice": dice - 0.02,
                "classwise_ece": gap / 2,
                "volume_ml": volume,
                "reference_ml": size[c],
                "volume_bias": volume / size[c] - 1,
                "volume_difference_ml": abs(volume - size[c]),
                "surface_dice": min(1.0, dice + 0.05),
                "hd95_mm": 10 * (1 - dice),
            }
        overall, sums = {"brier": 2 * gap**2 + 0.01 * rng.uniform(), "nll": gap + 0.1}, {}
        for prefix in ("", "soft_"):
            for zone, voxels, more in (("", 1e5, 0.0), ("_foreground", 2e4, 0.04), ("_boundary", 5e3, 0.08)):
                sums[f"{prefix}reliability{zone}"] = _reliability(
                    own, voxels, gap * (1 if prefix else 1.3) + more
                )
                key = {"": "ece", "_foreground": "foreground_ece", "_boundary": "boundary_ece"}[zone]
                number, confidence, accuracy = np.array(sums[f"{prefix}reliability{zone}"])
                overall[prefix + key] = float(np.abs(confidence - accuracy).sum() / number.sum())
        fall = np.linspace(0.03, -0.05, len(THRESHOLDS))
        sums["bdice_by_threshold"] = [
            np.clip(per_class[label]["bdice"] + fall, 0, 1).tolist() for label in classes
        ]
        records.append(
            CaseRecord(
                case=name,
                fold=str(k % 5),
                sources=sources(name),
                spacing=[1.0, 1.0, 1.0],
                overall=overall,
                per_class=per_class,
                sums=sums,
                flags={"raters": 3, "reference_empty": [False] * len(classes)},
            )
        )
    for record in records:
        write_record(folder, record)
    summary = {
        "dataset": "Dataset901_Phantom",
        "source": f"results/{folder.name}",
        "cases": len(names),
        "classes": list(classes),
        "empty": {"pairs_of_case_and_class": len(names) * len(classes), "reference_empty": 0},
        "raters": {"soft_reference": "the raters' uniform mean", "per_case": {"min": 3, "max": 3}},
        "definitions": {},
        "versions": {"nnunet_dml": "0", "numpy": np.__version__},
        "notes": [],
        "options": {"bins": BINS, "thresholds": THRESHOLDS},
        **changes,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def change_records(folder: Path, change) -> None:
    """Rewrite every record's JSON after `change(content)`."""
    for path in (folder / "cases").glob("*.json"):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


def _reliability(own, voxels: float, gap: float) -> list[list[float]]:
    """Sums of a two-class model, whose top label has at least 0.5, that is too sure by `gap`."""
    middle = (np.arange(BINS) + 0.5) / BINS
    share = np.where(middle > 0.5, np.exp(9 * (middle - 1)), 0) * own.uniform(0.8, 1.2, BINS)
    number = np.rint(voxels * share / share.sum())
    accuracy = np.clip(middle - gap * (1 + own.uniform(-0.3, 0.3, BINS)), 0, 1)
    return [number.tolist(), (number * middle).tolist(), (number * accuracy).tolist()]


class Files:
    """The files of synthetic cases: a ball in noise, three raters who draw it larger and smaller, a prediction."""

    def __init__(self, base: Path, *, shape: tuple[int, ...] = (6, 40, 36), raters: int = 3):
        self.raw, self.model, self.shape, self.raters = (
            base / "Dataset901_Phantom",
            base / "model",
            shape,
            raters,
        )
        for folder in (self.raw / "labelsTr", self.raw / "imagesTr", self.model):
            folder.mkdir(parents=True, exist_ok=True)
        labels = {"background": 0, "lesion": 1}
        (self.raw / "dataset.json").write_text(
            json.dumps({"labels": labels, "file_ending": ".nii.gz", "channel_names": {"0": "MR"}})
        )

    def __call__(self, case: str) -> Sources:
        """Write a case's files."""
        rng = np.random.default_rng(sum(map(ord, case)))
        axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in self.shape), indexing="ij")
        distance = np.sqrt(sum(a**2 for a in axes)) + 0.1 * np.sin(4 * axes[-1])
        masks = {f"rater{k}": (distance < 0.5 + 0.06 * k).astype(np.uint8) for k in range(self.raters)}
        image = 100 * np.exp(-3 * distance**2) + rng.normal(0, 6, self.shape)
        p = 1 / (1 + np.exp(14 * (distance - 0.55) + rng.normal(0, 0.4, self.shape)))
        paths = {
            "reference": self.raw / "labelsTr" / f"{case}.nii.gz",
            "image": self.raw / "imagesTr" / f"{case}_0000.nii.gz",
        }
        self._write(masks["rater1" if self.raters > 1 else "rater0"], paths["reference"])
        self._write(image.astype(np.float32), paths["image"])
        raters = {}
        for name, mask in masks.items():
            raters[name] = str(self.raw / "ratersTr" / case / f"{name}.nii.gz")
            Path(raters[name]).parent.mkdir(parents=True, exist_ok=True)
            self._write(mask, Path(raters[name]))
        prediction = self.model / f"{case}.npz"
        whole = p if p.ndim == 3 else p[None]
        np.savez(prediction, probabilities=np.stack([1 - whole, whole]).astype(np.float32))
        return Sources(str(prediction), str(paths["reference"]), "", raters, [str(paths["image"])])

    def _write(self, array, path: Path) -> None:
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
