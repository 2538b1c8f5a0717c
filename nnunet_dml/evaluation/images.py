"""Label maps from NIfTI, NRRD, MHA, PNG and whatever else SimpleITK reads, as `(z, y, x)` integers."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_dml._checks import InputError, problem

TOLERANCE = 1e-6  # SimpleITK's, for directions as they are and for coordinates in units of the voxel


@dataclass(frozen=True)
class LabelMap:
    """A label map and where it lies."""

    path: Path
    array: npt.NDArray[np.integer]
    """`(z, y, x)`; z is 1 for a 2D file, as in nnU-Net."""
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def check_same_grid(self, other: LabelMap) -> None:
        """Raise `InputError` unless both lie on the same grid."""
        if self.array.shape != other.array.shape:
            self._differs("shape", self.array.shape, other.array.shape, other.path)
        for what in ("spacing", "origin", "direction"):
            mine, theirs = np.array(getattr(self, what)), np.array(getattr(other, what))
            scale = 1.0 if what == "direction" else min(other.spacing)
            if mine.shape != theirs.shape or (np.abs(mine - theirs) > TOLERANCE * scale).any():
                self._differs(what, getattr(self, what), getattr(other, what), other.path)

    def _differs(self, what: str, mine: tuple[float, ...], theirs: tuple[float, ...], path: Path) -> None:
        raise InputError(
            problem(
                self.path,
                expected=f"{what} {_tuple(theirs)} of {path}",
                found=_tuple(mine),
                todo="Resample it to that grid.",
            )
        )


def read_labels(path: Path, *, valid: Collection[int]) -> LabelMap:
    """Read a label map.

    Args:
        path: The file.
        valid: The labels that may occur.

    Raises:
        InputError: If the file is missing or damaged, has channels, NaN, fractions or other labels.
    """
    import SimpleITK as sitk

    if not path.is_file():
        raise InputError(problem(path, expected="a file", found="none"))
    _check_gzip(path)
    try:
        image: Any = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip() if str(error).strip() else "no reason given"
        found = "an empty file" if path.stat().st_size == 0 else f"one that SimpleITK cannot read ({reason})"
        raise InputError(problem(path, expected="a label map", found=found)) from None
    if image.GetNumberOfComponentsPerPixel() != 1:
        channels = image.GetNumberOfComponentsPerPixel()
        raise InputError(problem(path, expected="a label map with one channel", found=f"{channels} channels"))
    array = sitk.GetArrayFromImage(image)
    if array.ndim == 2:
        array = array[None]
    elif array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise InputError(problem(path, expected="a 2D or 3D label map", found=f"shape {array.shape}"))
    if array.dtype.kind == "f":
        array = _integers(array, path)
    values = np.unique(array)
    wrong = [int(v) for v in values if int(v) not in valid]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InputError(
            problem(
                path,
                expected=f"the labels {', '.join(map(str, sorted(valid)))} of dataset.json",
                found=", ".join(map(str, wrong[:5])) + more,
            )
        )
    return LabelMap(path, array, image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def _integers(array: npt.NDArray[np.floating], path: Path) -> npt.NDArray[np.integer]:
    stored = array
    if path.name.endswith((".nii", ".nii.gz")):
        # ITK's NIfTI reader turns NaN and infinity into 0 without a word; nibabel shows what is stored.
        import nibabel

        image: Any = nibabel.load(path)
        stored = np.asarray(image.dataobj)
    count = int((~np.isfinite(stored)).sum())
    if count:
        raise InputError(problem(path, expected="integer labels", found=f"NaN or infinity in {count} voxels"))
    fractional = array != np.rint(array)
    if fractional.any():
        raise InputError(
            problem(path, expected="integer labels", found=f"the value {array[fractional][0]:g}")
        )
    return array.astype(np.int64)


def _check_gzip(path: Path) -> None:
    """Read a `.gz` to its end, so that a truncated file is told from other damage."""
    if path.suffix != ".gz" or path.stat().st_size == 0:
        return
    try:
        with GzipFile(path) as stream:
            while stream.read(1 << 20):
                pass
    except BadGzipFile as error:
        raise InputError(problem(path, expected="a gzip file", found=f"something else ({error})")) from None
    except (EOFError, zlib.error) as error:
        raise InputError(
            problem(path, expected="a whole file", found=f"a damaged one ({error})", todo="Copy it again.")
        ) from None


def _tuple(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.7g}" for v in values) + ")"
