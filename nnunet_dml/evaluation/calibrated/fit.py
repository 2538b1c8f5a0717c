"""Fit the calibrator of a trained model and the ones that know all its folds but one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_dml._checks import InputError, problem
from nnunet_dml.calibration import METHODS, Calibrator
from nnunet_dml.evaluation import predictions
from nnunet_dml.evaluation.calibrated.cases import (
    LEAST_FOLDS,
    Group,
    groups_of,
    reference_kinds,
    sample_groups,
)
from nnunet_dml.evaluation.calibrated.choice import CrossFit
from nnunet_dml.evaluation.dataset import RawDataset, check_same_labels, read_dataset

SIZE = 10_000  # voxels of each stratum and group
LEAST_VOXELS = 100
FIGURES = ("brier", "ece", "nll")


@dataclass(frozen=True)
class Fitted:
    """What `fit` found."""

    method: str
    calibrator: Calibrator
    """Fitted on all cases."""
    groups: list[Group]
    without: dict[str, Calibrator]
    """By group, fitted (and, if the method was chosen, chosen) on the cases of all others."""
    figures: dict[str, dict[str, float]]
    """Of each method that was tried, cross-fitted: `brier`, `ece`, `nll`; `none` is before calibration."""
    after: dict[str, float]
    """Of the calibrators in `without`, each on its own group."""
    reference: dict[str, int]
    """How many cases were compared with `raters`, `softlabels` or `labels`."""
    voxels: int
    rows: int
    notes: list[str]


def dataset_of(model: Path, folder: Path) -> RawDataset:
    """The raw data set of a model.

    Args:
        model: The model's folder.
        folder: The raw data set's.

    Raises:
        InputError: Its labels are not those that the model was trained on.
    """
    raw = read_dataset(folder)
    check_same_labels(model, raw)
    return raw


def fit(
    model: Path,
    dataset: RawDataset,
    *,
    method: str = "auto",
    keys: int,
    reference: str = "auto",
    size: int = SIZE,
    processes: int = 1,
) -> Fitted:
    """Fit on the out-of-fold probabilities of a model.

    Args:
        model: Its folder, with fold_k/validation/*.npz.
        dataset: Its raw data set.
        method: One of `METHODS`, or `auto`: the one with the lowest Brier score on groups that did not fit it. For what is
            applied to a group it is chosen without that group, too.
        keys: Voxels that the kernel regression keeps.
        reference: One of `options.REFERENCES`.
        size: Voxels that are sampled of each stratum and group.
        processes: How many groups are read at once.

    Raises:
        InputError: No or bad validation probabilities, no reference, too few voxels or cases.
    """
    found = predictions.of_model(model, dataset.name)
    groups, notes = groups_of(found.cases), list(found.all_notes)
    folds = len({it.fold for it in found.cases})
    if folds < LEAST_FOLDS:
        what = "1 fold" if folds == 1 else f"{folds} folds"
        notes.append(f"with {what} only, cases are left out instead of folds, in {len(groups)} groups")
    if method == "auto" and len(groups) < LEAST_FOLDS:
        expected = f"at least {LEAST_FOLDS} validation cases to choose a method"
        todo = "Give --method, or train more folds."
        raise InputError(problem(model, expected=expected, found=str(len(groups)), todo=todo))
    kinds = reference_kinds(found.cases, dataset, reference)
    read = sample_groups(groups, dataset, reference=reference, size=size, processes=processes)
    samples = {group.name: sample for group, sample in zip(groups, read, strict=True)}
    rows = sum(len(table.probs) for sample in read for table in sample.rows())
    if rows < LEAST_VOXELS:
        expected = f"at least {LEAST_VOXELS} voxels to fit on"
        raise InputError(problem(model, expected=expected, found=str(rows)))
    cross = CrossFit(samples, keys=keys)
    tried = METHODS if method == "auto" else tuple(dict.fromkeys(("none", method)))
    chosen = cross.best() if method == "auto" else method
    own = {name: cross.best(frozenset([name])) if method == "auto" else method for name in samples}
    return Fitted(
        method=chosen,
        calibrator=cross.calibrator(chosen),
        groups=groups,
        without={name: cross.calibrator(it, frozenset([name])) for name, it in own.items()},
        figures={it: cross.figures(it) for it in tried},
        after=cross.figures_of_choice(own),
        reference=kinds,
        voxels=sum(it.voxels for it in read),
        rows=rows,
        notes=notes,
    )
