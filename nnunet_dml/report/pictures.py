"""Pictures of the best, the median and the worst case: raters on the image, soft reference, prediction, error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from PIL import Image

from nnunet_dml._checks import InputError
from nnunet_dml._files import atomic_file
from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.evaluation.records import CaseRecord
from nnunet_dml.report.panels import (
    Array,
    View,
    rater_colours,
    show,
    show_contour,
    show_contours,
    show_image,
    view_across,
    widest_axis,
    window,
)
from nnunet_dml.report.theme import new_figure
from nnunet_dml.report.volumes import Volumes, read_volumes

MOST_CLASSES = 3
"""Rows of a case's pictures."""
WIDTH, TALLEST, DPI = 3.0, 4.5, 128
MAP, ERROR = "viridis", "RdBu_r"


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    description: str
    """For those who do not see it."""
    draw: Callable[[Axes], None]
    ratio: float
    """Height / width."""

    def png(self) -> bytes:
        """It as a PNG of 256 colours at most."""
        width = min(WIDTH, TALLEST / self.ratio)
        figure = new_figure(width, width * self.ratio)
        figure.set_layout_engine("none")
        self.draw(figure.add_axes((0, 0, 1, 1)))
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
        small = BytesIO()
        Image.open(buffer).convert("RGB").quantize(256).save(small, "PNG", optimize=True)
        return small.getvalue()


@dataclass(frozen=True)
class Row:
    """The pictures of a class in its most disputed slice."""

    title: str
    panels: list[Panel]


@dataclass(frozen=True)
class CasePictures:
    """A case."""

    role: str
    case: str
    dice: float
    rows: list[Row]
    raters: list[tuple[str, str]]
    """Name and colour, `#rrggbb`."""
    notes: list[str]


