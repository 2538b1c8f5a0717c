"""Why a soft-label model's ECE against the majority vote is not zero.

Prints, for models of `brain_growth.sh`:

* the share of voxels, mean confidence and accuracy per confidence bin, pooled over the validation cases;
* the ECE that the raters' fused maps themselves would have, predicted without error;
* the pooled ECE after one temperature, chosen on the other folds (cross-fitted).

    python scripts/brain_growth_calibration.py MODEL_FOLDER [MODEL_FOLDER …]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from nnunet_dml._folders import environment_folder, find_dataset, rater_files
from nnunet_dml.labels import fuse
from nnunet_dml.metrics import ece_from_counts, reliability_counts

TEMPERATURES = np.geomspace(0.4, 2.5, 43)


def read(path: Path) -> np.ndarray:
    """A 2D mask."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.uint8)


def counts(cases: list[tuple[torch.Tensor, torch.Tensor]], temperature: float = 1.0) -> torch.Tensor:
    """Pooled reliability counts of (log-probabilities, labels) after a temperature."""
    return sum(reliability_counts((p / temperature).softmax(0)[None], y[None]) for p, y in cases)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+")
    models = parser.parse_args().models
    raw = find_dataset("501", environment_folder("nnUNet_raw"))
    labels = {path.name[:-7]: read(path) for path in sorted((raw / "labelsTr").glob("*.nii.gz"))}

    for method in ("uniform", "weighted"):
        pooled = 0
        for case, majority in labels.items():
            maps = fuse([read(f) for f in rater_files(raw, case, ".nii.gz").values()], method=method)
            pooled = pooled + reliability_counts(
                torch.from_numpy(maps)[None], torch.from_numpy(majority.astype(np.int64))[None]
            )
        print(
            f"{method} maps themselves against the majority vote: ECE {100 * ece_from_counts(pooled):.2f} %"
        )

    for model in models:
        folds = {}
        for folder in sorted(model.glob("fold_*")):
            folds[folder.name] = [
                (
                    torch.from_numpy(np.load(path)["probabilities"][:, 0].astype(np.float64))
                    .clamp(min=1e-12)
                    .log(),
                    torch.from_numpy(labels[path.stem].astype(np.int64)),
                )
                for path in sorted((folder / "validation").glob("*.npz"))
            ]
        everything = [case for cases in folds.values() for case in cases]
        total = counts(everything)
        print(
            f"\n{model.name}: {len(everything)} cases of {len(folds)} folds, pooled ECE {100 * ece_from_counts(total):.2f} %"
        )
        number, confidence, accuracy = total
        for i in range(5, 10):
            share, mean = number[i] / number.sum(), confidence[i] / number[i]
            print(
                f"  {i / 10:.1f}–{(i + 1) / 10:.1f}: {100 * share:5.2f} % of voxels, confidence {mean:.3f}, accuracy {accuracy[i] / number[i]:.3f}"
            )
        if len(folds) > 1:
            fitted, chosen = 0, []
            for name, cases in folds.items():
                others = [case for other, found in folds.items() if other != name for case in found]
                best = min(TEMPERATURES, key=lambda t: float(ece_from_counts(counts(others, t))))
                chosen.append(best)
                fitted = fitted + counts(cases, best)
            print(
                f"  with a temperature from the other folds ({min(chosen):.2f}–{max(chosen):.2f}): ECE {100 * ece_from_counts(fitted):.2f} %"
            )


if __name__ == "__main__":
    main()
