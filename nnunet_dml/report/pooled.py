"""Figures that are pooled over the voxels of all cases, from the sums in the records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nnunet_dml.evaluation.folder import Evaluation
from nnunet_dml.evaluation.measures import HARD, MEASURES, SOFT, Measure
from nnunet_dml.evaluation.records import ZONES

Floats = npt.NDArray[np.float64]

ZONE_TITLES = {"all": "all voxels", "foreground": "foreground", "boundary": "boundary"}


def reliability_name(zone: str, *, soft: bool) -> str:
    """What a zone's reliability sums are called in a record.

    >>> reliability_name("all", soft=False), reliability_name("boundary", soft=True)
    ('reliability', 'soft_reliability_boundary')
    """
    return ("soft_" if soft else "") + "reliability" + ("" if zone == "all" else f"_{zone}")


def _pooled() -> dict[str, Measure]:
    found = {}
    for soft, group in ((False, HARD), (True, SOFT)):
        for zone in ZONES:
            own = "" if zone == "all" else f"{zone}_"
            name = f"{'soft_' if soft else ''}{own}ece_pooled"
            title = f"{'Soft ECE' if soft else 'ECE'} pooled" + ("" if zone == "all" else f", {zone}")
            which = "all voxels" if zone == "all" else f"the voxels of the {zone}"
            definition = f"ECE of {which} of all cases together" + (
                ", against the soft reference" if soft else ""
            )
            plain = definition + "; too sure in one image and too unsure in another cancel out"
            found[name] = replace(
                MEASURES["ece"], name=name, title=title, group=group, definition=definition, plain=plain
            )
    return found


POOLED = _pooled()
"""The pooled ECE of each zone, by its name in an evaluation's summary."""

POOLED_SUMS = dict(
    zip(POOLED, (reliability_name(zone, soft=soft) for soft in (False, True) for zone in ZONES), strict=True)
)
"""What each of them is made from."""


def sums(model: Evaluation, name: str) -> Floats | None:
    """A sum of all cases.

    Returns:
        `(cases, …)`, or None where a case lacks it.
    """
    if not all(name in record.sums for record in model.records):
        return None
    arrays = [record.array(name) for record in model.records]
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else None


def ece_of_sums(counts: Floats) -> Floats:
    """ECE from reliability sums.

    Args:
        counts: `(…, 3, bins)`: voxels, sum of confidences, sum of accuracies.

    Returns:
        `(…)` in [0, 1]; NaN where no voxel counts.

    >>> round(float(ece_of_sums(np.array([[2.0, 1.0], [1.5, 1.0], [1.0, 1.0]]))), 4)  # (|1 − 1.5| + 0) / 3
    0.1667
    """
    number, confidence, accuracy = np.moveaxis(counts, -2, 0)
    gap, total = np.abs(accuracy - confidence).sum(-1), number.sum(-1)
    return np.divide(gap, total, out=np.full(np.shape(gap), np.nan), where=total > 0)


def curve(counts: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean confidence, accuracy and share of the voxels of each bin that has any.

    Args:
        counts: `(3, bins)`.
    """
    filled = counts[0] > 0
    number, confidence, accuracy = counts[:, filled]
    return confidence / number, accuracy / number, number / max(1.0, number.sum())
