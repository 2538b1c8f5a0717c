"""What label smoothing and random raters do to the probabilities: a table for docs/results/brain-growth.md.

    python scripts/brain_growth_smoothing.py RAW_DATASET_FOLDER MODEL_FOLDER …

Over the validation cases of all folds: the mean probability of foreground in voxels that no rater marks and that lie
more than 5 voxels from any that one marks ("far background"), the volume that this is of the raters' mean, the share of
unsure voxels (0.05 < p < 0.95) among those in which raters differ, and the volume bias of all other voxels.
"""

import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_dilation

if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    raw = Path(sys.argv[1])
    print(
        "| model | p in the far background | of the volume | unsure where raters differ | volume bias elsewhere |"
    )
    print("|---|---|---|---|---|")
    for folder in map(Path, sys.argv[2:]):
        far_sum = far_count = volume = unsure = disputed = near = 0.0
        for path in sorted(folder.glob("fold_*/validation/*.npz")):
            masks = [
                sitk.GetArrayFromImage(sitk.ReadImage(str(it))).squeeze() > 0
                for it in sorted((raw / "ratersTr" / path.stem).iterdir())
            ]
            share = np.mean(masks, 0)
            p = np.load(path)["probabilities"][1].squeeze().astype(float)
            far = ~binary_dilation(share > 0, np.ones((11, 11)))
            differ = (share > 0) & (share < 1)
            far_sum, far_count, volume = far_sum + p[far].sum(), far_count + far.sum(), volume + share.sum()
            unsure += ((p > 0.05) & (p < 0.95) & differ).sum()
            disputed += differ.sum()
            near += p[~far].sum()
        cells = far_sum / far_count, far_sum / volume, unsure / disputed, (near - volume) / volume
        name = folder.name.removesuffix("__2d")
        print(f"| `{name}` | {cells[0]:.4f} | " + " | ".join(f"{100 * it:.1f} %" for it in cells[1:]) + " |")
