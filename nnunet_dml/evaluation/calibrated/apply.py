"""Calibrate files of probabilities: any predictions of a model, or its own validation cases, cross-fitted."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import atomic_file, clear_leftovers
from nnunet_dml._parallel import each
from nnunet_dml.calibration import Calibrator
from nnunet_dml.evaluation import predictions
from nnunet_dml.evaluation.calibrated import store
from nnunet_dml.evaluation.calibrated.outputs import check, claim, describe_folder, state, up_to_date
from nnunet_dml.evaluation.dataset import RawDataset, label_set
from nnunet_dml.evaluation.predictions import Prediction, read_probabilities


@dataclass(frozen=True)
class Applied:
    """What was done."""

    made: int
    skipped: int
    """Cases that were there already."""
    methods: dict[str, str]
    """By group; the empty name is the final calibrator."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    case: Prediction
    group: str
    """Empty for the final calibrator."""
    target: Path


def stored_calibrator(model: Path) -> tuple[store.Stored, RawDataset]:
    """The calibrator of a model, and the model's labels.

    Raises:
        InputError: None was fitted, it is damaged, or is for other labels.
    """
    labels = label_set(model)
    stored = store.read(model)
    if stored is None:
        todo = "Fit one: `nnunet-dml calibrate fit`."
        raise InputError(problem(model, expected="a calibrator", found="none", todo=todo))
    store.check_labels(stored, labels)
    return stored, labels


def apply_to_folder(model: Path, folder: Path, output: Path, *, processes: int) -> Applied:
    """Calibrate a folder of nnU-Net's `.npz` by the final calibrator.

    Args:
        model: The model's folder.
        folder: Predictions of that model, by `nnUNetv2_predict --save_probabilities`.
        output: Gets an `.npz` for each; nnU-Net's `.pkl`, dataset.json and plans.json go along, for its ensembling.
        processes: How many files are calibrated at once.

    Raises:
        InputError: No or a damaged calibrator, no or bad predictions, predictions of other labels, `output` in use, or
            the model's own validation cases: they fitted it.
    """
    stored, labels = stored_calibrator(model)
    if (folder / "dataset.json").is_file():
        store.check_labels(stored, label_set(folder))
    found = predictions.of_folder(folder)
    cases = [it for it in found.cases if it.path.suffix == ".npz"]
    if not cases:
        todo = "Predict with `nnUNetv2_predict … --save_probabilities`."
        raise InputError(problem(folder, expected="nnU-Net's .npz", found="none", todo=todo))
    record = {"calibrator": stored.digest, "source": str(folder.resolve()), "cross_fitted": False}
    method = stored.final().method
    check(output, record, inputs=folder)
    _check_not_its_own(cases, model, stored, folder)
    claim(output, record, inputs=folder)
    describe_folder(output, folder, model)
    jobs = [_Job(it, "", output / it.path.name) for it in cases]
    made = _run(jobs, model, labels, processes=processes)
    return Applied(made, len(jobs) - made, {"": method}, found.notes)


def apply_cross_fitted(model: Path, dataset_name: str, output: Path, *, processes: int) -> Applied:
    """Calibrate a model's validation cases, each by the calibrator that has not seen its fold.

    Args:
        model: The model's folder.
        dataset_name: Of its data set.
        output: Gets `fold_k/validation/<case>.npz` and the model's descriptions, as a model has them for evaluation.
        processes: How many files are calibrated at once.

    Raises:
        InputError: As `apply_to_folder`; a fold that the calibrator was not fitted with.
    """
    stored, labels = stored_calibrator(model)
    found = predictions.of_model(model, dataset_name)
    groups = stored.group_of
    folds: dict[str, list[str]] = {}
    for it in found.cases:
        if it.case not in groups:
            folds.setdefault(it.fold, []).append(it.case)
    if folds:
        expected = "cases that were there when the calibrator was fitted"
        todo = "Fit it again: `nnunet-dml calibrate fit`."
        raise InputError(
            *(
                problem(model / f"fold_{fold}", expected=expected, found=f"others: {some(cases)}", todo=todo)
                for fold, cases in folds.items()
            )
        )
    record = {"calibrator": stored.digest, "source": str(model.resolve()), "cross_fitted": True}
    methods = {
        group: stored.without(group).method for group in dict.fromkeys(groups[it.case] for it in found.cases)
    }
    claim(output, record, inputs=model)
    describe_folder(output, model)
    jobs = [
        _Job(it, groups[it.case], output / f"fold_{it.fold}" / "validation" / it.path.name)
        for it in found.cases
    ]
    for place in {it.target.parent for it in jobs}:
        place.mkdir(parents=True, exist_ok=True)
        clear_leftovers(place)
    made = _run(jobs, model, labels, processes=processes)
    return Applied(made, len(jobs) - made, methods, found.all_notes)


def _check_not_its_own(cases: Sequence[Prediction], model: Path, stored: store.Stored, folder: Path) -> None:
    """Refuse the files that the calibrator was fitted on, or copies of them: they would look better than they are."""
    fitted = stored.group_of
    own = [
        it.case
        for it in cases
        if it.case in fitted
        for fold in model.glob("fold_*")
        if (file := fold / "validation" / it.path.name).is_file()
        and filecmp.cmp(file, it.path, shallow=False)
    ]
    if own:
        expected = "predictions of cases that the calibrator was not fitted with"
        todo = "Measure these with --cross-fitted."
        raise InputError(problem(folder, expected=expected, found=f"its own: {some(own)}", todo=todo))


def _run(jobs: Sequence[_Job], model: Path, labels: RawDataset, *, processes: int) -> int:
    """Calibrate what is not there yet; how many that were."""
    todo = [it for it in jobs if not up_to_date(it.target, it.case.path)]
    work = partial(_calibrate_file, model=model, labels=labels)
    threads = partial(torch.set_num_threads, 1)
    each(work, todo, processes=processes, title="Calibrating", initializer=threads)
    return len(todo)


def _calibrate_file(job: _Job, *, model: Path, labels: RawDataset) -> None:
    calibrator = _calibrator(model, job.group)
    source = state(job.case.path)
    probs = read_probabilities(job.case.path, num_classes=labels.channels, regions=bool(labels.regions))
    properties = job.case.path.with_suffix(".pkl")
    if properties.is_file():  # first: a case whose .npz is there is done
        with atomic_file(job.target.with_suffix(".pkl")) as temporary:
            shutil.copyfile(properties, temporary)
    with atomic_file(job.target) as temporary:
        np.savez_compressed(temporary, probabilities=calibrated(calibrator, probs))
        with ZipFile(temporary, "a") as archive:
            archive.comment = source


def calibrated(calibrator: Calibrator, probs: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """The probabilities `(C, z, y, x)` of a case, calibrated, float32 and within [0, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(probs))[None].clamp(0, 1)
    return calibrator.calibrate(tensor)[0].float().numpy()


@lru_cache(maxsize=2)
def _calibrator(model: Path, group: str) -> Calibrator:
    """Read once in each process."""
    stored = store.read(model)
    assert stored is not None
    return stored.without(group) if group else stored.final()
