"""One case of a source: check its images and masks. Runs in worker processes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem
from nnunet_dml._image_bytes import SET_IT, SOMEWHERE, nowhere
from nnunet_dml._images import (
    NOT_FINITE,
    PICTURES,
    Grid,
    count_not_finite,
    mask_of,
    misfits,
    read,
    split_ending,
)
from nnunet_dml.nnunet.layouts.cases import Case, Source, ending_of, load, parts_of, path_of


@dataclass(frozen=True)
class Reading:
    """How cases are read."""

    channels_last: bool = False
    """Whether the images' last axis holds channels; 4D images are always read so."""
    flat: bool = False
    """Whether it does so where an image has one axis more than its masks, and a last axis of one is none."""
    window: tuple[int, int] | None = None
    """Intensities are clipped to it."""
    repair_headers: bool = False
    """Whether the image's header replaces that of a mask of the same size."""


@dataclass
class Facts:
    """What a check found out about one case."""

    problems: list[str] = field(default_factory=list)
    """Of its images."""
    masks: dict[str, list[str]] = field(default_factory=dict)
    """Problems of its masks, by rater."""
    grid: Grid | None = None
    channels: int = 0
    picture_channels: int = 1  # of one picture file: 3 for RGB, 4 with transparency
    values: dict[str, tuple[int, ...]] = field(default_factory=dict)  # each rater's label values
    wide: tuple[str, ...] = ()  # raters whose files have more than 8 bits
    repaired: list[tuple[Path, str]] = field(
        default_factory=list
    )  # masks, and what was wrong with their headers

    @property
    def lines(self) -> list[str]:
        """All problems, of images and masks."""
        return [*self.problems, *chain.from_iterable(self.masks.values())]


def inspect_case(case: Case, *, reading: Reading) -> Facts:
    """Read every file of a case once; nothing is raised, all problems come back."""
    facts = Facts()
    first: Path | None = None
    try:
        last = holds_channels_last(case, reading)
    except InputError:
        last = reading.channels_last
    for source in case.images:
        path = path_of(source)
        try:
            image = squeezed(load(source), reading)
            sidecar(source, image.GetDimension())
        except InputError as error:
            facts.problems += error.problems
            continue
        trouble = _image_trouble(image, source, last) or _window_trouble(image, reading.window)
        if trouble:
            facts.problems.append(problem(path, expected=trouble[0], found=trouble[1], todo=trouble[2]))
            continue
        if found := nowhere(path, image.GetOrigin()):
            facts.problems.append(problem(path, expected=SOMEWHERE, found=found, todo=SET_IT))
            continue
        grid, channels = grid_of(image, last), _channel_count(image, last)
        if ending_of(source) in PICTURES:
            facts.picture_channels = channels
        if facts.grid is None:
            facts.grid, first = grid, path
        else:
            assert first is not None
            facts.problems += misfits(path, grid, first, facts.grid)
        facts.channels += channels
    for rater, source in case.raters.items():
        try:
            mask = squeezed(load(source), reading)
            if not case.images and facts.grid is None:
                facts.grid, facts.channels, first = Grid.of(mask), 1, path_of(source)
            problems = _misfits(facts, source, mask, first, reading)
            facts.masks |= {rater: problems} if problems else {}
            facts.values[rater] = _values(mask_of(mask, path_of(source)), path_of(source))
        except InputError as error:
            facts.masks[rater] = [*facts.masks.get(rater, ()), *error.problems]
            continue
        if mask.GetSizeOfPixelComponent() > 1:
            facts.wide += (rater,)
    return facts


def squeezed(image: sitk.Image, reading: Reading) -> sitk.Image:
    """An image or a mask without its axes of one behind the first two where these are none; else itself."""
    if not reading.flat or reading.channels_last:
        return image
    while image.GetDimension() > 2 and image.GetSize()[-1] == 1:
        image = image[..., 0]
    # in front of an axis of channels
    return image[:, :, 0, :] if image.GetDimension() == 4 and image.GetSize()[2] == 1 else image


