"""Why the order of label sources on brain growth is not the paper's: two suspects, each put to a test.

    python scripts/table1_causes.py RAW_DATASET_FOLDER PREPROCESSED_DATASET_FOLDER LS_MODEL_FOLDER [EPSILON]

1. How far weighted labels lie from uniform ones, in voxels where raters differ: if hardly at all, one cannot be better.
2. What label smoothing leaves of the calibration error when it is undone: a network that learned the smoothed labels
   exactly gives (1 − ε) p + ε / 2 for the probability p of two classes. Pooled error (top label, 10 bins) against the
   majority vote, in all voxels and split by what the smoothing is about: more than 5 voxels from any rater's mark, or not.
"""

import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_dilation

from nnunet_dml.labels.storage import verify_soft_map


def fractions(path: Path) -> np.ndarray:
    """The soft map of the only foreground class."""
    return verify_soft_map(path).load()[0]


def ece(p: np.ndarray, truth: np.ndarray) -> float:
    """In per cent of all voxels given; `p` of the foreground."""
    confidence, right = np.maximum(p, 1 - p), (p > 0.5) == truth
    bins = np.minimum((confidence * 10).astype(int), 9)
    return 100 * sum(abs((confidence - right)[bins == k].sum()) for k in range(10)) / p.size


def differences(soft: Path) -> None:
    """Weighted against uniform."""
    gaps, volumes = [], []
    for path in sorted((soft / "uniform").glob("*.b2nd")):
        uniform, weighted = fractions(path), fractions(soft / "weighted" / path.name)
        gaps.append(np.abs(uniform - weighted)[(uniform > 0) & (uniform < 1)].mean())
        volumes.append(weighted.sum() / uniform.sum() - 1)
    print(
        f"|weighted − uniform| where raters differ: mean {np.mean(gaps):.4f}, greatest case {np.max(gaps):.4f};"
    )
    print(f"volume {100 * np.mean(volumes):+.2f} %; {len(gaps)} cases (a step of the stored maps is 0.0039)")


def undone(raw: Path, model: Path, epsilon: float) -> None:
    """Label smoothing, and without it."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for path in sorted(model.glob("fold_*/validation/*.npz")):
        masks = [
            sitk.GetArrayFromImage(sitk.ReadImage(str(it))).squeeze() > 0
            for it in (raw / "ratersTr" / path.stem).iterdir()
        ]
        truth = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(raw / "labelsTr" / f"{path.stem}.nii.gz"))).squeeze()
            > 0
        )
        far = ~binary_dilation(np.any(masks, 0), np.ones((11, 11)))
        p = np.load(path)["probabilities"][1].squeeze().astype(float)
        found.append((p.ravel(), truth.ravel(), far.ravel()))
    p, truth, far = (np.concatenate(it) for it in zip(*found, strict=True))
    plain = np.clip((p - epsilon / 2) / (1 - epsilon), 0, 1)
    print(
        f"\nε = {epsilon}, {len(found)} cases, pooled ECE % | all | far background ({far.mean():.0%}) | the rest"
    )
    for name, it in (("as predicted", p), ("undone", plain)):
        print(
            f"{name} | {ece(it, truth):.2f} | {ece(it[far], truth[far]):.2f} | {ece(it[~far], truth[~far]):.2f}"
        )
    print(f"mean p in the far background: {p[far].mean():.4f}; learned exactly it would be {epsilon / 2:.4f}")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    differences(Path(sys.argv[2]) / "nnUNetPlans_2d_soft")
    undone(Path(sys.argv[1]), Path(sys.argv[3]), float(sys.argv[4]) if len(sys.argv) == 5 else 0.1)
