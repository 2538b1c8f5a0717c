"""From the sums of a case to its figures. `DEFINITIONS` says what each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nnunet_dml.calibration import kernel_calibration_error
from nnunet_dml.evaluation.counting import BOTH, Counts, Voxels
from nnunet_dml.evaluation.layout import Layout
from nnunet_dml.evaluation.options import Options
from nnunet_dml.metrics import (
    adaptive_error_from_counts,
    bdice_from_counts,
    brier_from_counts,
    crps_from_volumes,
    dice_from_counts,
    ece_from_counts,
    ged_from_counts,
    hausdorff_distance_95,
    iou_from_counts,
    mce_from_counts,
    nll_from_counts,
    surface_dice,
    volume_bias_from_counts,
)
from nnunet_dml.metrics.empty_cases import overlap_ratio
from nnunet_dml.metrics.overlap import thresholds_both_empty
from nnunet_dml.metrics.raters import LEVELS

PER_CLASS = (
    "dice",
    "bdice",
    "volume_bias",
    "iou",
    "soft_dice",
    "classwise_ece",
    "soft_classwise_ece",
    "volume_ml",
    "reference_ml",
    "volume_difference_ml",
    "crps_ml",
    "rater_dice",
    "ged",
    "surface_dice",
    "hd95_mm",
)
"""In the order of the columns of `cases.csv`."""
CALIBRATION = (
    "ece",
    "mce",
    "sce",
    "ace",
    "brier",
    "nll",
    "kde_ece",
    "foreground_ece",
    "boundary_ece",
    "boundary_sce",
)
OVERALL = (*CALIBRATION, *(f"soft_{name}" for name in CALIBRATION), "rater_ece")

BANDWIDTH = 1e-3
"""Of the kernel calibration error; what the teachers' calibration starts from, too."""


def overall(counts: Counts, sample: Voxels) -> dict[str, float]:
    """The figures without a class, names as in `OVERALL`."""
    bins = counts.options.bins
    values: dict[str, Any] = {}
    soft = counts.soft_of(sample)
    hard = _distributions(counts.layout, sample)
    for prefix in BOTH:
        values |= {
            f"{prefix}ece": ece_from_counts(counts[f"{prefix}reliability"]),
            f"{prefix}mce": mce_from_counts(counts[f"{prefix}reliability"]),
            f"{prefix}sce": ece_from_counts(counts[f"{prefix}classwise"]).mean(),
            f"{prefix}ace": adaptive_error_from_counts(counts[f"{prefix}adaptive"], bins=bins),
            f"{prefix}brier": brier_from_counts(counts[f"{prefix}brier"]),
            f"{prefix}nll": nll_from_counts(counts[f"{prefix}nll"]),
            f"{prefix}foreground_ece": ece_from_counts(counts[f"{prefix}reliability_foreground"]),
            f"{prefix}boundary_ece": ece_from_counts(counts[f"{prefix}reliability_boundary"]),
            f"{prefix}boundary_sce": ece_from_counts(counts[f"{prefix}classwise_boundary"]).mean(),
        }
        if prefix and soft is None:
            values["soft_kde_ece"] = values["kde_ece"]
            continue
        probs = counts.layout.probs(sample.probs)
        truth = hard if not prefix or soft is None else soft
        rows = (it.movedim(1, -1).reshape(-1, it.shape[1]) for it in (probs, truth))
        values[f"{prefix}kde_ece"] = kernel_calibration_error(*rows, bandwidth=BANDWIDTH, kind="top_label")
    if counts.raters:
        values["rater_ece"] = torch.nanmean(ece_from_counts(counts["rater_reliability"]))
    return {name: float(values[name]) for name in OVERALL if name in values}


