"""One case of several raters: check its files, write them as nnU-Net wants them. Runs in worker processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem
from nnunet_dml._images import PICTURES, Grid, count_not_finite, mask_of, misfits, read, split_ending, write
from nnunet_dml.labels import majority_vote
from nnunet_dml.nnunet.layouts import Case


@dataclass
class Facts:
    """What a check found out about one case."""

    problems: list[str] = field(default_factory=list)
    grid: Grid | None = None
    channels: int = 0
    picture_channels: int = 1  # of one picture file: 3 for RGB, 4 with transparency
    values: dict[str, tuple[int, ...]] = field(default_factory=dict)  # each rater's label values
    wide: tuple[str, ...] = ()  # raters whose files have more than 8 bits


@dataclass(frozen=True)
class Target:
    """How cases are written."""

    folder: Path
    ending: str
    labels: dict[int, int]  # value in the raters' files → label
    ignore_label: int | None = None  # where a rater says so, he abstains
    channels_last: bool = False


class _Labels:
    """Label maps of files, read one at a time, as often as they are iterated."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __iter__(self) -> Iterator[np.ndarray]:
        for path in self.paths:
            yield sitk.GetArrayFromImage(read(path))


def inspect_case(case: Case, *, channels_last: bool = False) -> Facts:
    """Read every file of a case once; nothing is raised, all problems come back."""
    facts = Facts()
    first: Path | None = None
    for path in case.images:
        try:
            image = read(path)
            _sidecar(path, image.GetDimension())
        except InputError as error:
            facts.problems += error.problems
            continue
        trouble = _image_trouble(image, path, channels_last)
        if trouble:
            facts.problems.append(problem(path, expected=trouble[0], found=trouble[1], todo=trouble[2]))
            continue
        grid, channels = _grid(image, channels_last), _channel_count(image, channels_last)
        if split_ending(path.name)[1] in PICTURES:
            facts.picture_channels = channels
        if facts.grid is None:
            facts.grid, first = grid, path
        else:
            assert first is not None
            facts.problems += misfits(path, grid, first, facts.grid)
        facts.channels += channels
    for rater, path in case.raters.items():
        _inspect_mask(facts, rater, path, first)
    return facts


def _image_trouble(image: sitk.Image, path: Path, channels_last: bool) -> tuple[str, str, str] | None:
    """What nnU-Net could not digest: (expected, found, what to do)."""
    ending = split_ending(path.name)[1]
    dimensions, components = image.GetDimension() - channels_last, image.GetNumberOfComponentsPerPixel()
    if components > 1 and (ending in PICTURES and components not in (3, 4)):
        return "a grey, RGB or RGBA picture", f"{components} values per pixel", "Save it as grey or RGB."
    if not 2 <= dimensions <= 4 or (components > 1 and image.GetDimension() == 4):
        return "an image of 2 or 3 dimensions, or 4 with channels last", f"{image.GetDimension()}", ""
    if channels_last and dimensions == 4:
        return "the channels as last of at most 4 axes", "5", "Leave --channels-last out."
    if ending == ".tiff" and dimensions == 2:
        return "a 3D image, as nnU-Net reads .tiff", "a 2D one", "Rename the images to .tif."
    if bad := count_not_finite(path, image):
        return "finite intensities", f"{bad} that are NaN or infinite", "Replace them by a meaningful value."
    return None


def _grid(image: sitk.Image, channels_last: bool) -> Grid:
    split = channels_last or image.GetDimension() == 4
    return Grid.of(image, image.GetDimension() - 1 if split else None)


def _channel_count(image: sitk.Image, channels_last: bool) -> int:
    split = channels_last or image.GetDimension() == 4
    return image.GetSize()[-1] if split else image.GetNumberOfComponentsPerPixel()


