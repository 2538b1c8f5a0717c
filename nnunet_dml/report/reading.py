"""What a first reader of a report has to know: of the most important figures what they are, and what none of them shows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nnunet_dml.evaluation.bootstrap import LEVEL
from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.report.tables import measure_of

MEASURES_READ = ("dice", "iou", "bdice", "hd95_mm", "ece", "soft_ece", "ece_pooled", "volume_bias")
"""That have a line, where they are shown."""

BETTER = {"higher": "higher is better", "lower": "lower is better", "zero": "best near 0"}


@dataclass(frozen=True)
class Line:
    """One thing to know."""

    term: str
    text: str
    better: str = ""
    """Which direction is better, in words."""
    measure: str = ""
    """Whose definition says it exactly."""


def reading(model: Evaluation, shown: Collection[str], *, compared: bool) -> list[Line]:
    """The lines of "How to read this".

    Args:
        model: The evaluation that the words on references come from.
        shown: Names of the measures in the tables.
        compared: Whether the report has a table of differences.

    Returns:
        A line per measure, in the words of the table of measures, then on references, intervals, gaps and limits.
    """
    lines = []
    for name in MEASURES_READ:
        if name in shown:
            measure = measure_of(name)
            text = measure.plain or measure.definition
            lines.append(Line(measure.title, text, BETTER[measure.better], name))
    soft = model.summary.get("raters", {}).get("soft_reference") or "see the definitions"
    differences = " Whether two models differ is read in the comparison, not from intervals that overlap."
    return [
        *lines,
        Line(
            "References",
            "Dice, IoU and ECE are measured against the labels (labelsTr), the hard reference; BDice, volumes and soft figures "
            f"against the soft reference: {soft}",
        ),
        Line(
            f"{100 * LEVEL:g} % interval",
            "below a figure: where it would probably lie had other cases of the same kind been measured. Training the "
            f"model anew moves it, too; that is not in the interval.{differences * compared}",
        ),
        Line(
            "Dash, abstentions",
            "a dash is a figure that is undefined, such as the volume bias of a case without the structure; it is left out of "
            "the mean. Voxels with the ignore label, and raters who abstain by it, do not count",
        ),
        Line(
            "Not shown",
            "how the model does on other scanners, in other hospitals or with other patients; whether an error matters to a "
            "patient; which rater is right: all figures are against the raters' opinion",
        ),
    ]
