"""One case's map on nnU-Net's own grid: read, fused in original space, taken the way nnU-Net takes its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetBaseDataset
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_dml._checks import InputError, problem
from nnunet_dml.labels.fusion import fuse
from nnunet_dml.labels.storage import quantise, save_label_maps, save_soft_map
from nnunet_dml.nnunet import soft_maps
from nnunet_dml.nnunet.rater_maps import RaterMaps
from nnunet_dml.nnunet.user_maps import read_user_map


def crop(soft: np.ndarray, properties: dict[str, Any], plans: PlansManager) -> np.ndarray:
    """Transpose fractions of shape (F, *original) as nnU-Net does, and cut them to its bounding box."""
    soft = soft.transpose([0, *(axis + 1 for axis in plans.transpose_forward)])
    box = [slice(None), *(slice(low, high) for low, high in properties["bbox_used_for_cropping"])]
    return soft[tuple(box)]


def to_grid(
    soft: np.ndarray,
    properties: dict[str, Any],
    shape: Sequence[int],
    plans: PlansManager,
    configuration: ConfigurationManager,
    *,
    exclusive: bool = True,
) -> np.ndarray:
    """Resample what `crop` has cut to nnU-Net's preprocessed grid.

    Args:
        soft: (F, *cropped) fractions of the foreground classes.
        properties: nnU-Net's properties of the case.
        shape: Spatial shape of nnU-Net's preprocessed array.
        plans: The plans.
        configuration: The configuration, whose resampling of probabilities (linear) is used.
        exclusive: Whether the classes exclude each other; regions may overlap.

    Returns:
        (F, *shape) float32 in [0, 1], if exclusive with sums of at most 1.
    """
    spacing, target = _spacings(properties, plans, configuration)
    resampled = np.asarray(
        configuration.resampling_fn_probabilities(np.ascontiguousarray(soft), shape, spacing, target)
    )
    resampled = np.clip(resampled, 0, 1).astype(np.float32)
    if not exclusive:
        return resampled
    total = resampled.sum(0, keepdims=True)
    return resampled / np.maximum(total, 1)


@dataclass(frozen=True)
class Case:
    """What one worker needs to make one map."""

    name: str
    source: str  # one of `soft_maps.SOURCES`
    files: dict[str, Path]  # what it is made of: masks by rater, or the user's own map
    consensus: Path  # in labelsTr
    out: Path
    stock: nnUNetBaseDataset  # nnU-Net's own preprocessed cases
    redo: str  # the command that makes them anew
    plans_file: Path
    configuration: str
    num_classes: int  # the background included
    ignore_label: int | None


def make(case: Case, overwrite: bool) -> str:
    """Make one map unless it is up to date. Returns 'kept' or what was wrong before."""
    blosc2.set_nthreads(1)
    plans = PlansManager(str(case.plans_file))
    shape, properties = soft_maps.stock_properties(case.stock, case.name, redo=case.redo)
    ignore = case.ignore_label is not None
    grid = soft_maps.grid_of(shape, properties)
    expected = soft_maps.made_for(case.source, case.num_classes - 1, ignore, plans.transpose_forward, grid)
    expected["sources"] = soft_maps.digests(case.files)
    reason = "overwritten" if overwrite else soft_maps.why_not_current(case.out, expected, whole=True)
    if reason is None:
        return "kept"
    configuration = plans.get_configuration(case.configuration)
    in_original_space = rater_labels if case.source == "random" else fractions
    cropped = crop(in_original_space(case, plans, properties), properties, plans)
    try:
        resample = labels_to_grid if case.source == "random" else to_grid
        maps = resample(cropped, properties, shape, plans, configuration)
    except (LookupError, RuntimeError, TypeError, ValueError) as error:  # what plans give nnU-Net's functions
        wanted, todo = f"a resampling in {case.configuration} that works", "Restore the file or plan again."
        found = soft_maps.first_line(error)
        raise InputError(problem(case.plans_file, expected=wanted, found=found, todo=todo)) from None
    if case.source == "random":
        stored, raw_share, share = maps, _differing(cropped), _differing(maps)
    else:
        stored = quantise(maps, bits=soft_maps.BITS)
        raw_share, share = _between(cropped, 1e-6, 1 - 1e-6), _between(stored, 0, soft_maps.SCALE)
    metadata = {
        **expected,
        "case": case.name,
        "fractional_raw": raw_share,
        "fractional": share,
        "voxels": stored[0].size,
    }
    blocks, chunks = comp_blosc2_params(stored.shape, tuple(configuration.patch_size), stored.dtype.itemsize)
    if case.source == "random":
        save_label_maps(case.out, stored, metadata=metadata, chunks=chunks, blocks=blocks)
    else:
        save_soft_map(case.out, maps, metadata=metadata, bits=soft_maps.BITS, chunks=chunks, blocks=blocks)
    return reason


def _rater_masks(case: Case, plans: PlansManager, properties: dict[str, Any]) -> RaterMaps:
    """The masks of a case, checked."""
    labels = case.num_classes + (case.ignore_label is not None)
    masks = RaterMaps(list(case.files.values()), plans.image_reader_writer_class(), labels)
    masks.check(_full_shape(properties, plans), case.consensus)
    return masks


def _full_shape(properties: dict[str, Any], plans: PlansManager) -> tuple[int, ...]:
    """The shape of the image in the axis order of the reader."""
    return tuple(properties["shape_before_cropping"][axis] for axis in plans.transpose_backward)


def rater_labels(case: Case, plans: PlansManager, properties: dict[str, Any]) -> np.ndarray:
    """(R, *original): every rater's labels."""
    return np.stack(list(_rater_masks(case, plans, properties)))