def _inspect_mask(facts: Facts, rater: str, path: Path, image: Path | None) -> None:
    try:
        mask = read(path)
        if facts.grid is not None and image is not None:
            grid = Grid.of(mask)
            last = len(facts.grid.size) == len(grid.size) + 1
            hint = "Where the image's last axis holds channels, use --channels-last." if last else ""
            facts.problems += misfits(path, grid, image, facts.grid, size_hint=hint)
        array = mask_of(mask, path)
    except InputError as error:
        facts.problems += error.problems
        return
    if array.dtype.itemsize > 1:
        facts.wide += (rater,)
    if (low := array.min()) < 0:
        todo = "Renumber the labels; 0 is the background."
        facts.problems.append(problem(path, expected="labels of at least 0", found=f"{low:.0f}", todo=todo))
        return
    facts.values[rater] = _values(array)


def _values(array: np.ndarray) -> tuple[int, ...]:
    """The values in an array of whole numbers, sorted; without sorting the voxels where they are small."""
    if array.max() < 1 << 16:
        return tuple(np.flatnonzero(np.bincount(array.astype(np.uint16).ravel())).tolist())
    return tuple(int(value) for value in np.unique(array))


def write_case(case: Case, target: Target) -> int:
    """Write a case's images, its raters' masks and their majority vote.

    Returns:
        The number of voxels in which labels were tied.

    Raises:
        InputError: A file was damaged after the check.
        OSError: A file could not be written.
    """
    grid = _write_images(case, target)
    raters = target.folder / "ratersTr" / case.name
    raters.mkdir(parents=True)
    dtype = np.min_scalar_type(max(target.labels.values()))
    paths = []
    for rater, path in case.raters.items():
        image = read(path)
        source = sitk.GetArrayViewFromImage(image)  # a view does not keep its image alive
        labels = np.zeros(source.shape, dtype=dtype)
        for value, label in target.labels.items():
            labels[source == value] = label
        del source, image
        paths.append(raters / f"{rater}{target.ending}")
        write(labels, grid, paths[-1])
    consensus, tied = majority_vote(
        _Labels(paths),
        num_classes=max(target.labels.values()) + (target.ignore_label is None),
        ignore_label=target.ignore_label,
    )
    consensus_path = target.folder / "labelsTr" / f"{case.name}{target.ending}"
    write(consensus, grid, consensus_path)
    if spacing := _sidecar(case.images[0], len(grid.size)):
        for path in (*paths, consensus_path, target.folder / "imagesTr" / f"{case.name}{target.ending}"):
            path.with_name(split_ending(path.name)[0] + ".json").write_text(spacing)
    return tied


def _write_images(case: Case, target: Target) -> Grid:
    """Copy the images, split into channels where they hold several; returns the grid of the first."""
    grid: Grid | None = None
    number = 0
    for path in case.images:
        image = read(path)
        grid = grid or _grid(image, target.channels_last)
        ending = split_ending(path.name)[1]
        split = target.channels_last or image.GetDimension() == 4
        vectors = image.GetNumberOfComponentsPerPixel() > 1 and ending not in PICTURES
        array = sitk.GetArrayFromImage(image)
        for channel in array if split else np.moveaxis(array, -1, 0) if vectors else [array]:
            to = target.folder / "imagesTr" / f"{case.name}_{number:04d}{target.ending}"
            if split or vectors or ending != target.ending:
                write(np.ascontiguousarray(channel), grid, to)
            else:
                _copy(path, to)
            number += 1
    assert grid is not None
    return grid


def _copy(path: Path, to: Path) -> None:
    try:
        shutil.copyfile(path, to)
    except OSError as error:  # shutil names the source, also where the target's disk is full
        raise OSError(error.errno, error.strerror, str(to)) from None


def _sidecar(image: Path, dimensions: int) -> str:
    """The spacing that nnU-Net reads beside a 3D TIFF, as JSON; "" where there is none."""
    stem, ending = split_ending(image.name)
    if ending not in (".tif", ".tiff") or dimensions != 3:
        return ""
    for name in (f"{stem}.json", f"{stem[:-5]}.json"):
        path = image.with_name(name)
        if path.is_file():
            try:
                spacing = [float(value) for value in json.loads(path.read_text())["spacing"]]
            except (ValueError, KeyError, TypeError):
                expected = '{"spacing": [z, y, x]}'
                raise InputError(
                    problem(path, expected=expected, found="something else", todo="Mend it.")
                ) from None
            return json.dumps({"spacing": spacing})
    return ""
