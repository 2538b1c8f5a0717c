"""Time and memory of the commands on very many tiny cases.

    python scripts/many_cases.py WORK [--cases 10000] [--raters 3]

Makes the cases below WORK (12 × 10 pixels, raters that differ), takes them through conversion, nnU-Net's planning, soft maps, the
raters' agreement, evaluation of made-up predictions, comparison and report, and prints a line per command.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import trange

SHAPE = (12, 10)
NAME = "Dataset599_Many"


def make_cases(src: Path, predictions: Path, cases: int, raters: int) -> None:
    """Images and masks as the layout `folders` has them, and a prediction of each case."""
    rng = np.random.default_rng(0)
    folders = [src / "raters" / f"r{it}" for it in range(raters)]
    for folder in (src / "images", predictions, *folders):
        folder.mkdir(parents=True)
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    for number in trange(cases, desc="Making", unit="case"):
        name, radius = f"case{number:05d}.nii.gz", rng.uniform(2, 4)
        distance = np.hypot(y - 6, x - 5) - radius
        arrays = {src / "images" / name: (rng.normal(size=SHAPE) - distance).astype(np.float32)}
        for folder in folders:
            arrays[folder / name] = (distance + rng.uniform(-1, 1) < 0).astype(np.uint8)
        for path, array in arrays.items():
            sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
        p = 1 / (1 + np.exp(distance + rng.normal(0, 0.3, SHAPE)))
        probabilities = np.stack([1 - p, p])[:, None].astype(np.float32)
        np.savez_compressed(predictions / f"case{number:05d}.npz", probabilities=probabilities)


def run(*command: str | Path) -> None:
    """Run a command to its end and print what it took; its children count in."""
    words = [str(it) for it in command]
    with Path(os.environ["MANY_CASES_LOG"]).open("ab") as log:
        began = time.monotonic()
        child = subprocess.Popen(words, stdout=log, stderr=log)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.monotonic() - began
    if status:
        sys.exit(f"{' '.join(words)}: failed, see {os.environ['MANY_CASES_LOG']}")
    shown = " ".join(Path(it).name if "/" in it else it for it in words)
    cpu = used.ru_utime + used.ru_stime
    print(f"| `{shown}` | {seconds:.0f} s | {cpu:.0f} s | {used.ru_maxrss / 1024:.0f} MiB |", flush=True)


def main() -> None:
    """All of it, one command after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="a folder that is not there yet")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--raters", type=int, default=3)
    given = parser.parse_args()
    work: Path = given.work.absolute()
    work.mkdir(parents=True)
    for variable in ("raw", "preprocessed", "results"):
        (work / variable).mkdir()
        os.environ[f"nnUNet_{variable}"] = str(work / variable)
    os.environ["MANY_CASES_LOG"] = str(work / "log.txt")
    src, predictions = work / "src", work / "predictions"
    make_cases(src, predictions, given.cases, given.raters)
    print("| command | time | processor | memory of the largest process |\n|---|---|---|---|")
    np_2 = ("-np", "2")
    run("nnunet-dml", "convert", "raters", src, "--dataset", NAME[7:], "--layout", "folders", *np_2)
    run("nnunet-dml", "raters", "-d", "599", "-o", work / "agreement", *np_2)
    ours, again = work / "evaluation", work / "evaluation_again"
    run("nnunet-dml", "evaluate", "-d", "599", "--predictions", predictions, "-o", ours, *np_2)
    run("nnunet-dml", "evaluate", "-d", "599", "--predictions", predictions, "-o", again, *np_2)
    run("nnunet-dml", "compare", ours, again)
    run("nnunet-dml", "report", ours, "-o", work / "report.html")
    run("nnUNetv2_plan_and_preprocess", "-d", "599", "-c", "2d", "-npfp", "2", *np_2)
    run("nnunet-dml", "preprocess", "-d", "599", "-c", "2d", *np_2)
    run("nnunet-dml", "preprocess", "-d", "599", "-c", "2d", *np_2)  # again: all is there
    run("nnunet-dml", "doctor", "-d", "599", "-c", "2d")
    written = json.loads((ours / "summary.json").read_text(encoding="utf-8"))
    print(f"\nDice {100 * written['mean']['dice']:.2f}; log: {work / 'log.txt'}")


if __name__ == "__main__":
    main()
