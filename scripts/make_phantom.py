"""Write a phantom data set with several simulated raters, laid out as the QUBIQ challenge lays out its own.

Each case is a bright, blurred, noisy blob whose border is uncertain. Each rater draws it with a bias of its own
(too tight, too generous) and a wobble of its own, so that the raters agree inside and disagree at the border.

    python scripts/make_phantom.py FOLDER [--cases 20] [--raters 5] [--size 96] [--depth 0] [--seed 0]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter


def wobble(rng: np.random.Generator, shape: tuple[int, ...], amplitude: float) -> np.ndarray:
    """A smooth random field with the given standard deviation, in pixels."""
    field = gaussian_filter(rng.standard_normal(shape), [n / 12 for n in shape])
    return field / field.std() * amplitude


def make_case(
    rng: np.random.Generator, size: int, depth: int, biases: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """An image and a mask of 0 and 1 per rater: (size, size), or (depth, size, size) where depth > 0."""
    shape = (depth, size, size) if depth else (size, size)
    *z, y, x = np.meshgrid(*(np.arange(n) - n / 2 for n in shape), indexing="ij")
    centre, angle = rng.uniform(-0.1, 0.1, 2) * size, rng.uniform(0, np.pi)
    long, short = rng.uniform(0.2, 0.32) * size, rng.uniform(0.12, 0.2) * size
    u = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
    v = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)
    radii = [u / long, v / short, *(plane / (0.4 * depth) for plane in z)]
    inside = (1 - np.sqrt(sum(r**2 for r in radii))) * short + wobble(
        rng, shape, 2.0
    )  # about pixels to the border
    tissue = 100 + wobble(rng, shape, 8) + 60 / (1 + np.exp(-inside / 1.5)) + rng.normal(0, 8, shape)
    field_of_view = np.hypot(x, y) < 0.49 * size
    masks = [inside + bias + wobble(rng, shape, 1.0) > 0 for bias in biases]
    return (tissue * field_of_view).astype(np.float32), [mask.astype(np.uint8) for mask in masks]


def make_phantom(
    folder: Path, *, cases: int = 20, raters: int = 5, size: int = 96, depth: int = 0, seed: int = 0
) -> None:
    """Write `folder/caseNN/image.nii.gz` and `folder/caseNN/task01_segMM.nii.gz`; 3D, 2 mm slices, where depth > 0."""
    rng = np.random.default_rng(seed)
    biases = np.linspace(-1.5, 1.5, raters) if raters > 1 else np.zeros(1)
    for number in range(1, cases + 1):
        case = folder / f"case{number:02d}"
        case.mkdir(parents=True, exist_ok=True)
        image, masks = make_case(rng, size, depth, biases)
        for name, array in [
            ("image", image),
            *((f"task01_seg{i:02d}", mask) for i, mask in enumerate(masks, 1)),
        ]:
            volume = sitk.GetImageFromArray(array)
            if depth:
                volume.SetSpacing((1.0, 1.0, 2.0))
            sitk.WriteImage(volume, str(case / f"{name}.nii.gz"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--raters", type=int, default=5)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--depth", type=int, default=0, help="slices; 0 makes 2D images")
    parser.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    make_phantom(arguments.pop("folder"), **arguments)
