"""Each rater as if he were a model, evaluated against the others: what a model can be compared with.

    python scripts/raters_as_predictions.py RAW_DATASET WORK [--first-id 900]

For each rater, WORK/raw gets a data set of the cases that he and at least two others have, without him (`labelsTr` is the
others' majority vote), WORK/predictions/<rater> his masks as maps of 0 and 1, and WORK/<rater> their evaluation. Prints a
row per rater, in per cent. RAW_DATASET is one of `nnunet-dml convert raters`, multi-class, in NIfTI.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_dml.labels import fuse

SHOWN = ("dice", "bdice", "ece", "soft_ece", "volume_bias")


def leave_out(source: Path, target: Path, predictions: Path, rater: str) -> int:
    """Write the data set without a rater, and his masks as predictions; how many cases there are."""
    described = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    ending, labels = described["file_ending"], described["labels"]
    classes = len(labels) - ("ignore" in labels)
    for folder in (target / "labelsTr", target / "ratersTr", predictions):
        folder.mkdir(parents=True)
    count = 0
    for case in sorted(it.name for it in (source / "ratersTr").iterdir()):
        files = {it.name.removesuffix(ending): it for it in (source / "ratersTr" / case).iterdir()}
        if rater not in files or len(files) < 3:
            continue
        own = sitk.ReadImage(str(files.pop(rater)))
        masks = np.stack([sitk.GetArrayFromImage(sitk.ReadImage(str(it))) for it in files.values()])
        (target / "ratersTr" / case).mkdir()
        for file in files.values():
            shutil.copy(file, target / "ratersTr" / case)
        vote = fuse(masks, method="majority", num_classes=classes).argmax(0).astype(np.uint8)
        write(vote, own, target / "labelsTr" / f"{case}{ending}")
        array = sitk.GetArrayFromImage(own)
        maps = [(array == c).astype(np.float32) for c in range(1, classes)]
        write(maps[0] if len(maps) == 1 else np.stack(maps), own, predictions / f"{case}{ending}")
        count += 1
    described.pop("nnunet_dml", None)  # it lists the rater who is left out
    described["numTraining"] = count
    (target / "dataset.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    return count


def write(array: np.ndarray, like: sitk.Image, path: Path) -> None:
    """Write a map, or several as a fourth axis, on the grid of an image."""
    images = [sitk.GetImageFromArray(it) for it in (array if array.ndim > like.GetDimension() else [array])]
    for image in images:
        image.CopyInformation(like)
    sitk.WriteImage(images[0] if len(images) == 1 else sitk.JoinSeries(images), str(path), True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--first-id", type=int, default=900)
    arguments = parser.parse_args()
    if arguments.work.exists():
        sys.exit(f"{arguments.work}: expected a folder that does not exist yet")
    raters = sorted({it.name.split(".")[0] for it in (arguments.source / "ratersTr").glob("*/*")})
    environment = {**os.environ, "nnUNet_raw": str(arguments.work / "raw")}
    print(f"| rater | cases | {' | '.join(SHOWN)} |")
    print("|---|---|" + "---|" * len(SHOWN))
    for number, rater in enumerate(raters, arguments.first_id):
        folder = arguments.work / "raw" / f"Dataset{number:03d}_Without_{rater}"
        predictions = arguments.work / "predictions" / rater
        count = leave_out(arguments.source, folder, predictions, rater)
        out = arguments.work / rater
        command = ["nnunet-dml", "evaluate", "-d", str(number), "--predictions", predictions, "-o", out]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        mean = json.loads((out / "summary.json").read_text(encoding="utf-8"))["mean"]
        print(f"| {rater} | {count} | {' | '.join(f'{100 * mean[it]:.2f}' for it in SHOWN)} |", flush=True)
