"""Where probabilities lie: the validation cases of a trained model, or any folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import read_splits
from nnunet_dml._folders import environment_folder, find_dataset, folder_if_there
from nnunet_dml._images import PICTURES, split_ending
from nnunet_dml.evaluation.calibrated.outputs import RECORD
from nnunet_dml.evaluation.dataset import RawDataset, check_reader, check_same_labels
from nnunet_dml.evaluation.map_files import MAPS
from nnunet_dml.evaluation.probability_files import NPZ_HINT, is_fraction_image, read_probabilities

__all__ = [
    "Prediction",
    "Predictions",
    "check_labels",
    "find_model",
    "of_folder",
    "of_model",
    "read_probabilities",
]


FINAL = "checkpoint_final.pth"
"""What nnU-Net writes into a fold when its training is done."""


@dataclass(frozen=True)
class Prediction:
    """One case's file of probabilities."""

    case: str
    fold: str
    """`0` for the validation cases of `fold_0`; empty for a folder without folds."""
    path: Path


@dataclass(frozen=True)
class Predictions:
    """What is evaluated together."""

    source: Path
    cases: tuple[Prediction, ...]
    notes: tuple[str, ...]
    gaps: str = ""
    """Which folds of a model have no predictions and why, in words; empty where all have, or nobody knows."""
    chosen: frozenset[str] | None = None
    """The validation cases of the folds that were chosen; None where all were, or nobody knows."""
    unknown: bool = False
    """Whether folds were chosen and nobody knows their validation cases."""

    @property
    def all_notes(self) -> tuple[str, ...]:
        """The notes, with the gaps."""
        return (*self.notes, *([self.gaps] if self.gaps else []))


def find_model(model: str, dataset: str | None, *, option: str = "") -> Path:
    """The folder of a trained model: one that is there, or else its name below `nnUNet_results`.

    Args:
        model: The path or the name.
        dataset: Id or name of its data set; None where only a path was given.
        option: What named the model, for messages.

    Raises:
        InputError: If there is none.
    """
    if Path(model).is_dir():
        return Path(model).resolve()
    where = f"{option} {model}".strip()
    if dataset is None or len(Path(model).parts) > 1:
        found = "a file" if Path(model).exists() else "none"
        todo = "" if dataset else "Give its path, or its data set with -d."
        raise InputError(problem(where, expected="a trained model's folder", found=found, todo=todo))
    root = find_dataset(dataset, environment_folder("nnUNet_results"))
    if (root / model).is_dir():
        return root / model
    known = sorted(f.name for f in root.iterdir() if f.is_dir() and any(f.glob("fold_*")))
    todo = f"There are: {', '.join(known)}." if known else "No model of this dataset has been trained."
    raise InputError(problem(where, expected=f"a model in {root}", found="none", todo=todo))


def of_model(folder: Path, dataset_name: str, chosen: Sequence[int] = ()) -> Predictions:
    """The validation cases of a model's folds.

    Args:
        folder: The model's.
        dataset_name: Of its data set, whose splits tell what is missing.
        chosen: Only these folds, of which alone the notes speak; all where none are given.

    Raises:
        InputError: If no fold has any, a case is in two folds, or a file lies where a fold's folder should.
    """
    check_reader(folder)
    numbered = [f for f in folder.glob("fold_*") if re.fullmatch(r"fold_\d+", f.name)]
    folds = sorted(numbered, key=lambda f: int(f.name[5:]))
    if chosen:
        folds = [it for it in folds if int(it.name[5:]) in chosen]
    taken = [it for fold in folds for it in (fold, fold / "validation") if it.is_file()]
    if taken:
        todo = "Remove it or restore the folder."
        raise InputError(*(problem(it, expected="a folder", found="a file", todo=todo) for it in taken))
    if not folds:
        if chosen:
            expected = ", ".join(f"fold_{it}" for it in chosen)
            raise InputError(problem(folder, expected=expected, found="no fold", todo="Train them first."))
        if (folder / "fold_all").is_dir():
            raise InputError(
                problem(
                    folder,
                    expected="folds of a cross-validation",
                    found="fold_all only",
                    todo="It was trained on its own validation cases. Train folds 0 to 4.",
                )
            )
        raise InputError(
            problem(folder, expected="fold_0, fold_1, …", found="no fold", todo="Train the model first.")
        )
    splits, unknown = _splits(dataset_name, chosen)
    notes, lacking, cases = [], [], []
    for fold in folds:
        number = fold.name[5:]
        validation = fold / "validation"
        files = _npz_files(validation) if validation.is_dir() else []
        if not files:
            found = "none" if validation.is_dir() else "no such folder"
            lacking.append(
                problem(validation, expected="files of probabilities (.npz)", found=found, todo=NPZ_HINT)
            )
            continue
        cases += [Prediction(f.name[: -len(".npz")], number, f) for f in files]
        if splits and int(number) < len(splits):
            missing = sorted(set(splits[int(number)].get("val", [])) - {f.name[:-4] for f in files})
            if missing:
                notes.append(f"{fold.name} lacks {len(missing)} of its validation cases: {some(missing)}")
    if not cases:
        raise InputError(*lacking)
    if (folder / "fold_all").is_dir() and not chosen:
        notes.append("fold_all is left out: it was trained on its validation cases")
    if unknown:
        notes.append(f"which cases belong to the folds is not known: {unknown}")
    _check_each_once(cases)
    asked = set(chosen) or {*range(len(splits)), *(int(fold.name[5:]) for fold in folds)}
    gaps = _gaps(folder, sorted(asked - {int(it.fold) for it in cases}))
    theirs = frozenset(case for k in asked if k < len(splits) for case in splits[k].get("val", []))
    lost = bool(chosen and unknown)
    return Predictions(
        folder, tuple(cases), tuple(notes), gaps, theirs if chosen and not lost else None, unknown=lost
    )