def per_class(counts: Counts, *, voxel_ml: float) -> dict[str, dict[str, float]]:
    """The figures of each foreground class or region, names as in `PER_CLASS` but for the surfaces."""
    number = len(counts.layout.foreground)
    overlap, soft = counts["overlap"][:, -number:], counts["soft_overlap"][:, -number:]
    columns: dict[str, Any] = {
        "dice": dice_from_counts(overlap),
        "bdice": bdice_from_counts(counts["bdice"]),
        "volume_bias": volume_bias_from_counts(soft),
        "iou": iou_from_counts(overlap),
        "soft_dice": dice_from_counts(soft),
        "classwise_ece": ece_from_counts(counts["classwise"])[-number:],
        "soft_classwise_ece": ece_from_counts(counts["soft_classwise"])[-number:],
        "volume_ml": voxel_ml * soft[1],
        "reference_ml": voxel_ml * soft[2],
        "volume_difference_ml": voxel_ml * (soft[1] - soft[2]).abs(),
    }
    if counts.raters:
        pairs = counts["pairs"]
        sizes = pairs.diagonal(dim1=1, dim2=2)[:, len(LEVELS) :].T  # (R, K)
        columns |= {
            "crps_ml": voxel_ml * crps_from_volumes(counts["voted_volume"].numpy(), sizes.numpy()),
            "rater_dice": rater_dice(counts).nanmean(0),
            "ged": ged_from_counts(pairs, samples=len(LEVELS)),
        }
    return {
        name: {key: float(column[k]) for key, column in columns.items()}
        for k, name in enumerate(counts.layout.foreground)
    }


def rater_dice(counts: Counts) -> torch.Tensor:
    """`(R, K)`: Dice against each rater; NaN for one who abstained everywhere."""
    values = dice_from_counts(counts["rater_overlap"])
    nowhere = counts["rater_reliability"][:, 0].sum(-1) == 0
    return values.masked_fill(nowhere[:, None], torch.nan)


def surfaces(
    segmentation: np.ndarray,
    labels: np.ndarray,
    layout: Layout,
    options: Options,
    *,
    spacing: Sequence[float],
    ignore: int | None,
) -> dict[str, dict[str, float]]:
    """Surface Dice and HD95 of each foreground class or region, from the whole case.

    Where voxels are ignored neither side has anything.
    """
    found = {}
    for k, name in enumerate(layout.foreground):
        pair = [layout.inside[k][it] for it in (segmentation, labels)]
        if ignore is not None:
            pair = [it & (labels != ignore) for it in pair]
        found[name] = {
            "surface_dice": surface_dice(*pair, spacing=spacing, tolerance=options.tolerance),
            "hd95_mm": hausdorff_distance_95(*pair, spacing=spacing),
        }
    return found


def kept_sums(counts: Counts) -> dict[str, Any]:
    """What a record keeps of the sums: what can be added up over cases, or is drawn."""
    names = ["overlap", "soft_overlap", "brier", "nll"]
    for prefix in BOTH:
        names += [f"{prefix}{it}" for it in ("reliability", "reliability_foreground", "reliability_boundary")]
        names.append(f"{prefix}classwise")
    names += ["soft_brier", "soft_nll"]
    both, predicted, wanted = counts["bdice"]
    return {
        **{name: counts[name].tolist() for name in names},
        "bdice_by_threshold": overlap_ratio(2 * both, predicted + wanted).T.tolist(),
    }


def flags(counts: Counts, raters: Sequence[str]) -> dict[str, Any]:
    """What the summary counts, and the figures of each rater."""
    number = len(counts.layout.foreground)
    _, predicted, wanted = counts["overlap"][:, -number:]
    found = {
        "raters": len(raters),
        "soft_reference": counts.kind,
        "reference_empty": (wanted == 0).tolist(),
        "prediction_empty": (predicted == 0).tolist(),
        "raters_empty": not bool(counts["soft_overlap"][2, -number:].any()),
        "bdice_thresholds_both_empty": thresholds_both_empty(counts["bdice"]).tolist(),
    }
    if raters:
        dice, ece = rater_dice(counts), ece_from_counts(counts["rater_reliability"])
        found["rater_dice"] = dict(zip(raters, dice.tolist(), strict=True))
        found["rater_ece"] = dict(zip(raters, ece.tolist(), strict=True))
    return found


def _distributions(layout: Layout, sample: Voxels) -> torch.Tensor:
    """The labels of a sample as `(B, C, N)`."""
    labels = layout.labels(sample.labels)
    classes = 2 if layout.regions else len(sample.probs)
    return torch.stack([labels == c for c in range(classes)], 1).float()
