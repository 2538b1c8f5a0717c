"""The figure of docs/explanation/dice-on-soft-labels.md: what the classical soft Dice loss asks for, and what it should.

python scripts/dice_figure.py [docs/pictures/dice.svg]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from _svg import Panel, picture, text

from nnunet_dml.losses import dice_semimetric_loss, soft_dice_loss

HERE = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "dice.svg"
LABEL = 0.5  # of every voxel in the first panel
LEVELS = 101


def losses_at_half() -> tuple[list[float], list[float], list[float]]:
    """Predictions x, one for all voxels, and both losses where every label is one half."""
    xs = torch.linspace(0, 1, LEVELS, dtype=torch.float64)
    label = torch.full((1, 1, 64), LABEL, dtype=torch.float64)
    values = [
        [float(loss(label.new_full(label.shape, float(x)), label, smooth=0)) if x > 0 else 1.0 for x in xs]
        for loss in (soft_dice_loss, dice_semimetric_loss)
    ]
    return xs.tolist(), values[0], values[1]


def best_predictions() -> tuple[list[float], list[float], float, float]:
    """What makes each loss least on an image whose labels are spread evenly from 0 to 1.

    The soft Dice loss is a ratio of functions that are linear in each voxel, so its best prediction is 0 or 1 everywhere, 1 from
    some label on: all such predictions are tried. The Dice semimetric loss is 0 at the label and nowhere else.

    Returns:
        The labels; the best predictions for the soft Dice loss; its value there; its value at the label itself.
    """
    y = torch.linspace(0, 1, LEVELS, dtype=torch.float64)
    label = y[None, None]
    tried = [(y >= level).double()[None, None] for level in y]
    values = torch.stack([soft_dice_loss(it, label, smooth=0) for it in tried])
    best = tried[int(values.argmin())]
    assert float(dice_semimetric_loss(label, label)) == 0
    return (
        y.tolist(),
        best.flatten().tolist(),
        float(values.min()),
        float(soft_dice_loss(label, label, smooth=0)),
    )


def draw() -> str:
    """The SVG."""
    xs, classical, semimetric = losses_at_half()
    left = Panel(60, 70, 270, 200, top=1.0)
    parts = left.frame(
        "Every rater is half sure: label 0.5", "prediction", "loss", (0, 0.25, 0.5, 0.75, 1), (0, 0.5, 1)
    )
    parts += [left.line(xs, classical, "b", dashed=True), left.line(xs, semimetric, "a")]
    parts += [left.dot(1, min(classical), "b"), left.dot(LABEL, min(semimetric), "a")]
    parts.append(text(322, 186, "least at 1", kind="small", anchor="end"))
    parts.append(text(222, 258, "least at 0.5", kind="small"))

    ys, best, least, at_label = best_predictions()
    right = Panel(420, 70, 270, 200, top=1.0)
    parts += right.frame(
        "Labels from 0 to 1 in one image", "label", "best prediction", (0, 0.25, 0.5, 0.75, 1), (0, 0.5, 1)
    )
    parts += [right.line(ys, best, "b", dashed=True), right.line(ys, ys, "a")]
    parts.append(text(532, 88, "all or nothing", kind="small"))
    parts.append('<path class="line b" stroke-dasharray="6 4" d="M60 340h34"/>')
    parts.append(
        text(102, 344, f"soft Dice loss: {least:.2f} at its best, {at_label:.2f} at the label itself")
    )
    parts.append('<path class="line a" d="M60 364h34"/>')
    parts.append(text(102, 368, "Dice semimetric loss: 0 at the label"))
    title = (
        "Left: with label 0.5 the soft Dice loss falls until prediction 1, the Dice semimetric loss is least at 0.5. "
        "Right: the best prediction for the soft Dice loss is 0 or 1, for the Dice semimetric loss the label itself."
    )
    return picture(720, 390, title, parts)


if __name__ == "__main__":
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    output.write_text(draw(), encoding="utf-8")
