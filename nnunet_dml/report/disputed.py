"""A picture of what raters dispute in a case: their contours on the image, and how many of them gave each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnunet_dml._checks import InputError
from nnunet_dml._files import atomic_file
from nnunet_dml._images import Grid, misfits, read
from nnunet_dml._parallel import each
from nnunet_dml.evaluation.rater_masks import CaseMasks, Classes, RaterCase, read_case
from nnunet_dml.report.panels import (
    Array,
    View,
    rater_colours,
    show,
    show_contours,
    show_image,
    view_across,
    widest_axis,
    window,
)

MOST_CLASSES = 4  # rows of a picture


@dataclass
class Panel:
    """What one row of a picture shows: a class in its most disputed slice."""

    title: str
    image: Array | None
    """`(y, x)` or `(y, x, 3)`, or None where there is no image."""
    masks: npt.NDArray[np.bool_]
    """`(R, y, x)`."""
    voted: npt.NDArray[np.bool_]
    """`(R, y, x)`."""
    aspect: float
    """Height of a pixel / its width."""
    upright: bool
    """Whether the rows run upwards."""

    @property
    def view(self) -> View:
        """How it is shown."""
        return View(self.aspect, self.upright)


def draw_cases(cases: Sequence[RaterCase], classes: Classes, folder: Path, *, processes: int = 1) -> None:
    """Draw many cases; see `draw_case`.

    Args:
        cases: Each with two raters or more.
        classes: What the values in their masks mean.
        folder: Where to; it must exist.
        processes: How many are drawn at once.

    Raises:
        InputError: With every problem of every case.
    """
    each(partial(draw_case, classes=classes, folder=folder), cases, processes=processes, title="Drawing")


def draw_case(case: RaterCase, classes: Classes, folder: Path) -> Path | None:
    """Draw a case into `<case>.png`.

    Args:
        case: With two raters or more.
        classes: What the values in its masks mean.
        folder: Where to; it must exist.

    Returns:
        The file, or None where the raters dispute nothing.

    Raises:
        InputError: A mask or the image is missing, damaged or on another grid.
    """
    masks = read_case(case, classes)
    image = (
        None if case.image is None else read_image(case.image, next(iter(case.masks.values())), masks.grid)
    )
    panels = find_panels(masks, classes, image)
    if not panels:
        return None
    path = folder / f"{case.name}.png"
    figure = draw(case.name, list(case.masks), panels)
    with atomic_file(path) as temporary:
        figure.savefig(temporary)
    return path


def read_image(path: Path, mask: Path, grid: Grid) -> Array:
    """An image for a picture, `(z, y, x)` or `(y, x)`, RGB last.

    Raises:
        InputError: It is missing, damaged or on another grid than the masks.
    """
    try:
        image = read(path)
    except InputError as error:
        raise InputError(*(f"{line} Or ask for --pictures none." for line in error.problems)) from None
    if wrong := misfits(path, Grid.of(image), mask, grid):
        raise InputError(*wrong)
    return sitk.GetArrayFromImage(image)


def find_panels(masks: CaseMasks, classes: Classes, image: Array | None) -> list[Panel]:
    """The most disputed slice of each disputed class, the most disputed class first, `MOST_CLASSES` at most.

    Slices of a volume are taken across its widest voxel spacing, where it is sharpest.
    """
    spacing = masks.grid.spacing[::-1]
    flat = len(spacing) == 2
    axis, view = widest_axis(spacing), view_across(spacing)
    voted = np.ones(masks.labels.shape, dtype=bool) if masks.voted is None else masks.voted
    found = []
    for name, members in zip(classes.members, classes.indices, strict=True):
        given = np.isin(masks.labels, members) & voted
        disputed = given.any(axis=0) & (given < voted).any(axis=0)
        if not disputed.any():
            continue
        per_slice = disputed.sum() if flat else disputed.sum(axis=tuple({0, 1, 2} - {axis}))
        number = int(np.argmax(per_slice))
        where = (slice(None),) if flat else (slice(None),) * axis + (number,)
        title = name if flat else f"{name}, {'zyx'[axis]} = {number}"
        panel = Panel(
            title,
            None if image is None else image[where],
            np.stack([mask[where] for mask in given]),
            np.stack([mask[where] for mask in voted]),
            view.aspect,
            view.upright,
        )
        found.append((disputed.sum() / given.any(axis=0).sum(), panel))
    found.sort(key=lambda pair: -pair[0])
    return [_cropped(panel) for _, panel in found[:MOST_CLASSES]]


def draw(title: str, raters: Sequence[str], panels: Sequence[Panel]) -> Figure:
    """The figure: a row per panel, with the raters' contours and, beside it, the share of raters.

    Args:
        title: What stands above it.
        raters: Their names, for the legend.
        panels: At least one.
    """
    colours = rater_colours(len(raters))
    heights = [4.2 * min(1.6, max(0.45, _ratio(panel))) for panel in panels]
    figure = Figure(figsize=(11.5, sum(heights) + 0.75 * len(panels) + 0.3), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontweight="bold")
    axes = figure.subplots(len(panels), 2, squeeze=False, height_ratios=heights)
    for (left, right), panel in zip(axes, panels, strict=True):
        _show_contours(left, panel, colours)
        _show_share(figure, right, panel)
    handles = [Line2D([], [], color=c, linewidth=2.5, label=r) for r, c in zip(raters, colours, strict=True)]
    figure.legend(handles=handles, loc="outside right upper", title="raters", frameon=False)
    return figure


def _cropped(panel: Panel) -> Panel:
    """The panel around what any rater marked, with a margin."""
    y, x = window(np.any(panel.masks, axis=0))
    panel.masks, panel.voted = panel.masks[:, y, x], panel.voted[:, y, x]
    panel.image = None if panel.image is None else panel.image[y, x]
    return panel


def _ratio(panel: Panel) -> float:
    height, width = panel.masks.shape[1:]
    return float(height * panel.aspect / width)


def _show_contours(axes: Axes, panel: Panel, colours: Sequence[Any]) -> None:
    show_image(axes, panel.image, panel.masks.shape[1:], panel.view)
    axes.set_title(panel.title)
    show_contours(axes, list(panel.masks), colours)


def _show_share(figure: Figure, axes: Axes, panel: Panel) -> None:
    count, voted = panel.masks.sum(axis=0), panel.voted.sum(axis=0)
    share = np.ma.masked_where(voted == 0, count / np.maximum(voted, 1))
    shown = show(axes, share, panel.view, cmap="viridis", vmin=0, vmax=1)
    axes.set_title("share of the raters")
    raters = len(panel.masks)
    bar = figure.colorbar(shown, ax=axes, ticks=np.arange(raters + 1) / raters, shrink=0.9)
    bar.ax.set_yticklabels([f"{k}/{raters}" for k in range(raters + 1)])
