"""What a rater's Dice against the majority vote owes to the grid of the masks and to the way of averaging.

    python scripts/raters_and_resolution.py $nnUNet_raw/Dataset501_BrainGrowth/ratersTr

Takes a folder `<case>/<rater>.*` of 2D masks of one class with even sizes and an odd number of raters. Prints per cent.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from skimage.transform import resize

from nnunet_dml._images import read_mask


def overlaps(raters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one case, `(R, y, x)`: for each rater, twice the overlap with the majority vote, and the sum of both sizes."""
    vote = raters.sum(axis=0) * 2 > len(raters)
    return 2 * (raters & vote).sum(axis=(1, 2)), raters.sum(axis=(1, 2)) + vote.sum()


def blocks(raters: np.ndarray) -> np.ndarray:
    """The share of foreground in blocks of 2 × 2 pixels."""
    r, y, x = raters.shape
    return raters.reshape(r, y // 2, 2, x // 2, 2).mean(axis=(2, 4))


def twice(order: int) -> Callable[[np.ndarray], np.ndarray]:
    """Interpolation to twice the size, cut at one half."""

    def enlarge(raters: np.ndarray) -> np.ndarray:
        shape = [2 * size for size in raters.shape[1:]]
        return np.stack([resize(m.astype(float), shape, order=order) >= 0.5 for m in raters])

    return enlarge


GRIDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda raters: raters,
    "twice the size, nearest": twice(0),
    "twice the size, linear, >= 0.5": twice(1),
    "twice the size, cubic, >= 0.5": twice(3),
    "half the size, every other pixel": lambda raters: raters[:, ::2, ::2],
    "half the size, mean >= 0.5": lambda raters: blocks(raters) >= 0.5,
    "half the size, mean > 0.5": lambda raters: blocks(raters) > 0.5,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folders = sorted(path for path in parser.parse_args().folder.iterdir() if path.is_dir())
    cases = [np.stack([read_mask(path)[0] > 0 for path in sorted(f.iterdir())]) for f in folders]
    print(f"{'grid':<34} mean over cases  all pixels together")
    for name, change in GRIDS.items():
        found = [overlaps(change(raters)) for raters in cases]
        mean = np.mean([common / sizes for common, sizes in found])
        pooled = sum(common.sum() for common, _ in found) / sum(sizes.sum() for _, sizes in found)
        print(f"{name:<34} {100 * mean:15.2f} {100 * pooled:20.2f}")
    of_cases = [np.mean(common / sizes) for common, sizes in map(overlaps, cases)]
    print(
        f"standard error over the cases, as they are: {100 * np.std(of_cases, ddof=1) / len(cases) ** 0.5:.2f}"
    )
