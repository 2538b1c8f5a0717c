"""Metrics of one case, per class: arrays or tensors in, values out. Averaging over cases is a later step.

Each metric has two forms: a function of one case, which checks its values, and a pair for streams. `…_counts` takes any
block of a case (as a batch), checks shapes only and returns sums that add up over blocks, cases and ranks;
`…_from_counts` makes the value of them.

| metric | one case | counts → value |
|---|---|---|
| Dice, IoU | `dice`, `dice_per_class`, `iou_per_class` | `overlap_counts`, `mask_overlap_counts` → `dice_from_counts`, `iou_from_counts` |
| … per dataset, image, class | | `fine_grained` of the cases' counts |
| soft Dice | `soft_dice` | `soft_overlap_counts` → `dice_from_counts`, `iou_from_counts` |
| BDice | `bdice` | `bdice_counts` → `bdice_from_counts` |
| ECE, MCE | `expected_`, `maximum_calibration_error` | `reliability_counts` → `ece_from_counts`, `mce_from_counts` |
| class-wise ECE, SCE | `classwise_`, `static_calibration_error` | `classwise_counts` → `ece_from_counts`; its mean |
| adaptive ECE | `adaptive_calibration_error` | `adaptive_counts`, `adaptive_classwise_counts` → `adaptive_error_from_counts` |
| Brier, NLL | `brier_score`, `negative_log_likelihood` | `brier_counts`, `nll_counts` → `brier_from_counts`, `nll_from_counts` |
| volume | `volume_bias`, `absolute_volume_difference`, `volume_crps` | `soft_overlap_counts` → `volume_bias_from_counts`, `crps_from_volumes` |
| raters | `rater_dice`, `rater_ece`, `generalised_energy_distance` | …, `pair_counts` → `ged_from_counts` |
| surfaces | `surface_dice`, `hausdorff_distance_95` | of the whole case only |

BECE, BSCE and the foreground's ECE are the calibration errors with a mask (`at_boundary`, `near_foreground`);
regions become cases of two classes by `complements`; the kernel calibration error is in `calibration`.
"""

from nnunet_dml.metrics.adaptive import (
    adaptive_calibration_error,
    adaptive_classwise_counts,
    adaptive_counts,
    adaptive_error_bound_from_counts,
    adaptive_error_from_counts,
)
from nnunet_dml.metrics.calibration import (
    classwise_calibration_error,
    classwise_counts,
    ece_from_counts,
    expected_calibration_error,
    maximum_calibration_error,
    mce_from_counts,
    reliability_counts,
    static_calibration_error,
)
from nnunet_dml.metrics.fine_grained import FineGrained, fine_grained
from nnunet_dml.metrics.overlap import bdice, bdice_counts, bdice_from_counts, dice, dice_per_class
from nnunet_dml.metrics.raters import (
    class_masks,
    ged_from_counts,
    generalised_energy_distance,
    level_sets,
    pair_counts,
    rater_dice,
    rater_ece,
)
from nnunet_dml.metrics.scores import (
    brier_counts,
    brier_from_counts,
    brier_score,
    negative_log_likelihood,
    nll_counts,
    nll_from_counts,
)
from nnunet_dml.metrics.sets import (
    dice_from_counts,
    iou_from_counts,
    iou_per_class,
    mask_overlap_counts,
    overlap_counts,
    soft_dice,
    soft_overlap_counts,
)
from nnunet_dml.metrics.surface import hausdorff_distance_95, surface_dice
from nnunet_dml.metrics.volume import (
    absolute_volume_difference,
    crps_from_volumes,
    volume_bias,
    volume_bias_from_counts,
    volume_crps,
    voxel_millilitres,
)
from nnunet_dml.metrics.zones import at_boundary, complements, near_foreground

__all__ = [
    "FineGrained",
    "absolute_volume_difference",
    "adaptive_calibration_error",
    "adaptive_classwise_counts",
    "adaptive_counts",
    "adaptive_error_bound_from_counts",
    "adaptive_error_from_counts",
    "at_boundary",
    "bdice",
    "bdice_counts",
    "bdice_from_counts",
    "brier_counts",
    "brier_from_counts",
    "brier_score",
    "class_masks",
    "classwise_calibration_error",
    "classwise_counts",
    "complements",
    "crps_from_volumes",
    "dice",
    "dice_from_counts",
    "dice_per_class",
    "ece_from_counts",
    "expected_calibration_error",
    "fine_grained",
    "ged_from_counts",
    "generalised_energy_distance",
    "hausdorff_distance_95",
    "iou_from_counts",
    "iou_per_class",
    "level_sets",
    "mask_overlap_counts",
    "maximum_calibration_error",
    "mce_from_counts",
    "near_foreground",
    "negative_log_likelihood",
    "nll_counts",
    "nll_from_counts",
    "overlap_counts",
    "pair_counts",
    "rater_dice",
    "rater_ece",
    "reliability_counts",
    "soft_dice",
    "soft_overlap_counts",
    "static_calibration_error",
    "surface_dice",
    "volume_bias",
    "volume_bias_from_counts",
    "volume_crps",
    "voxel_millilitres",
]
