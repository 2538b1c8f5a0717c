"""DICOM series of CT slices, read with SimpleITK."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem
from nnunet_dml._images import check_name, quiet

_SERIES, _POSITION, _INSTANCE = "0020|000e", "0020|0032", "0020|0013"
_AGAIN = "Fetch the series again."
_NEAR = 0.01  # mm by which a slice's height in the file may differ from the one that is looked for


def series_below(folder: Path) -> dict[str, Path]:
    """The DICOM series of images in the folders below one: UID → folder. One series per folder, as TCIA stores them.

    Files that are no DICOM images, such as structured reports, are passed over.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.dcm")):
        if path.parent in found.values() or path.name.startswith("."):
            continue
        with suppress(InputError):
            found[_header(path)[_SERIES]] = path.parent
    return found


def read_slices(folder: Path, uid: str, zs: Sequence[float]) -> sitk.Image:
    """Slices at the given heights, with intensities rescaled as the files say: Hounsfield units for a CT.

    Args:
        folder: Of the series.
        uid: Of the series; files of another one are left aside.
        zs: Heights in mm (z of the patient's position), rising. Of two slices at one height that of the lower instance
            number is taken.

    Returns:
        The image, 16-bit integers where they hold its intensities.

    Raises:
        InputError: Files are no DICOM, slices are missing, or a file is damaged.
    """
    slices: dict[float, tuple[int, Path]] = {}
    for path in sorted(folder.glob("*.dcm")):
        if path.name.startswith("."):
            continue
        header = _header(path)
        if header[_SERIES] == uid:
            try:
                z, number = float(header[_POSITION].split("\\")[2]), int(header[_INSTANCE] or 0)
            except (IndexError, ValueError):
                expected, found = "a slice with its position and number", repr(header[_POSITION])
                raise InputError(problem(path, expected=expected, found=found, todo=_AGAIN)) from None
            slices[z] = min(slices.get(z, (number, path)), (number, path))
    heights = np.array(sorted(slices))
    missing = [z for z in zs if not len(heights) or np.abs(heights - z).min() > _NEAR]
    if missing:
        expected = f"slices at {len(zs)} heights of series {uid}"
        found = f"{len(zs) - len(missing)}, none at {missing[0]:g} mm"
        raise InputError(problem(folder, expected=expected, found=found, todo=_AGAIN))
    files = [slices[float(heights[np.abs(heights - z).argmin()])][1] for z in zs]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in files])
    try:
        with quiet():
            image = reader.Execute()
    except RuntimeError as error:
        line = str(error).strip().splitlines()[-1].strip()
        expected = f"{len(files)} whole slices of one size"
        raise InputError(problem(folder, expected=expected, found=line, todo=_AGAIN)) from None
    values = sitk.GetArrayViewFromImage(image)
    info = np.iinfo(np.int16)
    whole = values.dtype.kind in "iu" or not np.any(values % 1)
    if whole and info.min <= values.min() and values.max() <= info.max:
        image = sitk.Cast(image, sitk.sitkInt16)
    return image


def _header(path: Path) -> dict[str, str]:
    """The three tags of a slice that are needed here."""
    check_name(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        with quiet():
            reader.ReadImageInformation()
        return {
            tag: reader.GetMetaData(tag).strip("\0 ") if reader.HasMetaDataKey(tag) else ""
            for tag in (_SERIES, _POSITION, _INSTANCE)
        }
    except RuntimeError:
        expected, found = "a DICOM slice", "something else"
        raise InputError(problem(path, expected=expected, found=found, todo=_AGAIN)) from None