def of_folder(folder: Path) -> Predictions:
    """All probabilities of any folder: `.npz`, and images of fractions.

    Segmentations, as nnU-Net writes them beside its `.npz`, are passed over.

    Raises:
        InputError: If there are none, a case has two, or there is only its segmentation.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "none"
        raise InputError(problem(folder, expected="a folder of predictions", found=found))
    check_reader(folder)
    files = {path.name[: -len(".npz")]: [path] for path in _npz_files(folder)}
    segmentations: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        case, ending = split_ending(path.name)
        if not ending or ending in PICTURES or path.name.startswith(".") or path.is_dir():
            continue
        fractions = is_fraction_image(path)
        if fractions or (fractions is None and case not in files):  # what is damaged is said when it is read
            files.setdefault(case, []).append(path)
        else:
            segmentations[case] = path
    if not files:
        found = f"{len(segmentations)} segmentations" if segmentations else "none"
        maps = folder / MAPS  # of `nnunet-dml predict`
        todo = "Predict with `nnUNetv2_predict … --save_probabilities`."
        raise InputError(
            problem(
                folder,
                expected="probabilities, .npz or images of fractions",
                found=found,
                todo=f"Give {maps}." if maps.is_dir() else todo,
            )
        )
    twice = [
        problem(
            f"{folder}: {case}",
            expected="one file of probabilities per case",
            found=" and ".join(it.name for it in paths),
        )
        for case, paths in sorted(files.items())
        if len(paths) > 1
    ]
    alone = [
        problem(
            path,
            expected="fractions (floating point), or their .npz beside it",
            found="a segmentation or numbers of another type",
            todo="Predict the case again with `--save_probabilities`, or move the file away.",
        )
        for case, path in segmentations.items()
        if case not in files
    ]
    if twice or alone:
        raise InputError(*twice, *alone)
    cases = tuple(Prediction(case, "", paths[0]) for case, paths in sorted(files.items()))
    return Predictions(folder.resolve(), cases, ())


def check_labels(folder: Path, dataset: RawDataset) -> None:
    """Check that predictions have the labels of the dataset, where nnU-Net's dataset.json lies with them.

    Args:
        folder: Of a model or of predictions; or the maps in the folder of predictions.
        dataset: The raw dataset.

    Raises:
        InputError: They have others.
    """
    places = [folder, *([folder.parent] if folder.name == MAPS else [])]
    if described := [it for it in places if (it / "dataset.json").is_file()]:
        check_same_labels(described[0], dataset)


def _gaps(folder: Path, folds: Sequence[int]) -> str:
    """Why folds have no predictions: `folds 1, 2 are not trained, fold 3 is not validated with --npz`."""
    lacking: dict[str, list[int]] = defaultdict(list)
    for fold in folds:
        lacking[_lack(folder, fold)].append(fold)
    return ", ".join(
        f"{'folds' if len(own) > 1 else 'fold'} {', '.join(map(str, own))} {'are' if len(own) > 1 else 'is'} {why}"
        for why, own in lacking.items()
    )


def _lack(folder: Path, fold: int) -> str:
    if (folder / RECORD).is_file():  # of `calibrate apply --cross-fitted`, not the model itself
        return "not among the calibrated ones"
    there = {path.name for path in (folder / f"fold_{fold}").glob("checkpoint_*.pth")}
    if not there:
        return "not trained"
    return "not validated with --npz" if FINAL in there else "not trained to the end"


def _npz_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.name.endswith(".npz") and not f.name.startswith("."))


def _check_each_once(cases: list[Prediction]) -> None:
    folds: dict[str, list[str]] = {}
    for prediction in cases:
        folds.setdefault(prediction.case, []).append(prediction.fold)
    twice = [
        problem(
            case,
            expected="a case in the validation of one fold",
            found=" and ".join(f"fold_{n}" for n in where),
            todo="Were the folds trained with different splits, or files left from an older run?",
        )
        for case, where in sorted(folds.items())
        if len(where) > 1
    ]
    if twice:
        raise InputError(*twice)


def _splits(dataset_name: str, chosen: Sequence[int]) -> tuple[list[dict[str, list[str]]], str]:
    """nnU-Net's splits, where they can be found: they only tell what is missing.

    Returns:
        The splits, and why they do not tell which cases belong to the folds; nothing where they do, or where there are
        none and no folds were chosen.
    """
    root = folder_if_there("nnUNet_preprocessed")
    path = None if root is None else root / dataset_name / "splits_final.json"
    if path is None or not path.is_file():
        why = f"there is no {path or 'splits_final.json, as nnUNet_preprocessed names no folder'}"
        return [], why if chosen else ""
    try:
        splits = read_splits(path)
    except InputError as error:
        return [], error.problems[0].rstrip(".")
    return splits, f"{path} has {len(splits)} folds" if max(chosen, default=0) >= len(splits) else ""
