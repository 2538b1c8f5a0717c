"""One case of a source: write it as nnU-Net wants it. Runs in worker processes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_dml._images import PICTURES, Grid, mask_of, read, split_ending, write
from nnunet_dml.labels import majority_vote
from nnunet_dml.nnunet.layouts.cases import Case, ending_of, load, path_of
from nnunet_dml.nnunet.rater_cases import Reading, grid_of, holds_channels_last, sidecar, squeezed


@dataclass(frozen=True)
class Target:
    """How cases are written."""

    folder: Path
    ending: str
    labels: dict[int, int]  # value in the raters' files → label
    ignore_label: int | None = None  # where a rater says so, he abstains
    raters: bool = True  # whether each rater's masks are kept beside the consensus


class _Labels:
    """Label maps of files, read one at a time, as often as they are iterated."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __iter__(self) -> Iterator[np.ndarray]:
        for path in self.paths:
            yield sitk.GetArrayFromImage(read(path))


def write_case(case: Case, *, reading: Reading, target: Target) -> int:
    """Write a case's images, its raters' masks and their majority vote.

    Returns:
        The number of voxels in which labels were tied.

    Raises:
        InputError: A file was damaged after the check.
        OSError: A file could not be written.
    """
    grid = _write_images(case, reading, target)
    consensus_path = target.folder / "labelsTr" / f"{case.name}{target.ending}"
    paths = []
    for rater, source in case.raters.items():
        image = squeezed(load(source), reading)
        grid = grid or Grid.of(image)
        if target.raters:
            paths.append(target.folder / "ratersTr" / case.name / f"{rater}{target.ending}")
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
        labels = _renumbered(mask_of(image, path_of(source)), target)
        write(labels, grid, paths[-1] if target.raters else consensus_path)
    assert grid is not None
    tied = 0
    if target.raters:
        consensus, tied = majority_vote(
            _Labels(paths),
            num_classes=max(target.labels.values()) + (target.ignore_label is None),
            ignore_label=target.ignore_label,
        )
        write(consensus, grid, consensus_path)
    if spacing := sidecar(case.images[0], len(grid.size)) if case.images else "":
        for path in (*paths, consensus_path, target.folder / "imagesTr" / f"{case.name}{target.ending}"):
            path.with_name(split_ending(path.name)[0] + ".json").write_text(spacing)
    return tied


def _renumbered(source: np.ndarray, target: Target) -> np.ndarray:
    """A mask's values as labels; those that are none become background."""
    labels = np.zeros(source.shape, dtype=np.min_scalar_type(max(target.labels.values())))
    for value, label in target.labels.items():
        labels[source == value] = label
    return labels


def _write_images(case: Case, reading: Reading, target: Target) -> Grid | None:
    """Copy the images, split into channels where they hold several; returns the grid of the first."""
    grid: Grid | None = None
    number = 0
    last = holds_channels_last(case, reading)
    for source in case.images:
        stored = load(source)
        image = squeezed(stored, reading)
        grid = grid or grid_of(image, last)
        split = last or image.GetDimension() == 4
        vectors = image.GetNumberOfComponentsPerPixel() > 1
        apart = vectors and target.ending not in PICTURES
        as_it_is = image is stored and ending_of(source) == target.ending and reading.window is None
        array = sitk.GetArrayFromImage(image)
        for channel in array if split else np.moveaxis(array, -1, 0) if apart else [array]:
            to = target.folder / "imagesTr" / f"{case.name}_{number:04d}{target.ending}"
            if isinstance(source, Path) and as_it_is and not (split or apart):
                _copy(source, to)
            else:
                content = np.ascontiguousarray(_clipped(channel, reading.window))
                write(content, grid, to, vectors=vectors and not apart)
            number += 1
    return grid


def _clipped(array: np.ndarray, window: tuple[int, int] | None) -> np.ndarray:
    """Intensities within a window, in the dtype that they had."""
    if window is None:
        return array
    low, high = window
    if array.dtype.kind in "iu":  # whose range may end before the window does
        info = np.iinfo(array.dtype)
        low, high = max(low, int(info.min)), min(high, int(info.max))
    return np.clip(array, low, high)


def _copy(path: Path, to: Path) -> None:
    try:
        shutil.copyfile(path, to)
    except OSError as error:  # shutil names the source, also where the target's disk is full
        raise OSError(error.errno, error.strerror, str(to)) from None
