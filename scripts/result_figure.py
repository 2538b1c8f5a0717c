"""The picture of README.md, from the first table of docs/results/brain-growth.md: BDice and calibration of each training.

python scripts/result_figure.py [docs/pictures/brain-growth.svg]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from _svg import Panel, picture, text

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS = DOCS / "results" / "brain-growth.md"
HERE = DOCS / "pictures" / "brain-growth.svg"
ROWS = {  # in the second table, by arm: words in the picture, colour
    "stock": ("stock nnU-Net, majority vote", "b"),
    "random": ("a rater drawn per patch", "d"),
    "ls": ("label smoothing", "d"),
    "bls": ("smoothing near boundaries", "d"),
    "staple": ("STAPLE", "d"),
    "uniform": ("soft labels, uniform", "a"),
    "weighted": ("soft labels, weighted (default)", "a"),
}


def figures() -> dict[str, tuple[float, float]]:
    """BDice and pooled ECE, per cent, of each arm as the page has them."""
    found = {}
    for line in RESULTS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip(" *`") for cell in line.strip("|").split("|")]
        if len(cells) == 8 and cells[-1] in ROWS and re.fullmatch(r"[\d.]+", cells[5]):
            found.setdefault(cells[-1], (float(cells[3]), float(cells[5])))
    return {arm: found[arm] for arm in ROWS}  # a row that the page has no more is a KeyError


def draw() -> str:
    """The SVG: a row per training, BDice as points, calibration error as bars."""
    rows = figures()
    step, upper = 30, 78
    height = step * len(rows)
    bdice = Panel(250, upper, 190, height, right=2.5, top=1)
    ece = Panel(500, upper, 190, height, right=2.2, top=1)
    parts = [
        text(24, 30, "Brain growth, 39 cases, 7 raters, five folds (per cent)", kind="title"),
        text(250, 58, "BDice, more is better", kind="quiet small"),
        text(500, 58, "pooled ECE, less is better", kind="quiet small"),
    ]
    for k, (arm, (overlap, error)) in enumerate(rows.items()):
        words, colour = ROWS[arm]
        y = upper + step * (k + 0.5)
        parts.append(text(24, y + 4, words))
        x = bdice.at(overlap - 88, 0)[0]
        parts.append(f'<path class="axis" d="M{bdice.left} {y:.1f}H{bdice.left + bdice.width}"/>')
        parts.append(f'<circle class="{colour}-fill" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>')
        parts.append(text(x, y - 8, f"{overlap:.2f}", kind="small", anchor="middle"))
        end = ece.at(error, 0)[0]
        parts.append(
            f'<rect class="{colour}-fill" x="{ece.left}" y="{y - 8:.1f}" width="{end - ece.left:.1f}" height="14"/>'
        )
        parts.append(text(end + 6, y + 4, f"{error:.2f}", kind="small"))
    said = "; ".join(f"{ROWS[arm][0]}: BDice {a:.2f}, ECE {b:.2f}" for arm, (a, b) in rows.items())
    return picture(740, upper + height + 24, f"Brain growth. {said}.", parts)


if __name__ == "__main__":
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    output.write_text(draw(), encoding="utf-8")
