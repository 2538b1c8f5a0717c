"""A small dataset with raters on disk."""

import json

import numpy as np
import SimpleITK as sitk

LABELS = {"background": 0, "core": 1, "rim": 2}


def write_image(path, array, spacing=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing(list(spacing or [1.0] * array.ndim))
    sitk.WriteImage(image, str(path))


class RaterWorld:
    """`Dataset007_Toy`: cases `a` to `d` with three raters each, images and consensus."""

    def __init__(self, root, *, shape=(6, 7), labels=None, values=(0, 1, 2), ending=".nii.gz", spacing=None):
        self.ending, self.spacing, self.shape = ending, spacing, shape
        self.folder = root / "raw" / "Dataset007_Toy"
        self.folder.mkdir(parents=True)
        self.content = {"labels": labels or LABELS, "file_ending": ending, "channel_names": {"0": "MR"}}
        self.save()
        rng = np.random.default_rng(0)
        self.votes = {}
        for case in "abcd":
            self.votes[case] = rng.choice(values, (3, *shape)).astype(np.uint8)
            for r in range(3):
                self.write_mask(case, r, self.votes[case][r])
            self.write(self.folder / "labelsTr" / (case + ending), np.zeros(shape, np.uint8))
            self.write(self.image(case), rng.integers(0, 200, shape).astype(np.uint8))

    def save(self, **more):
        self.content |= more
        (self.folder / "dataset.json").write_text(json.dumps(self.content))

    def write(self, path, array):
        write_image(path, array, self.spacing)

    def write_mask(self, case, r, array):
        self.write(self.mask(case, r), array)

    def mask(self, case, r):
        return self.folder / "ratersTr" / case / f"rater{r}{self.ending}"

    def image(self, case):
        return self.folder / "imagesTr" / f"{case}_0000{self.ending}"
