"""Colours and settings of the figures: drawn for light paper, and turned to the page's own colours when inlined."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnunet_dml._files import atomic_file

INK, QUIET, RULE = "#1f2a37", "#5b6775", "#ccd3da"
SERIES = ("#0b61a4", "#c2410c", "#0f766e", "#7c3aed", "#a16207", "#be185d", "#4d7c0f", "#475569")
MARKERS = "osD^vPX*"

_VARIABLES = {INK: "currentColor", QUIET: "var(--quiet)", RULE: "var(--rule)"} | {
    colour: f"var(--series-{k})" for k, colour in enumerate(SERIES, start=1)
}


@dataclass(frozen=True)
class Style:
    """How a series looks: told apart without its colour, too."""

    colour: str
    marker: str
    after: bool
    """After calibration: dashed, with hollow markers, in the colour of before."""

    @property
    def line(self) -> dict[str, object]:
        """What `Axes.plot` takes."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": (0, (4, 2)) if self.after else "-",
            "markerfacecolor": "none" if self.after else self.colour,
        }

    @property
    def points(self) -> dict[str, object]:
        """The same without a line."""
        return {**self.line, "linestyle": "none"}


def style(number: int, *, after: bool = False) -> Style:
    """The style of a model by its number."""
    return Style(SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)], after)


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib's settings while figures are made and written."""
    settings: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.labelsize": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": QUIET,
        "axes.linewidth": 0.8,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
        "lines.markersize": 4.5,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "nnunet-dml",
        "text.parse_math": False,  # a name may hold a dollar sign
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser's fonts have more letters
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; width and height in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """A figure as an SVG element of a page, with the page's colours and font.

    Args:
        figure: Drawn in the colours of this module.
        name: Unique on the page: stands before each id.
        title: What a screen reader says; it must be escaped.
    """
    buffer = StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style\b.*?</style>", "", text, flags=re.DOTALL)  # it would hold for the whole page
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\1{name}-", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", text)
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return re.sub(r"<svg\b", f'<svg role="img" aria-label="{title}"', text, count=1).strip()


def write_files(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as `name.svg` and `name.png`, on white, letters as outlines."""
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    with mpl.rc_context({"svg.fonttype": "path"}):
        for path in paths:
            with atomic_file(path) as temporary:
                metadata = _NO_METADATA if path.suffix == ".svg" else {}
                figure.savefig(temporary, dpi=200, facecolor="white", metadata=metadata)
    return paths


def png(figure: Figure, *, dpi: int = 100) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, transparent=True)
    return buffer.getvalue()


_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
