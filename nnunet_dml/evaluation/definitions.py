"""What every figure is, in words; written into each summary."""

from nnunet_dml.evaluation.measuring import KERNEL_VOXELS
from nnunet_dml.metrics.empty_cases import BOTH_EMPTY
from nnunet_dml.metrics.raters import LEVELS
from nnunet_dml.metrics.zones import RADIUS

DEFINITIONS = {
    "hard prediction": "the class with the largest probability, on ties the lowest; regions: by regions_class_order at 0.5",
    "soft reference": "the raters' uniform mean, the case's map in softlabelsTr, or labelsTr: see raters.soft_reference",
    "soft_…": "the same figure against the soft reference instead of labelsTr",
    "dice": "hard prediction against labelsTr",
    "iou": "hard prediction against labelsTr",
    "soft_dice": "2 sum min(p, y) / (sum p + sum y) against the soft reference",
    "bdice": "probabilities against the soft reference, mean Dice of both cut at value >= threshold",
    "ece": "top label, all voxels, per image, against labelsTr; bins [k/n, (k+1)/n), 1 in the last",
    "ece_pooled": "the same from the voxels of all cases together",
    "mce": "the worst of these bins",
    "classwise_ece": "the same of the probabilities of one class",
    "sce": "mean of classwise_ece over the classes, background included; over the regions",
    "ace": "top label, in bins of equally many voxels",
    "kde_ece": f"top label, by kernel regression (Beta, bandwidth 0.001) on {KERNEL_VOXELS} voxels drawn alike from all",
    "foreground_ece": "ece of the voxels at most "
    f"{RADIUS} voxels (along each axis) from what prediction, labelsTr or a rater marks",
    "boundary_ece": "BECE: ece of the voxels with another label of labelsTr in their neighbourhood (--boundary)",
    "boundary_sce": "BSCE: sce of these voxels",
    "brier": "mean over voxels of the squared distance of probabilities and labels, summed over the classes",
    "nll": "mean over voxels, in nats; probabilities count as 1e-7 at least",
    "volume_bias": "(sum of probabilities - sum of the soft reference) / sum of the soft reference",
    "volume_ml": "sum of probabilities; a slice in a 2D file counts as 1 mm thick, pictures have no volume",
    "reference_ml": "sum of the soft reference",
    "volume_difference_ml": "the distance of the two",
    "crps_ml": "of volume_ml against the normal distribution of the raters' volumes",
    "rater_dice": "hard prediction against each rater, mean over the raters",
    "rater_ece": "ece against each rater, mean over the raters",
    "ged": "generalised energy distance, squared, of the raters and of the outlines at the levels "
    f"{LEVELS[0]:g}, {LEVELS[1]:g}, … {LEVELS[-1]:g} of the probabilities",
    "surface_dice": "share of both surfaces within --tolerance of the other",
    "hd95_mm": "95th percentile of the surface distances",
    "regions": "each region is a case of two classes; figures without a class are pooled over the regions",
    "fine_grained": "of all voxels per class (per_dataset), mean over images, mean over classes",
    "mean": "over the cases in which the value is defined, then over the foreground classes",
    "empty masks": f"Dice of two is {BOTH_EMPTY:g}; volume bias against an empty reference is undefined",
}
