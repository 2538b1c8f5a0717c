"""What the values in a record are called, which direction is better, in which unit they are printed, what they mean."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Better = Literal["higher", "lower", "zero", ""]


@dataclass(frozen=True)
class Measure:
    """One kind of value in a record."""

    name: str
    title: str
    group: str
    better: Better
    """`zero`: the nearer to it the better; empty: no side is."""
    unit: Literal["%", "ml", "mm", ""]
    """`%`: a fraction that is printed in per cent."""
    definition: str
    per_class: bool = False
    plain: str = ""
    """The same for who reads a report for the first time, without signs; empty where the definition has none."""

    def text(self, value: float) -> str:
        """A value as it is printed, without its unit; a dash where it is undefined.

        >>> MEASURES["dice"].text(0.90871), MEASURES["volume_bias"].text(0.031), MEASURES["brier"].text(0.0123)
        ('90.87', '+3.10', '0.0123')
        """
        if math.isnan(value):
            return "–"
        sign = "+" if self.better == "zero" else ""
        digits = {"%": 2, "mm": 2, "ml": 3, "": 4}[self.unit]
        return f"{100 * value if self.unit == '%' else value:{sign}.{digits}f}".replace("-", "−")

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


def _overlap(name: str, title: str, definition: str, plain: str = "") -> Measure:
    return Measure(name, title, "Overlap", "higher", "%", definition, per_class=True, plain=plain)


HARD, SOFT = "Calibration against the hard reference", "Calibration against the soft reference"


def _calibration(
    name: str, title: str, definition: str, unit: Literal["%", ""] = "%", plain: str = ""
) -> Measure:
    return Measure(name, title, HARD, "lower", unit, definition, plain=plain)


def _soft(title: str) -> str:
    """The title of the same against the soft reference; names and abbreviations keep their capitals."""
    name = title[1].isupper() or title.startswith("Brier")
    return f"Soft {title if name else title[0].lower() + title[1:]}"


_OVER_ALL = [
    _calibration(
        "ece",
        "ECE per image",
        "expected calibration error of the top label over all voxels of a case: Σ_b n_b/N · |accuracy_b − confidence_b|; "
        "bins [k/n, (k+1)/n), 1 in the last",
        plain="how far the model's confidence is from how often it is right: at 2 % it is two points off, on average over "
        "all voxels of an image, the many easy ones of the background among them",
    ),
    _calibration(
        "mce",
        "MCE",
        "maximum calibration error: the greatest |accuracy − confidence| of any bin, however few voxels it has",
    ),
    _calibration(
        "sce", "SCE", "static calibration error: class-wise, mean over the classes, background included"
    ),
    _calibration("ace", "Adaptive ECE", "ECE with bins of equally many voxels"),
    _calibration(
        "kde_ece",
        "KDE-ECE",
        "calibration error by kernel regression (kernel density estimates), without bins",
    ),
    _calibration(
        "foreground_ece",
        "ECE per image, foreground",
        "ECE of the voxels at most 5 voxels (along each axis) from what prediction, label or a rater marks",
    ),
    _calibration(
        "boundary_ece",
        "ECE per image, boundary (BECE)",
        "ECE of the voxels that have another label in their neighbourhood (3 voxels wide, `--boundary`)",
    ),
    _calibration(
        "boundary_sce", "SCE, boundary (BSCE)", "static calibration error of the boundaries' voxels"
    ),
    _calibration(
        "brier",
        "Brier score",
        "mean over voxels of Σ_c (p_c − y_c)²; times 100 in the table that `evaluate` prints",
        unit="",
    ),
    _calibration(
        "nll",
        "Negative log-likelihood",
        "mean over voxels of −Σ_c y_c ln p_c, in nats; p at least 1e-7",
        unit="",
    ),
]
_AGAINST_RATERS = _calibration(
    "rater_ece", "ECE per rater", "ECE against each rater by himself, mean over the raters"
)

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in [
        _overlap(
            "dice",
            "Dice",
            "2|P ∩ R| / (|P| + |R|) of the hard prediction (the most probable class) and the label",
            "how far the model's outline and the label's cover each other: 100 % is the same outline, 0 % is nothing in common",
        ),
        _overlap(
            "iou",
            "IoU",
            "intersection over union: |P ∩ R| / |P ∪ R| of the same two",
            "the same as a share of all that either of the two covers; it is never above Dice",
        ),
        _overlap(
            "soft_dice", "Soft Dice", "1 − Σ|p − y| / (Σp + Σy) of the probabilities and the soft reference"
        ),
        _overlap(
            "bdice",
            "BDice",
            "binarised Dice: mean over the thresholds of the Dice of probabilities and soft reference, both cut at value ≥ threshold",
            "Dice of the model's probabilities and the soft reference, level by level: it asks the model to be unsure "
            "where, and as much as, the raters are",
        ),
        _overlap("rater_dice", "Dice per rater", "Dice against each rater by himself, mean over the raters"),
        _overlap(
            "surface_dice",
            "Surface Dice",
            "share of both surfaces that lies within the tolerance of the other one",
        ),
        Measure(
            "hd95_mm",
            "HD95",
            "Overlap",
            "lower",
            "mm",
            "Hausdorff distance of the surfaces, 95th percentile",
            per_class=True,
            plain="how far the two outlines lie apart at most, the farthest 5 % of their points left aside",
        ),
        Measure(
            "ged",
            "Generalised energy distance",
            "Overlap",
            "lower",
            "",
            "D² = 2 E d(S, Y) − E d(S, S′) − E d(Y, Y′), d = 1 − IoU, S drawn from the prediction, Y from the raters",
            per_class=True,
        ),
        *_OVER_ALL,
        _AGAINST_RATERS,
        Measure(
            "classwise_ece",
            "Class-wise ECE",
            HARD,
            "lower",
            "%",
            "Σ_b n_b/N · |share of the class_b − mean probability_b|, bins by the class's probability",
            per_class=True,
        ),
        *(
            replace(
                measure,
                name=f"soft_{measure.name}",
                title=_soft(measure.title),
                group=SOFT,
                definition=f"{measure.title}, where a voxel is right to the share of raters who say so"
                if measure.name not in ("brier", "nll")
                else f"{measure.title} with y the soft reference",
                plain="",
            )
            for measure in _OVER_ALL
        ),
        Measure(
            "soft_classwise_ece",
            "Soft class-wise ECE",
            SOFT,
            "lower",
            "%",
            "the same with the share of raters who gave the class",
            per_class=True,
        ),
        Measure(
            "volume_bias",
            "Volume bias",
            "Volume",
            "zero",
            "%",
            "(Σp − Σy) / Σy: the sum of the probabilities against that of the soft reference; comparisons are of its absolute value",
            per_class=True,
            plain="by how much the model's volume is larger (+) or smaller (−) than that of the soft reference; in the mean "
            "over cases the two cancel out",
        ),
        Measure(
            "volume_difference_ml",
            "Volume difference",
            "Volume",
            "lower",
            "ml",
            "absolute difference of the two volumes",
            per_class=True,
        ),
        Measure(
            "crps_ml",
            "CRPS of the volume",
            "Volume",
            "lower",
            "ml",
            "continuous ranked probability score: ∫ (Φ((t − μ)/σ) − [t ≥ v])² dt: the predicted volume v against a normal distribution of the raters' volumes",
            per_class=True,
        ),
        Measure(
            "volume_ml",
            "Volume",
            "Volume",
            "",
            "ml",
            "sum of the probabilities; a 2D image counts as 1 mm thick, pictures (PNG, …) have no volume",
            per_class=True,
        ),
        Measure(
            "reference_ml",
            "Reference volume",
            "Volume",
            "",
            "ml",
            "sum of the soft reference",
            per_class=True,
        ),
    ]
}
"""By name, in the order of the tables."""

GROUPS = tuple(dict.fromkeys(measure.group for measure in MEASURES.values()))
"""The headings of the tables, in order."""
