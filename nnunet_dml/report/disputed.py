"""A picture of what raters dispute in a case: their contours on the image, and how many of them gave each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from nnunet_dml._checks import InputError
from nnunet_dml._files import atomic_file
from nnunet_dml._images import Grid, misfits, read
from nnunet_dml._parallel import each
from nnunet_dml.evaluation.rater_masks import CaseMasks, Classes, RaterCase, read_case

MOST_CLASSES = 4  # rows of a picture
MARGIN = 0.15  # of the structure's size, around it

Array = npt.NDArray[Any]


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
    axis = 0 if flat else int(np.argmax(spacing))
    across = spacing if flat else tuple(np.delete(spacing, axis))
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
            across[0] / across[1],
            axis > 0,
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
    colours = _colours(len(raters))
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
    window = []
    for axis in (0, 1):
        marked = np.flatnonzero(panel.masks.any(axis=(0, 2 - axis)))
        size = marked[-1] + 1 - marked[0]
        margin = max(3, int(MARGIN * size))
        window.append(slice(max(0, marked[0] - margin), marked[-1] + 1 + margin))
    y, x = window
    panel.masks, panel.voted = panel.masks[:, y, x], panel.voted[:, y, x]
    panel.image = None if panel.image is None else panel.image[y, x]
    return panel


def _ratio(panel: Panel) -> float:
    height, width = panel.masks.shape[1:]
    return float(height * panel.aspect / width)


def _colours(count: int) -> list[Any]:
    """Colours that are told apart on grey, one per rater."""
    if count <= 10:
        return list(mpl.colormaps["tab10"](range(count)))
    return list(mpl.colormaps["gist_rainbow"](np.linspace(0, 1, count)))


def _show_contours(axes: Axes, panel: Panel, colours: Sequence[Any]) -> None:
    image = np.full(panel.masks.shape[1:], 0.9) if panel.image is None else panel.image
    if image.ndim == 3:
        _show(axes, panel, image)
    else:
        values = np.nan_to_num(image.astype(np.float64))
        low, high = (0, 1) if panel.image is None else np.percentile(values, (1, 99))
        _show(axes, panel, values, cmap="gray", vmin=low, vmax=max(high, low + 1e-9))
    axes.set_title(panel.title)
    # thick below, thin above: lines that run together stay visible
    widths = np.linspace(3.0, 1.2, len(colours))
    for mask, colour, width in zip(panel.masks, colours, widths, strict=True):
        if mask.any():
            padded = np.pad(mask.astype(np.float64), 1)  # closes contours at the border
            y, x = (np.arange(-1, size + 1) for size in mask.shape)
            axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=width)


def _show_share(figure: Figure, axes: Axes, panel: Panel) -> None:
    count, voted = panel.masks.sum(axis=0), panel.voted.sum(axis=0)
    share = np.ma.masked_where(voted == 0, count / np.maximum(voted, 1))
    shown = _show(axes, panel, share, cmap="viridis", vmin=0, vmax=1)
    axes.set_title("share of the raters")
    raters = len(panel.masks)
    bar = figure.colorbar(shown, ax=axes, ticks=np.arange(raters + 1) / raters, shrink=0.9)
    bar.ax.set_yticklabels([f"{k}/{raters}" for k in range(raters + 1)])


def _show(axes: Axes, panel: Panel, array: Array, **options: Any) -> AxesImage:
    height, width = panel.masks.shape[1:]
    axes.set_axis_off()
    shown = axes.imshow(
        array,
        origin="lower" if panel.upright else "upper",
        aspect=panel.aspect,
        interpolation="nearest",
        **options,
    )
    bottom, top = (-0.5, height - 0.5) if panel.upright else (height - 0.5, -0.5)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(bottom, top), autoscale_on=False)
    return shown
