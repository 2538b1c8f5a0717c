"""Small line and bar charts as SVG, legible on light and dark pages; the same input gives the same bytes.

Each chart brings its own background, light or dark as the reader's system is, so that it fits any page.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

COLOURS = ("a", "b", "c", "d")  # classes of the style below
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: var(--ink); }
  .title { font-weight: 600; } .quiet { fill: var(--quiet); } .small { font-size: 12px; }
  .axis { stroke: var(--rule); fill: none; } .line { fill: none; stroke-width: 2.5; }
  svg { --page: #ffffff; --ink: #1f2a37; --quiet: #5b6775; --rule: #ccd3da; --a: #0b61a4; --b: #c2410c; --c: #0f766e; --d: #7c3aed; }
  @media (prefers-color-scheme: dark) {
    svg { --page: #1e242c; --ink: #e6eaf0; --quiet: #a7b1bd; --rule: #46505c; --a: #6bb3ee; --b: #f2935c; --c: #4cc2b5; --d: #b59bf5; }
  }
""" + "\n".join(f"  .{it} {{ stroke: var(--{it}); }} .{it}-fill {{ fill: var(--{it}); }}" for it in COLOURS)  # fmt: skip


def picture(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """The file's text; `title` is what those read who do not see it."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
    page = f'<rect width="{width}" height="{height}" rx="8" style="fill: var(--page)"/>'
    lines = [head, f"<title>{escape(title)}</title>", f"<style>{STYLE}\n</style>", page, *parts, "</svg>"]
    return "\n".join(lines) + "\n"


def text(x: float, y: float, words: str, *, kind: str = "", anchor: str = "start") -> str:
    """Words whose baseline begins (or ends, or has its middle) at a point."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


class Panel:
    """A rectangle with axes; values from 0 to `right` and from `bottom` to `top`."""

    def __init__(
        self,
        left: float,
        upper: float,
        width: float,
        height: float,
        *,
        top: float,
        right: float = 1.0,
        bottom: float = 0.0,
    ) -> None:
        self.left, self.upper, self.width, self.height = left, upper, width, height
        self.top, self.right, self.bottom = top, right, bottom

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The point of a pair of values."""
        share = (y - self.bottom) / (self.top - self.bottom)
        return self.left + self.width * x / self.right, self.upper + self.height * (1 - share)

    def frame(
        self, title: str, x_label: str, y_label: str, x_ticks: Sequence[float], y_ticks: Sequence[float]
    ) -> list[str]:
        """Axes, ticks and titles."""
        low, foot = self.left, self.upper + self.height
        parts = [
            f'<path class="axis" d="M{low} {self.upper}V{foot}H{low + self.width}"/>',
            text(low, self.upper - 26, title, kind="title"),
            text(low, self.upper - 9, y_label, kind="quiet small"),
            text(low + self.width, foot + 34, x_label, kind="quiet small", anchor="end"),
        ]
        parts += [text(self.at(x, 0)[0], foot + 17, f"{x:g}", kind="small", anchor="middle") for x in x_ticks]
        parts += [text(low - 6, self.at(0, y)[1] + 4, f"{y:g}", kind="small", anchor="end") for y in y_ticks]
        return parts

    def line(self, xs: Sequence[float], ys: Sequence[float], colour: str, *, dashed: bool = False) -> str:
        """A line through points."""
        points = " ".join("{:.1f},{:.1f}".format(*self.at(x, y)) for x, y in zip(xs, ys, strict=True))
        dashes = ' stroke-dasharray="6 4"' if dashed else ""
        return f'<polyline class="line {colour}" points="{points}"{dashes}/>'

    def dot(self, x: float, y: float, colour: str) -> str:
        """A point."""
        a, b = self.at(x, y)
        return f'<circle class="{colour}-fill" cx="{a:.1f}" cy="{b:.1f}" r="5"/>'