def fractions(case: Case, plans: PlansManager, properties: dict[str, Any]) -> np.ndarray:
    """(F, *original) fractions of the foreground classes; with an ignore label a last channel of ignored voxels."""
    if case.source == "file":
        return _users_own(case, plans, properties)
    masks = _rater_masks(case, plans, properties)
    try:
        fused = fuse(masks, method=case.source, num_classes=case.num_classes, ignore_label=case.ignore_label)
    except InputError:
        raise
    except ValueError:  # of masks that have been checked, fusion refuses only raters who abstain from STAPLE
        if case.source != "staple":
            raise
        folder = next(iter(case.files.values())).parent
        expected, found = (
            "raters who label every voxel, for staple",
            f"voxels of the ignore label {case.ignore_label}",
        )
        todo = "Use --fusion uniform or weighted, where a rater may abstain."
        raise InputError(problem(folder, expected=expected, found=found, todo=todo)) from None
    return fused[1:]


def _users_own(case: Case, plans: PlansManager, properties: dict[str, Any]) -> np.ndarray:
    reader = plans.image_reader_writer_class()
    path = case.files["file"]
    full = _full_shape(properties, plans)
    maps = read_user_map(
        path, foreground=case.num_classes - 1, shape=full, consensus=case.consensus, reader=reader
    )
    if case.ignore_label is None:
        return maps
    consensus = RaterMaps([case.consensus], reader, case.num_classes + 1)
    consensus.check(full)
    ignored = np.stack(list(consensus)) == case.ignore_label
    return np.concatenate((np.where(ignored, 0, maps), ignored.astype(np.float32)))


def labels_to_grid(
    labels: np.ndarray,
    properties: dict[str, Any],
    shape: Sequence[int],
    plans: PlansManager,
    configuration: ConfigurationManager,
) -> np.ndarray:
    """Resample each rater's labels as nnU-Net resamples the consensus."""
    spacing, target = _spacings(properties, plans, configuration)
    return np.concatenate(
        [np.asarray(configuration.resampling_fn_seg(rater[None], shape, spacing, target)) for rater in labels]
    ).astype(labels.dtype)


def _spacings(
    properties: dict[str, Any], plans: PlansManager, configuration: ConfigurationManager
) -> tuple[list[float], list[float]]:
    """The original and the target spacing, in nnU-Net's order of axes."""
    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    target = list(configuration.spacing)
    if len(target) < len(spacing):  # 2d: slices keep their distance
        target = [spacing[0], *target]
    return spacing, target


def _between(soft: np.ndarray, low: float, high: float) -> float:
    """The share of voxels where some class is between the two."""
    return float(np.any((soft > low) & (soft < high), axis=0).mean())


def _differing(labels: np.ndarray) -> float:
    """The share of voxels where raters differ."""
    return float((labels != labels[:1]).any(0).mean())
