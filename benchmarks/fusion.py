"""Fusing the raters of a volume, read from their files as `nnunet-dml preprocess` reads them, and in memory alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from benchmarks._timing import Aim, Options, Point, Row, Table, compare, over
from nnunet_dml.labels import fuse, majority_vote
from nnunet_dml.nnunet.rater_maps import RaterMaps

VOTE, MEAN, WEIGHTED = "nnunet_dml, majority", "nnunet_dml, mean", "nnunet_dml, weighted (default)"
ITK, NUMPY = "SimpleITK LabelVoting, majority", "NumPy stack, mean"
PAIRS = {VOTE: ITK, MEAN: NUMPY}
RATERS = (3, 5, 7)
SHAPE = {"full": (450, 512, 512), "quick": (48, 128, 128), "minute": (6, 16, 16)}
DEPTHS = {"full": (28, 56, 112, 225), "quick": (12, 24, 48), "minute": (3, 6)}
CLASSES = {"full": (2, 4, 8), "quick": (2, 4, 8), "minute": (2, 4)}
ROUNDS = {"full": 2, "quick": 3, "minute": 1}
SMALLEST = {"raters": 1}
NEW_PAGES = (
    "the processor's own time per voxel is the same at all sizes, the system's grows, for new pages: glibc gives arrays beyond 32 MiB "
    "back to the system. At 7 and 59 million voxels the vote took 15 and 12 ns of its own and 2 and 27 ns of the system per voxel; "
    "where glibc keeps its memory (MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184), 15 and 15 and none of "
    "the system (getrusage around the calls of `candidates`, one core of an AMD EPYC, 2026-11-27)"
)
PLANES = {"full": 112, "quick": 24, "minute": 6}  # of the curve over classes


def make(folder: Path, shape: tuple[int, ...], classes: int) -> None:
    """A mask of each rater: nested ellipsoids that each draws somewhat larger or smaller, with a noisy outline."""
    folder.mkdir()
    random = np.random.default_rng(0)
    z, y, x = np.ogrid[tuple(slice(-1, 1, complex(0, n)) for n in shape)]
    for rater, bias in enumerate(np.linspace(-0.04, 0.04, max(RATERS))):
        mask = np.zeros(shape, dtype=np.uint8)
        for k in range(shape[0]):
            noise = random.normal(0, 0.02, (shape[1] // 8 + 1, shape[2] // 8 + 1)).repeat(8, 0).repeat(8, 1)
            radius = np.sqrt(z[k] ** 2 + y[0] ** 2 + x[0] ** 2) + noise[: shape[1], : shape[2]] + bias
            for c in range(1, classes):
                mask[k][radius < 0.6 * (classes - c) / (classes - 1)] = c
        sitk.WriteImage(
            sitk.GetImageFromArray(mask), str(folder / f"rater{rater}.nii.gz"), useCompression=True
        )
    (folder / "made.json").write_text(json.dumps([shape, classes]))


def candidates(
    folder: str, raters: int, classes: int, from_files: bool = True, threads: int = 1
) -> dict[str, Callable[[], Any]]:
    """Votes and means of the first raters; with `from_files` reading is part of the work."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    files = sorted(Path(folder).glob("rater*.nii.gz"))[:raters]
    masks: Any = RaterMaps(files, SimpleITKIO(), classes)
    images = [] if from_files else [sitk.ReadImage(str(path)) for path in files]
    if not from_files:
        masks = [sitk.GetArrayFromImage(it) for it in images]

    def voted() -> Any:
        read = images or [sitk.ReadImage(str(path)) for path in files]
        return sitk.GetArrayFromImage(sitk.LabelVoting(read))

    def mean() -> np.ndarray:
        arrays = (
            [sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in files] if from_files else masks
        )
        stack = np.stack(arrays)
        return np.stack([(stack == c).sum(0, dtype=np.uint8) / np.float32(raters) for c in range(classes)])

    return {
        VOTE: lambda: majority_vote(masks, num_classes=classes)[0],
        ITK: voted,
        MEAN: lambda: fuse(masks, method="uniform", num_classes=classes),
        NUMPY: mean,
        WEIGHTED: lambda: fuse(masks, method="weighted", num_classes=classes),
    }


def measure(options: Options) -> Row:
    """Seven raters from files and in memory; curves over raters, voxels and classes."""
    size, shape = options.size, SHAPE[options.size]
    title = " × ".join(map(str, reversed(shape)))
    row = Row(
        "fusion",
        f"Fusing raters of {title}, 2 classes",
        'Majority vote and mean of the raters. "From files" reads each rater\'s `.nii.gz` as `nnunet-dml preprocess` does; '
        '"in memory" is the fusion alone. The weighted mean, the default of `preprocess`, reads the raters twice and has no peer.',
    )

    def point(folder: str, **more: Any) -> Point:
        name = options.folder / folder
        return {"folder": str(name), "raters": 7, "classes": 2, "threads": options.threads, **more}

    how = {"rounds": ROUNDS[size]}
    make(options.folder / "raters", shape, 2)
    curve = over(
        __name__,
        "raters",
        RATERS,
        [point("raters", raters=n) for n in RATERS],
        options,
        memory=True,
        **how,
    )
    row.curves.append(curve)
    for where, lines in (
        ("from files", {name: its[-1] for name, its in curve.lines.items()}),
        ("in memory", compare(__name__, point("raters", from_files=False), options, **how)),
    ):
        for title, names in (("majority", (VOTE, ITK)), ("mean", (MEAN, NUMPY, WEIGHTED))):
            its = {name: lines[name] for name in names}
            row.tables.append(Table(f"{title} of 7 raters, {where}", its))
        for name, other in PAIRS.items():
            found = lines[other].median / lines[name].median
            row.aims.append(Aim(f"7 raters, {where}: time of {other} ÷ ours", found, "≥", 2))
    for name in (VOTE, MEAN, WEIGHTED):
        few, many = curve.lines[name][0].mib, curve.lines[name][-1].mib
        if few and many:
            row.aims.append(Aim(f"{name}: memory of 7 raters ÷ memory of 3", many / few, "≤", 1.05))
    for depth in DEPTHS[size]:
        make(options.folder / f"depth{depth}", (depth, *shape[1:]), 2)
    points = [point(f"depth{depth}") for depth in DEPTHS[size]]
    voxels = [depth * prod(shape[1:]) for depth in DEPTHS[size]]
    row.curves.append(replace(over(__name__, "voxels", voxels, points, options, **how), reason=NEW_PAGES))
    for classes in CLASSES[size]:
        make(options.folder / f"classes{classes}", (PLANES[size], *shape[1:]), classes)
    points = [point(f"classes{it}", classes=it) for it in CLASSES[size]]
    row.curves.append(over(__name__, "classes", CLASSES[size], points, options, **how))
    return row
