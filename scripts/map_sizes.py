"""Bytes of soft maps on disk beside those of float32 .nii.gz files of the same fractions.

    python scripts/map_sizes.py FOLDER …

Each FOLDER holds a data set's soft maps (nnUNet_preprocessed/DATASET/CONFIGURATION_soft/FUSION). One NIfTI file a class,
compressed as SimpleITK does by default.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import SimpleITK as sitk

from nnunet_dml.labels.storage import open_soft_map


def nifti_bytes(path: Path) -> int:
    """Of a map's classes, as float32 .nii.gz."""
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "class.nii.gz"
        for fractions in open_soft_map(path).load():
            sitk.WriteImage(sitk.GetImageFromArray(fractions), str(file), useCompression=True)
            found += file.stat().st_size
    return found


def main() -> None:
    """A line per folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="+", help="with soft maps")
    for folder in parser.parse_args().folder:
        maps = sorted(folder.glob("*.b2nd"))
        if not maps:
            parser.error(f"{folder}: expected soft maps (.b2nd), found none")
        ours = sum(it.stat().st_size for it in maps)
        frames = sum(open_soft_map(it).array.schunk.cbytes for it in maps)
        theirs = sum(map(nifti_bytes, maps))
        print(
            f"{folder}: {len(maps)} maps, {ours / len(maps) / 1024:.2f} KiB each ({100 * (1 - frames / ours):.0f} % header and "
            f"metadata), float32 .nii.gz {theirs / len(maps) / 1024:.2f} KiB, ratio {ours / theirs:.2f}"
        )


if __name__ == "__main__":
    main()
