"""How much raters agree: for every folder of cases, each a folder of masks (one per rater).

    python scripts/summarise_raters.py FOLDER [FOLDER …] [--pattern '*']

A FOLDER is `ratersTr` of a raw data set, or any folder `<case>/<rater>.*`. Prints cases, raters, tied voxels, the mean
Dice of a rater against the majority vote, and for each fusion the share of fractional voxels and its volume relative to
the majority vote's.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_dml._images import read_mask
from nnunet_dml.labels import FUSIONS, fuse, majority_vote, rater_dice


def summarise(folder: Path, pattern: str) -> None:
    """Print the figures of one data set."""
    raters: Counter[int] = Counter()
    ties, scores = 0, []
    voxels, fractional, volume = 0, Counter(), Counter()
    for case in tqdm(
        sorted(path for path in folder.iterdir() if path.is_dir()), desc=folder.parent.name, delay=1
    ):
        masks = [read_mask(path)[0] for path in sorted(case.glob(pattern))]
        raters[len(masks)] += 1
        ties += majority_vote(masks)[1]
        scores.append(rater_dice(masks).mean())
        voxels += masks[0].size
        for method in FUSIONS:
            foreground = fuse(masks, method=method)[1:]
            fractional[method] += np.count_nonzero(((foreground > 0) & (foreground < 1)).any(0))
            volume[method] += float(foreground.sum(dtype=np.float64))
    per_case = ", ".join(f"{cases} × {count}" for count, cases in sorted(raters.items()))
    print(
        f"{folder}: cases × raters {per_case}; {ties} tied voxels; mean Dice of a rater {100 * np.mean(scores):.2f} %"
    )
    for method in FUSIONS:
        share, relative = 100 * fractional[method] / voxels, volume[method] / volume["majority"]
        print(f"  {method:<9} {share:5.2f} % fractional voxels, volume {relative:.3f} × the majority vote's")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--pattern", default="*", help="which files of a case are masks")
    arguments = parser.parse_args()
    for each in arguments.folders:
        summarise(each, arguments.pattern)
