"""LIDC nodules as a source for `nnunet-dml convert raters --layout folders`, and soft maps of one's own from it.

The set holds radiologists' masks without images, so a stand-in is made: the raters' mean, blurred, with noise. That is
enough to take 3D masks of true, anisotropic spacing through planning, every fusion and preprocessing.

    python scripts/lidc_source.py images LIDC_NODULES FOLDER      images/<case>.nii.gz, raters/<rater>/<case>.nii.gz
    python scripts/lidc_source.py maps RAW_DATASET                softlabelsTr/<case>.nii.gz: the raters' mean, as float
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter
from tqdm import tqdm


def mean_of(paths: list[Path]) -> sitk.Image:
    """The mean of several masks, float32, on the grid of the first."""
    masks = [sitk.ReadImage(str(path)) for path in paths]
    mean = np.mean([sitk.GetArrayFromImage(mask) > 0 for mask in masks], axis=0, dtype=np.float32)
    image = sitk.GetImageFromArray(mean)
    image.CopyInformation(masks[0])
    return image


def images(nodules: Path, out: Path) -> None:
    """Stand-in images, and the masks in layout `folders`."""
    (out / "images").mkdir(parents=True)
    for i, case in enumerate(tqdm(sorted(path for path in nodules.iterdir() if path.is_dir()))):
        raters = sorted(case.glob("*.nii.gz"))
        mean = mean_of(raters)
        noise = np.random.default_rng(i).normal(0, 0.1, sitk.GetArrayViewFromImage(mean).shape)
        blurred = gaussian_filter(sitk.GetArrayFromImage(mean), 1) + noise
        image = sitk.GetImageFromArray(blurred.astype(np.float32))
        image.CopyInformation(mean)
        sitk.WriteImage(image, str(out / "images" / f"{case.name}.nii.gz"), True)
        for rater in raters:
            folder = out / "raters" / rater.name.removesuffix(".nii.gz")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(rater, folder / f"{case.name}.nii.gz")


def maps(dataset: Path) -> None:
    """The raters' mean of every case, as soft maps of the user's own."""
    (dataset / "softlabelsTr").mkdir(exist_ok=True)
    for case in tqdm(sorted((dataset / "ratersTr").iterdir())):
        sitk.WriteImage(
            mean_of(sorted(case.glob("*.nii.gz"))),
            str(dataset / "softlabelsTr" / f"{case.name}.nii.gz"),
            True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("images")
    one.add_argument("nodules", type=Path)
    one.add_argument("out", type=Path)
    commands.add_parser("maps").add_argument("dataset", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "images":
        images(arguments.nodules, arguments.out)
    else:
        maps(arguments.dataset)
