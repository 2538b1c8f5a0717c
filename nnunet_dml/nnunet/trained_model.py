"""A trained model's results folder, read and checked: what stands in it fits together and nnU-Net can predict with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import read_json
from nnunet_dml.nnunet import trainers
from nnunet_dml.nnunet.checkpoints import FINAL, load_checkpoint

_READ_AT_PREDICTION = ("labels", "regions_class_order", "channel_names", "modality", "file_ending")
_LEAVE_OUT = "leave the fold out (-f)."


@dataclass(frozen=True)
class TrainedModel:
    """A results folder with which nnU-Net can predict."""

    folder: Path
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    trainer: type[nnUNetTrainer]
    configuration: str
    checkpoints: dict[Path, dict[str, Any]]
    """By file; the weights stay on disk until they are written."""


def read_model(folder: Path, folds: Sequence[str] | None, checkpoint: str) -> TrainedModel:
    """Read and check a results folder.

    Args:
        folder: With plans.json, dataset.json and fold_0, fold_1, …
        folds: `0`, `1`, …, `all`; None takes all numbered ones, or fold_all where there are none.
        checkpoint: Name of the checkpoint in each fold.

    Raises:
        InputError: Something is missing or damaged, was not trained as the rest, or has a network that is not
            nnU-Net's. What is wrong with several folds is reported together.
    """
    if not folder.is_dir():
        raise InputError(problem(folder, expected="a trained model's folder", found="none"))
    todo = "Give the folder TRAINER__PLANS__CONFIGURATION of a trained model."
    plans, dataset_json = (read_json(folder / f"{name}.json", todo=todo) for name in ("plans", "dataset"))
    loaded: dict[Path, dict[str, Any]] = {}
    problems: list[str] = []
    for path in _find_checkpoints(folder, folds, checkpoint):
        try:
            loaded[path] = load_checkpoint(
                path, todo=f"Restore the file, train the fold again, or {_LEAVE_OUT}"
            )
        except InputError as error:
            problems += error.problems
    _raise_if(problems)
    first = next(iter(loaded.values()))
    name, configuration = first["trainer_name"], first["init_args"]["configuration"]
    for path, content in loaded.items():
        problems += _strangeness(path, content, (name, configuration), plans, dataset_json)
    _raise_if(problems)
    trainer = _find_trainer(name, folder)
    architecture = PlansManager(plans).get_configuration(configuration).network_arch_class_name
    if architecture.startswith("nnunet_dml."):
        wanted, there = "a network that nnU-Net has", architecture
        todo = "Whoever predicts with it needs this package, too: share it with nnUNetv2_export_model_to_zip."
        raise InputError(problem(folder, expected=wanted, found=there, todo=todo))
    expected = _network_shapes(trainer, PlansManager(plans), configuration, dataset_json)
    for path, content in loaded.items():
        found = {key: tuple(value.shape) for key, value in content["network_weights"].items()}
        wrong = _different(expected, found, {*expected, *found})
        if wrong:
            fitting = f"the weights of the network that {stock_name(trainer)} builds from plans.json"
            problems.append(problem(path, expected=fitting, found=f"others: {some(wrong, 3)}"))
    _raise_if(problems)
    return TrainedModel(folder, plans, dataset_json, trainer, configuration, loaded)


def _raise_if(problems: Sequence[str]) -> None:
    if problems:
        raise InputError(*problems)


def _find_checkpoints(folder: Path, folds: Sequence[str] | None, checkpoint: str) -> list[Path]:
    """The checkpoint of every fold asked for."""
    there = [match[1] for it in folder.iterdir() if (match := re.fullmatch(r"fold_(\d+|all)", it.name))]
    there.sort(key=lambda fold: (fold == "all", fold.zfill(9)))
    begun = [fold for fold in there if any((folder / f"fold_{fold}").glob("*.pth"))]  # not refused at once
    wanted = list(dict.fromkeys(folds or [it for it in begun if it != "all"] or begun or there))
    if not wanted:
        todo = "Train the model first."
        raise InputError(problem(folder, expected="fold_0, fold_1, …", found="no fold", todo=todo))
    paths, problems = [folder / f"fold_{fold}" / checkpoint for fold in wanted], []
    for fold, path in zip(wanted, paths, strict=True):
        others = [it.name for it in sorted(path.parent.glob("*.pth"))]
        if fold not in there:
            expected, found = f"a fold of {folder}", ", ".join(there) or "none"
            problems.append(problem(f"-f {fold}", expected=expected, found=found))
        elif checkpoint not in others:
            found, todo = ", ".join(others) or "none", f"Choose another with -chk, or {_LEAVE_OUT}"
            if checkpoint == FINAL:
                found += "; the training is not finished"
                todo = f"Finish it (nnUNetv2_train … --c), choose another with -chk, or {_LEAVE_OUT}"
            problems.append(problem(path, expected="this checkpoint", found=found, todo=todo))
    _raise_if(problems)
    return paths


def _strangeness(
    path: Path,
    content: dict[str, Any],
    first: tuple[str, str],
    plans: dict[str, Any],
    dataset_json: dict[str, Any],
) -> list[str]:
    """Why a fold does not belong to the model: prediction reads plans.json and averages the folds."""
    arguments, todo = content["init_args"], f"Train it again as the others, or {_LEAVE_OUT}"
    trained, described = arguments["plans"], arguments["dataset_json"]
    changed = [f"{key} in plans.json" for key in _different(trained, plans, {*trained, *plans})]
    changed += [f"{key} in dataset.json" for key in _different(described, dataset_json, _READ_AT_PREDICTION)]
    problems = []
    found = content["trainer_name"], arguments["configuration"]
    if found != first:
        expected = f"the trainer and configuration of the first fold ({', '.join(first)})"
        problems.append(problem(path, expected=expected, found=", ".join(found), todo=todo))
    if changed:
        expected = f"a training with the plans and labels of {path.parent.parent.name}"
        problems.append(problem(path, expected=expected, found=f"another {', '.join(changed)}", todo=todo))
    return problems


def _different(a: dict[str, Any], b: dict[str, Any], keys: Iterable[str]) -> list[str]:
    """The keys whose values differ as JSON, where a tuple is a list and NaN equals itself."""
    first, second = ({key: json.dumps(it.get(key), sort_keys=True) for key in keys} for it in (a, b))
    return sorted(key for key in keys if first[key] != second[key])


def _find_trainer(name: str, folder: Path) -> type[nnUNetTrainer]:
    """The class that trained a model, if a nnU-Net without it can build its network."""
    if name in trainers.__all__:
        return getattr(trainers, name)
    try:
        found = recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        expected = "a trainer of nnU-Net or of this package, or one that nnUNet_extTrainer leads to"
        todo = "Export nnUNet_extTrainer as at training: its network has to be compared with nnU-Net's."
        raise InputError(problem(folder, expected=expected, found=name, todo=todo)) from None
    if not _is_stock(found) and (
        found.build_network_architecture is not nnUNetTrainer.build_network_architecture
    ):
        expected, there = "a trainer with nnU-Net's own network", f"{name}, which builds its own"
        todo = "Only that trainer can predict with it: share it, with nnUNetv2_export_model_to_zip."
        raise InputError(problem(folder, expected=expected, found=there, todo=todo))
    return found


def _is_stock(trainer: type[nnUNetTrainer]) -> bool:
    return trainer.__module__.startswith("nnunetv2.")


def stock_name(trainer: type[nnUNetTrainer]) -> str:
    """The trainer by which a nnU-Net without this package builds the same network."""
    return trainer.__name__ if _is_stock(trainer) else nnUNetTrainer.__name__


def _network_shapes(
    trainer: type[nnUNetTrainer], plans: PlansManager, name: str, dataset_json: dict[str, Any]
) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights that nnU-Net expects at prediction."""
    configuration = plans.get_configuration(name)
    network = trainer.build_network_architecture(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, dataset_json),
        plans.get_label_manager(dataset_json).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def previous_stage(model: TrainedModel) -> Path | None:
    """The results folder of the stage that a cascade starts from; None for other models.

    Raises:
        InputError: It is not there.
    """
    name = PlansManager(model.plans).get_configuration(model.configuration).previous_stage_name
    if name is None:
        return None
    folder = model.folder.parent / f"{model.trainer.__name__}__{model.plans['plans_name']}__{name}"
    if not folder.is_dir():
        expected = f"the model of {name}, from whose predictions {model.configuration} starts"
        todo = f"Train it, or put it beside {model.folder.name}."
        raise InputError(problem(folder, expected=expected, found="none", todo=todo))
    return folder
