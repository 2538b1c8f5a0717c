"""Pieces of pictures of slices: a window around the marked voxels, images, contours, maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

MARGIN = 0.15  # of the structure's size, around it

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class View:
    """How a slice is shown."""

    aspect: float
    """Height of a pixel / its width."""
    upright: bool
    """Whether the rows run upwards."""


def widest_axis(spacing: Sequence[float]) -> int:
    """The axis across which slices are sharpest: that of the widest voxel spacing; 0 in 2D.

    Args:
        spacing: In the order of the array's axes.
    """
    return 0 if len(spacing) == 2 else int(np.argmax(spacing))


def view_across(spacing: Sequence[float]) -> View:
    """The view of slices across `widest_axis`."""
    if len(spacing) == 2:
        return View(spacing[0] / spacing[1], False)
    axis = widest_axis(spacing)
    across = np.delete(spacing, axis)
    return View(float(across[0] / across[1]), axis > 0)


def window(marked: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """The part of a slice around what is marked, with a margin; all of it where nothing is.

    Args:
        marked: `(y, x)`.
    """
    found = []
    for axis in (0, 1):
        places = np.flatnonzero(marked.any(axis=1 - axis))
        if not len(places):
            return slice(None), slice(None)
        size = places[-1] + 1 - places[0]
        margin = max(3, int(MARGIN * size))
        found.append(slice(max(0, int(places[0]) - margin), int(places[-1]) + 1 + margin))
    return found[0], found[1]


def rater_colours(count: int) -> list[Any]:
    """Colours that are told apart on grey, one per rater."""
    if count <= 10:
        return list(mpl.colormaps["tab10"](range(count)))
    return list(mpl.colormaps["gist_rainbow"](np.linspace(0, 1, count)))


def show(axes: Axes, array: Array, view: View, **options: Any) -> AxesImage:
    """Show a slice `(y, x)` or `(y, x, 3)`, each pixel as a block, without a frame."""
    height, width = array.shape[:2]
    axes.set_axis_off()
    shown = axes.imshow(
        array,
        origin="lower" if view.upright else "upper",
        aspect=view.aspect,
        interpolation="nearest",
        **options,
    )
    bottom, top = (-0.5, height - 0.5) if view.upright else (height - 0.5, -0.5)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(bottom, top), autoscale_on=False)
    return shown


def show_image(axes: Axes, image: Array | None, shape: tuple[int, ...], view: View) -> None:
    """Show a slice of an image, grey from its 1st to its 99th percentile; a grey area where there is none."""
    values = np.full(shape, 0.9) if image is None else image
    if values.ndim == 3:
        show(axes, values, view)
        return
    values = np.nan_to_num(values.astype(np.float64))
    low, high = (0, 1) if image is None else np.percentile(values, (1, 99))
    show(axes, values, view, cmap="gray", vmin=low, vmax=max(high, low + 1e-9))


def show_contours(axes: Axes, masks: Sequence[Array], colours: Sequence[Any]) -> None:
    """Draw masks' contours: the first one thick, the last one thin, so that lines which run together stay visible."""
    for mask, colour, width in zip(masks, colours, np.linspace(3.0, 1.2, len(masks)), strict=True):
        show_contour(axes, mask, colour, width=width)


def show_contour(axes: Axes, mask: Array, colour: Any, *, width: float) -> None:
    """Draw one mask's contour, closed at the border of the slice."""
    if mask.any():
        padded = np.pad(mask.astype(np.float64), 1)
        y, x = (np.arange(-1, size + 1) for size in mask.shape)
        axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=width)
