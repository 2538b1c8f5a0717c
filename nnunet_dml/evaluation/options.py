"""What is measured, as far as the user may choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_dml._checks import InputError, problem
from nnunet_dml.metrics.calibration import BINS
from nnunet_dml.metrics.overlap import THRESHOLDS
from nnunet_dml.metrics.zones import NEIGHBOURHOOD

REFERENCES = ("auto", "raters", "softlabels", "labels")
TOLERANCE_MM = 1.0


@dataclass(frozen=True)
class Options:
    """The options of an evaluation. The same options and files give the same figures.

    Raises:
        InputError: If one is out of range.
    """

    bins: int = BINS
    """Of the calibration errors."""
    thresholds: Sequence[float] = THRESHOLDS
    """Of BDice."""
    neighbourhood: int = NEIGHBOURHOOD
    """k of the boundary zone."""
    reference: str = "auto"
    """What the soft reference of a case is: the raters' uniform mean, the map in `softlabelsTr`, or `labelsTr`; with
    `auto` the first of these that the case has."""
    surfaces: bool = False
    """Whether surface Dice and HD95 are measured, which takes longer than all else."""
    tolerance: float = TOLERANCE_MM
    """Of surface Dice, in mm."""

    def __post_init__(self) -> None:
        wrong = []
        if not 1 <= self.bins <= 1000:
            wrong.append(problem("--bins", expected="1 to 1000", found=str(self.bins)))
        if not self.thresholds or not all(0 < it <= 1 for it in self.thresholds):
            found = " ".join(f"{it:g}" for it in self.thresholds) or "none"
            wrong.append(problem("--thresholds", expected="levels above 0, 1 at most", found=found))
        elif list(self.thresholds) != sorted(set(self.thresholds)):
            found = " ".join(f"{it:g}" for it in self.thresholds)
            wrong.append(problem("--thresholds", expected="ascending levels", found=found))
        if self.neighbourhood < 1 or self.neighbourhood % 2 == 0:
            expected, found = "an odd number of voxels", str(self.neighbourhood)
            wrong.append(problem("--boundary", expected=expected, found=found))
        if not 0 <= self.tolerance < float("inf"):
            expected = "millimetres, at least 0"
            wrong.append(problem("--tolerance", expected=expected, found=f"{self.tolerance:g}"))
        if wrong:
            raise InputError(*wrong)
