"""Where the voxels of an image lie, and whether two files lie on the same grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_dml._checks import problem
from nnunet_dml._images.endings import PICTURES, split_ending

TOLERANCE = (
    1e-6  # SimpleITK's default: of the first voxel size for spacing and origin, absolute for directions
)


@dataclass(frozen=True)
class Grid:
    """Where an image's voxels lie, in SimpleITK's order of axes."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image, dimensions: int | None = None) -> Grid:
        """The grid of an image, or of its first `dimensions` axes where the others hold channels."""
        n = image.GetDimension()
        keep = dimensions or n
        matrix = np.reshape(image.GetDirection(), (n, n))[:keep, :keep]
        size, spacing, origin = (
            part[:keep] for part in (image.GetSize(), image.GetSpacing(), image.GetOrigin())
        )
        return cls(size, spacing, origin, tuple(matrix.ravel().tolist()))

    def differences(self, other: Grid, *, size_only: bool = False) -> list[tuple[str, str, str]]:
        """What differs: (property, own value, the other's value), within SimpleITK's default tolerances."""
        if self.size != other.size:
            return [("size", _numbers(self.size), _numbers(other.size))]
        if size_only:
            return []
        coordinate = TOLERANCE * abs(self.spacing[0])
        pairs = {
            "spacing": (self.spacing, other.spacing, coordinate),
            "origin": (self.origin, other.origin, coordinate),
            "direction": (self.direction, other.direction, TOLERANCE),
        }
        return [
            (name, _numbers(own), _numbers(its))
            for name, (own, its, tolerance) in pairs.items()
            if not np.allclose(own, its, rtol=0, atol=tolerance)
        ]


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.10g}" for value in values) + ")"


def misfits(path: Path, grid: Grid, reference: Path, its: Grid, *, size_hint: str = "") -> list[str]:
    """One line for each property in which a file's grid differs from that of a reference.

    Args:
        path: The file.
        grid: Its grid.
        reference: The file whose grid it should have.
        its: That grid.
        size_hint: What else to do where the sizes differ.
    """
    pictures = any(split_ending(file.name)[1] in PICTURES for file in (reference, path))
    rows = []
    for name, own, found in its.differences(grid, size_only=pictures):
        if name == "size":
            within, todo = "", f"Resample it to that grid. {size_hint}".strip()
        else:
            within = f", tolerance {TOLERANCE:g}" + " of the voxel size" * (name != "direction")
            todo = "Resample it to that grid; where only the header is wrong, copy the other's."
        rows.append(problem(path, expected=f"{name} {own} of {reference}{within}", found=found, todo=todo))
    return rows