def chosen_cases(model: Evaluation) -> list[tuple[str, CaseRecord, float]]:
    """The best, the median and the worst case by their mean Dice over the classes.

    Ties go by the name; the median of an even number is the lower one. Fewer where there are fewer than three cases.
    """
    if "dice" not in model.measures:
        return []
    values = model.values("dice")
    ranked = sorted(
        (
            (float(np.nanmean(row)), r.case, r)
            for row, r in zip(values, model.records, strict=True)
            if not np.isnan(row).all()
        ),
        key=lambda it: (-it[0], it[1]),
    )
    if not ranked:
        return []
    places = {"Best": 0, "Median": len(ranked) // 2, "Worst": len(ranked) - 1}
    found: dict[int, str] = {}
    for role, place in places.items():
        found.setdefault(place, role)
    return [(role, ranked[place][2], ranked[place][0]) for place, role in found.items()]


def case_pictures(model: Evaluation) -> list[CasePictures]:
    """Pictures of the chosen cases; where a file is gone, a note instead."""
    found = []
    for role, record, dice in chosen_cases(model):
        try:
            volumes = read_volumes(record, model.classes)
        except InputError as error:
            found.append(CasePictures(role, record.case, dice, [], [], list(error.problems)))
            continue
        rows = rows_of(volumes, model.classes, record.spacing)
        colours = rater_colours(len(volumes.raters))
        raters = [(name, to_hex(colour)) for name, colour in zip(volumes.raters, colours, strict=True)]
        notes = volumes.notes + ([] if rows else ["Neither the raters nor the prediction marked anything."])
        found.append(CasePictures(role, record.case, dice, rows, raters, notes))
    return found


def rows_of(volumes: Volumes, classes: Sequence[str], spacing: Sequence[float]) -> list[Row]:
    """The pictures of the classes with the most disputed or wrong voxels, those first.

    A class's slice is the one with the most voxels in which raters differ or the prediction is not the reference; of
    equals, the one where most is marked. Slices are taken across the widest voxel spacing.
    """
    flat = volumes.reference.shape[1] == 1
    own = list(spacing)[-2:] if flat else list(spacing)
    axis, view = (0 if flat else widest_axis(own)), view_across(own)
    found = []
    for c, name in enumerate(classes):
        soft = volumes.soft[c]
        doubtful = ((soft > 0) & (soft < 1)) | (volumes.prediction[c] != volumes.reference[c])
        marked = (soft > 0) | volumes.prediction[c] | volumes.reference[c]
        if not marked.any():
            continue
        others = tuple({0, 1, 2} - {axis})
        number = int(np.lexsort((marked.sum(axis=others), doubtful.sum(axis=others)))[-1])
        title = name if flat else f"{name}, slice {'zyx'[axis]} = {number}"
        found.append((int(doubtful.sum()), Row(title, _panels(volumes, c, axis, number, view))))
    found.sort(key=lambda pair: -pair[0])
    return [row for _, row in found[:MOST_CLASSES]]


def _panels(volumes: Volumes, c: int, axis: int, number: int, view: View) -> list[Panel]:
    """The four pictures of a class in a slice."""

    def cut(array: Array) -> Array:
        return np.take(array, number, axis=axis)

    soft, probs = cut(volumes.soft[c]), cut(volumes.probs[c]).astype(np.float32)
    prediction, reference = cut(volumes.prediction[c]), cut(volumes.reference[c])
    masks = [cut(mask[c]) for mask in volumes.raters.values()] or [reference]
    y, x = window(np.any([*masks, prediction, reference], axis=0))
    image = None if volumes.image is None else cut(volumes.image)[y, x]
    soft, probs, prediction = soft[y, x], probs[y, x], prediction[y, x]
    masks = [mask[y, x] for mask in masks]
    ratio = soft.shape[0] * view.aspect / soft.shape[1]
    raters = len(volumes.raters)
    who = f"the contours of {raters} raters" if raters else "the contour of the label"
    where = "image" if image is not None else "grey area, as there is no image,"
    colours = rater_colours(len(masks))
    return [
        Panel(
            "Image and raters" if raters else "Image and label",
            f"The {where} with {who}",
            partial(_draw_contours, image=image, masks=masks, colours=colours, view=view),
            ratio,
        ),
        Panel(
            "Soft reference",
            "Share of the raters per voxel, 0 to 1",
            partial(_draw_map, values=soft, view=view),
            ratio,
        ),
        Panel(
            "Prediction",
            "Probability per voxel, 0 to 1, with the outline of the hard prediction",
            partial(_draw_map, values=probs, view=view, outline=prediction),
            ratio,
        ),
        Panel(
            "Prediction − soft reference",
            f"The error per voxel, from {float((probs - soft).min()):+.2f} (too little) to "
            f"{float((probs - soft).max()):+.2f} (too much)",
            partial(_draw_error, error=probs - soft, view=view),
            ratio,
        ),
    ]


def _draw_contours(
    axes: Axes, *, image: Array | None, masks: Sequence[Array], colours: Sequence[object], view: View
) -> None:
    show_image(axes, image, masks[0].shape, view)
    show_contours(axes, masks, colours)


def _draw_map(axes: Axes, *, values: Array, view: View, outline: Array | None = None) -> None:
    show(axes, values, view, cmap=MAP, vmin=0, vmax=1)
    if outline is not None:
        show_contour(axes, outline, "white", width=1.4)


def _draw_error(axes: Axes, *, error: Array, view: View) -> None:
    show(axes, error, view, cmap=ERROR, vmin=-1, vmax=1)


def write_pictures(pictures: Sequence[CasePictures], folder: Path) -> list[Path]:
    """Write each case's pictures as `case-best-1.svg` and `.png`, and so on."""
    paths = []
    for it in pictures:
        for k, row in enumerate(it.rows, start=1):
            height = 3 * min(1.6, max(panel.ratio for panel in row.panels)) + 0.7
            figure = new_figure(3 * len(row.panels), height)
            figure.suptitle(f"{it.role}: {it.case}, {row.title}", parse_math=False)
            for axes, panel in zip(figure.subplots(1, len(row.panels)), row.panels, strict=True):
                panel.draw(axes)
                axes.set_title(panel.title)
            for ending in (".svg", ".png"):
                path = folder / f"case-{it.role.lower()}-{k}{ending}"
                with atomic_file(path) as temporary:
                    figure.savefig(temporary, dpi=150, facecolor="white")
                paths.append(path)
    return paths


def colour_bar(name: str) -> str:
    """A colour map as CSS: its gradient from left to right."""
    colours = mpl.colormaps[name](np.linspace(0, 1, 9))
    return f"linear-gradient(to right, {', '.join(to_hex(colour) for colour in colours)})"