def holds_channels_last(case: Case, reading: Reading) -> bool:
    """Whether the last axis of a case's images holds channels, as the layout or the user says."""
    if reading.channels_last or not reading.flat or not case.images:
        return reading.channels_last
    image, mask = (squeezed(load(it), reading) for it in (case.images[0], next(iter(case.raters.values()))))
    return image.GetDimension() == 3 and mask.GetDimension() == 2 and image.GetSize()[:2] == mask.GetSize()


def _image_trouble(image: sitk.Image, source: Source, channels_last: bool) -> tuple[str, str, str] | None:
    """What nnU-Net could not digest: (expected, found, what to do)."""
    ending, path = ending_of(source), path_of(source)
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
        found = f"{bad} that are {NOT_FINITE}"
        return "finite intensities", found, "Replace them by a meaningful value."
    return None


def _window_trouble(image: sitk.Image, window: tuple[int, int] | None) -> tuple[str, str, str] | None:
    """Whether a window would leave nothing of an image: (expected, found, what to do)."""
    if window is None:
        return None
    array = sitk.GetArrayViewFromImage(image)
    low, high = array.min(), array.max()
    if high > window[0] and low < window[1]:
        return None
    expected = f"intensities between {window[0]} and {window[1]} (--window)"
    return expected, f"{low:g} … {high:g}", "Are they Hounsfield units?"


def grid_of(image: sitk.Image, channels_last: bool) -> Grid:
    """Where an image's voxels lie, without the axis of its channels."""
    split = channels_last or image.GetDimension() == 4
    return Grid.of(image, image.GetDimension() - 1 if split else None)


def _channel_count(image: sitk.Image, channels_last: bool) -> int:
    split = channels_last or image.GetDimension() == 4
    return image.GetSize()[-1] if split else image.GetNumberOfComponentsPerPixel()


def _misfits(
    facts: Facts, source: Source, mask: sitk.Image, image: Path | None, reading: Reading
) -> list[str]:
    """One line for each way in which a mask lies elsewhere than the image; repaired headers are noted."""
    if facts.grid is None or image is None:
        return []
    parts, rows = parts_of(source), list[str]()
    for part in parts or (path_of(source),):
        alone = part == image  # a case without an image
        found = nowhere(part, mask.GetOrigin() if alone else ())
        if found and (alone or not reading.repair_headers):
            todo = SET_IT if alone else f"{SET_IT} --repair-headers copies the image's."
            rows.append(problem(part, expected=SOMEWHERE, found=found, todo=todo))
            continue
        grid = Grid.of(mask if len(parts) < 2 else read(part))
        last = len(facts.grid.size) == len(grid.size) + 1
        hint = "Where the image's last axis holds channels, use --channels-last." if last else ""
        wrong = misfits(part, grid, image, facts.grid, size_hint=hint)
        if grid.size != facts.grid.size:
            rows += wrong
        elif wrong and parts and reading.repair_headers:
            changes = [f"{name} {found} → {own}" for name, own, found in facts.grid.differences(grid)]
            facts.repaired.append((part, ", ".join(changes)))
        elif parts:  # else it was made for the image's grid
            rows += [f"{row} (--repair-headers does so.)" for row in wrong]
    return rows


def _values(array: np.ndarray, path: Path) -> tuple[int, ...]:
    """The values in a mask, sorted; without sorting the voxels where they are small.

    Raises:
        InputError: Some are negative.
    """
    if (low := array.min()) < 0:
        todo = "Renumber the labels; 0 is the background."
        raise InputError(problem(path, expected="labels of at least 0", found=f"{low:.0f}", todo=todo))
    if array.max() < 1 << 16:
        return tuple(np.flatnonzero(np.bincount(array.astype(np.uint16).ravel())).tolist())
    return tuple(int(value) for value in np.unique(array))


def sidecar(source: Source, dimensions: int) -> str:
    """The spacing that nnU-Net reads beside a 3D TIFF, as JSON; "" where there is none."""
    image = path_of(source)
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
