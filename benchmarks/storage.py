"""Soft maps on disk against NIfTI of the same fractions, in float32 and in the 8 bit that ours have."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params
from scipy.ndimage import zoom

from benchmarks._timing import Aim, Options, Row, Table, compare
from nnunet_dml.labels import fuse
from nnunet_dml.labels.storage import open_soft_map, quantise, save_soft_map
from scripts.make_phantom import make_case

OURS, NIFTI, EIGHT = "nnunet_dml, .b2nd", "float32 .nii.gz", "8-bit .nii.gz"
SHAPE = {"full": (64, 256), "quick": (24, 96), "minute": (6, 32)}  # slices, edge
RATERS = (3, 7)
SMALLEST = {"size": "minute"}
FILES = {OURS: "soft.b2nd", NIFTI: "soft.nii.gz", EIGHT: "soft8.nii.gz"}


def fractions(size: str, raters: int, resampled: bool) -> np.ndarray:
    """(1, z, y, x): a phantom's weighted mean, and once more on another grid, as preprocessing leaves it."""
    depth, edge = SHAPE[size]
    _, masks = make_case(np.random.default_rng(0), edge, depth, np.linspace(-1.5, 1.5, raters))
    soft = fuse(masks, method="weighted", num_classes=2)[1:]
    return np.clip(zoom(soft, (1, 1.25, 0.9, 0.9), order=1), 0, 1) if resampled else soft


def write(soft: np.ndarray, path: Path) -> None:
    """In one format or the other, by its name; ours in the pieces that nnU-Net would choose for a patch of half its size."""
    if path.suffix == ".gz":
        sitk.WriteImage(sitk.GetImageFromArray(soft[0]), str(path), useCompression=True)
        return
    blocks, chunks = comp_blosc2_params(soft.shape, tuple(max(1, n // 2) for n in soft.shape[1:]), 1)
    save_soft_map(path, soft, metadata={}, blocks=blocks, chunks=chunks)


def candidates(folder: str, size: str, raters: int, resampled: bool) -> dict[str, Callable[[], Any]]:
    """Write and read again."""
    soft = fractions(size, raters, resampled)
    files = {name: Path(folder) / file for name, file in FILES.items()}

    def ours() -> Any:
        write(soft, files[OURS])
        return open_soft_map(files[OURS]).load()

    def nifti() -> Any:
        write(soft, files[NIFTI])
        return sitk.GetArrayFromImage(sitk.ReadImage(str(files[NIFTI])))[None]

    def eight() -> Any:
        write(np.rint(soft * 255).astype(np.uint8), files[EIGHT])
        return sitk.GetArrayFromImage(sitk.ReadImage(str(files[EIGHT])))[None] / np.float32(255)

    return {OURS: ours, NIFTI: nifti, EIGHT: eight}


def measure(options: Options) -> Row:
    """A phantom of several raters, as fused and as resampled."""
    depth, edge = SHAPE[options.size]
    row = Row(
        "storage",
        f"Soft maps on disk, phantom of {edge} × {edge} × {depth}",
        "The weighted mean of the raters, one class. Ours are 8-bit (error at most 1/510), with a checksum. Times are of writing and "
        'reading once; "resampled" is linear, to another grid, which makes more different values. '
        "Real data: [soft maps on disk](all-data.md#soft-maps-on-disk).",
    )
    for raters in RATERS:
        for resampled in (False, True):
            title = f"{raters} raters, {'resampled' if resampled else 'as fused'}"
            point = {
                "folder": str(options.folder),
                "size": options.size,
                "raters": raters,
                "resampled": resampled,
            }
            lines = compare(__name__, point, options, rounds=min(3, options.rounds))
            soft = fractions(options.size, raters, resampled)
            sizes = [(options.folder / name).stat().st_size for name in FILES.values()]
            share = float(((soft > 0) & (soft < 1)).mean())
            xz = len(lzma.compress(quantise(soft).tobytes(), preset=9 | lzma.PRESET_EXTREME))
            note = (
                f"{sizes[0] / 1024:.1f} KiB against {sizes[1] / 1024:.1f} KiB in float32 and {sizes[2] / 1024:.1f} KiB in 8 bit; "
                f"{100 * share:.1f} % of the voxels are fractional. `xz -9e` packs our 8-bit voxels, all in one piece, "
                f"into {xz / 1024:.1f} KiB, {xz / sizes[1]:.2f} of float32."
            )
            row.tables.append(Table(title, lines, note))
            row.aims.append(Aim(f"{title}: bytes ÷ float32 .nii.gz", sizes[0] / sizes[1], "≤", 0.25))
    return row
