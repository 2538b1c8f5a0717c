"""One case: its files, what they say of its figures, and measuring it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnunet_dml._checks import InputError, problem
from nnunet_dml.evaluation import figures
from nnunet_dml.evaluation.dataset import RawDataset
from nnunet_dml.evaluation.layout import Layout
from nnunet_dml.evaluation.measuring import BLOCK, Measurement
from nnunet_dml.evaluation.npz_files import Slabs
from nnunet_dml.evaluation.options import Options
from nnunet_dml.evaluation.predictions import Prediction
from nnunet_dml.evaluation.probability_files import open_probabilities
from nnunet_dml.evaluation.records import CaseRecord, Sources
from nnunet_dml.evaluation.references import References, read_references, reference_files
from nnunet_dml.metrics import voxel_millilitres

MEASURE = 2
"""Counts up when a figure changes its meaning, so that older records are measured again."""


def stamp(prediction: Prediction, dataset: RawDataset, options: Options) -> dict[str, Any]:
    """What a case's figures depend on: sizes and times of its files, the meaning of its labels, the options.

    Raises:
        InputError: If raters or soft maps are missing that should be there.
    """
    files = reference_files(prediction.case, dataset, options.reference)
    paths = [prediction.path, files.labels, *files.raters.values(), *([files.soft] if files.soft else [])]
    chosen = asdict(options)
    if not options.surfaces:
        del chosen["tolerance"]
    return {
        "measure": MEASURE,
        "files": {str(path.resolve()): _state(path) for path in paths},
        "classes": list(dataset.classes),
        "members": [list(it) for it in dataset.members],
        "region_order": list(dataset.regions_class_order),
        "ignore": dataset.ignore_label,
        "soft_reference": files.kind,
        "options": {**chosen, "thresholds": list(options.thresholds)},
    }


def evaluate_case(
    prediction: Prediction, dataset: RawDataset, options: Options, *, block: int = BLOCK
) -> CaseRecord:
    """Measure a case.

    The hard prediction is nnU-Net's own segmentation: the class of the greatest probability; of regions by
    `regions_class_order` at 0.5. Voxels with the ignore label in `labelsTr` are left out of everything; a
    rater who has it elsewhere abstains there.

    In memory are at one time a byte per voxel for each label map, the segmentation and the foreground of anybody, a soft
    map in `softlabelsTr` if that is the reference, and the working memory of a slab. Probabilities from
    `npz_files.LARGE` on lie meanwhile in a temporary file, as large as they are without compression; smaller ones, and
    all where the temporary folder has no room, in memory as their file has them. An image of fractions is in memory
    whole, twice while it is read.

    Args:
        prediction: The case's probabilities.
        dataset: Where its references lie.
        options: What is measured.
        block: Voxels of a slab, see `measuring.BLOCK`.

    Raises:
        InputError: If anything about the prediction, the reference or a rater is wrong; with all that was
            found.
    """
    problems: list[str] = []
    references = probs = None
    stamped: dict[str, Any] = {}
    try:
        files = reference_files(prediction.case, dataset, options.reference)
        stamped = stamp(prediction, dataset, options)
        references = read_references(files, dataset)
    except InputError as error:
        problems += error.problems
    regions = bool(dataset.regions)
    like = None if references is None else references.labels
    with ExitStack() as opened:
        try:
            probs = opened.enter_context(
                open_probabilities(prediction.path, num_classes=dataset.channels, regions=regions, like=like)
            )
        except InputError as error:
            problems += error.problems
        if references is not None and probs is not None and probs.shape[1:] != references.labels.array.shape:
            expected = f"shape {references.labels.array.shape} of {references.labels.path}"
            found = f"{probs.shape[1:]}"
            problems.append(
                problem(prediction.path, expected=expected, found=found, todo="Both as (z, y, x).")
            )
        if problems or references is None or probs is None:
            raise InputError(*problems)
        return _measured(prediction, dataset, options, references, probs, stamped, block=block)


def _measured(
    prediction: Prediction,
    dataset: RawDataset,
    options: Options,
    references: References,
    probs: Slabs,
    stamped: dict[str, Any],
    *,
    block: int,
) -> CaseRecord:
    layout, ignore = Layout(dataset), dataset.ignore_label
    measurement = Measurement(probs, references, layout, options, ignore=ignore)
    counts = measurement.count(block=block)
    if counts.unlabelled:
        expected = "the ignore label wherever no rater gave a label"
        found = f"{counts.unlabelled} voxels without it"
        raise InputError(problem(references.labels.path, expected=expected, found=found))
    labels = references.labels
    voxel_ml = voxel_millilitres(labels.spacing) if labels.has_millimetres else float("nan")
    per_class = figures.per_class(counts, voxel_ml=voxel_ml)
    if options.surfaces:
        found_surfaces = figures.surfaces(
            measurement.segmentation, labels.array, layout, options, spacing=labels.spacing, ignore=ignore
        )
        per_class = {name: {**values, **found_surfaces[name]} for name, values in per_class.items()}
    flags = figures.flags(counts, list(references.raters))
    flags["ignored_voxels"] = 0 if ignore is None else int((labels.array == ignore).sum())
    return CaseRecord(
        case=prediction.case,
        fold=prediction.fold,
        sources=_sources(prediction, dataset, options),
        spacing=labels.spacing,
        overall=figures.overall(counts, measurement.sample(prediction.case)),
        per_class=per_class,
        sums=figures.kept_sums(counts),
        flags=flags,
        stamp=stamped,
    )


def _sources(prediction: Prediction, dataset: RawDataset, options: Options) -> Sources:
    files = reference_files(prediction.case, dataset, options.reference)
    return Sources(
        prediction=str(prediction.path.resolve()),
        reference=str(files.labels.resolve()),
        soft=str(files.soft.resolve()) if files.soft else "",
        raters={name: str(path.resolve()) for name, path in files.raters.items()},
        images=[str(path.resolve()) for path in dataset.image_files(prediction.case)],
    )


def _state(path: Path) -> list[int]:
    """Size and time of a file; nothing where there is none."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]
