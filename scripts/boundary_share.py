"""How much of each label is near a boundary, as boundary label smoothing sees it: for docs/results/modes.md.

    python scripts/boundary_share.py LABELS_FOLDER [NEIGHBOURHOOD]

Over all NIfTI label maps of a folder: the share of each label's voxels that have another label in their k × k (× k)
neighbourhood (default 3).
"""

import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from nnunet_dml.labels import boundary_voxels
from nnunet_dml.losses import one_hot

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    neighbourhood = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    near, all_of_them = np.zeros(256), np.zeros(256)
    for path in sorted(Path(sys.argv[1]).glob("*.nii.gz")):
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.int64)
        fractions = one_hot(torch.from_numpy(labels)[None, None], max(2, int(labels.max()) + 1))
        boundary = boundary_voxels(fractions, neighbourhood=neighbourhood)[0, 0].numpy()
        all_of_them += np.bincount(labels.ravel(), minlength=256)
        near += np.bincount(labels[boundary], minlength=256)
    for label in np.flatnonzero(all_of_them):
        print(f"label {label}: {near[label] / all_of_them[label]:.1%} of {int(all_of_them[label])} voxels")
