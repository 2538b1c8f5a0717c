"""A teacher: a trained nnU-Net model, frozen, whose probabilities a student learns from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, autocast, nn

from nnunet_dml._checks import InputError, problem
from nnunet_dml._folders import folder_if_there
from nnunet_dml.nnunet.checkpoints import load_checkpoint

OFFLINE = "Use the offline teacher (`nnunet-dml teach`), which does not need that."
CONFIGURATION = "{configuration}"
_WRAPPERS = ("module.", "_orig_mod.")  # what DDP and torch.compile put before the names of weights


class Teacher(nn.Module):
    """Frozen networks whose averaged probabilities are the teacher's.

    It stays in evaluation mode whatever `train` is called with, and its weights ask for no gradient.
    """

    def __init__(self, networks: Sequence[nn.Module], *, independent: bool) -> None:
        """Freeze networks.

        Args:
            networks: Each with one output, logits (B, C, *spatial) of images (B, channels, *spatial).
            independent: Whether the channels are regions (sigmoid) or classes (softmax).
        """
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.independent = independent
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The mean of the networks' probabilities, (B, C, *spatial), float32, without a gradient.

        Args:
            images: (B, channels, *spatial), on the device of the networks.
        """
        total: Tensor | None = None
        for network in self.networks:
            with autocast(images.device.type) if images.device.type == "cuda" else dummy_context():
                logits = network(images)
            logits = logits.float()  # sigmoid would stay in half precision
            probs = logits.sigmoid() if self.independent else logits.softmax(1)
            total = probs if total is None else total + probs
        assert total is not None
        return total if len(self.networks) == 1 else total / len(self.networks)


@dataclass(frozen=True)
class TeacherFold:
    """A fold of a teacher, read but not yet built."""

    path: Path
    """Its checkpoint."""
    content: Mapping[str, Any]
    """What the checkpoint holds; the weights stay on disk until they are used."""

    @property
    def fold(self) -> str:
        """`0`, `1`, …, `all`."""
        return self.path.parent.name.removeprefix("fold_")

    @property
    def name(self) -> str:
        """Its configuration, such as `2d`."""
        return str(self.content["init_args"]["configuration"])

    @property
    def plans(self) -> PlansManager:
        """The plans that it was trained with."""
        return PlansManager(self.content["init_args"]["plans"])

    @property
    def configuration(self) -> ConfigurationManager:
        """The configuration that it was trained with."""
        return self.plans.get_configuration(self.name)

    @property
    def dataset_json(self) -> dict[str, Any]:
        """The data set that it was trained on."""
        return self.content["init_args"]["dataset_json"]


def locate(model: str, configuration: str = CONFIGURATION) -> Path:
    """The folder of a teacher; it need not exist.

    Args:
        model: Absolute or from nnUNet_results on, as `teacher.model` in plans.
        configuration: The student's, for `{configuration}` in it.
    """
    return (folder_if_there("nnUNet_results") or Path()) / model.replace(CONFIGURATION, configuration)


def meant(model: str) -> list[Path]:
    """The folders that a teacher's name may mean, of any configuration; those that exist."""
    folder = locate(model)
    return sorted(folder.parent.glob(folder.name.replace(CONFIGURATION, "*")))


def find(model: str, dataset: str) -> str:
    """A teacher that a user names, as it is written into plans.

    Args:
        model: Its folder's name in nnUNet_results/<dataset>, or a path: from nnUNet_results on, from here on, absolute.
            `{configuration}` in the name stands for the student's.
        dataset: Name of the student's data set.

    Raises:
        InputError: There is no such folder.
    """
    results = folder_if_there("nnUNet_results")
    places = [Path(model)] if results is None else [results / dataset / model, results / model, Path(model)]
    for folder in places:
        if meant(str(folder.absolute())):
            return portable(folder)
    known = (
        [] if results is None else sorted(it.parent.name for it in (results / dataset).glob("*/plans.json"))
    )
    expected = f"a model's folder, or the name of one of {dataset}"
    todo = f"There are: {', '.join(known)}." if known else ""
    raise InputError(problem(f"--teacher {model}", expected=expected, found="none", todo=todo))


def portable(folder: Path) -> str:
    """How a folder is written into plans: from nnUNet_results on where it lies in it, so that both can move."""
    results, folder = folder_if_there("nnUNet_results"), folder.resolve()
    if results is not None and folder.is_relative_to(results.resolve()):
        return folder.relative_to(results.resolve()).as_posix()
    return folder.as_posix()


def trained_folds(folder: Path, checkpoint: str) -> list[str]:
    """The folds of a model that have a checkpoint.

    Raises:
        InputError: The folder is missing, or no fold has it.
    """
    todo = "Give the folder TRAINER__PLANS__CONFIGURATION of a trained model as teacher.model."
    if not folder.is_dir():
        raise InputError(problem(folder, expected="a teacher's folder", found="none", todo=todo))
    names = {path.parent.name for path in folder.glob(f"fold_*/{checkpoint}")}
    folds = sorted(match[1] for name in names if (match := re.fullmatch(r"fold_(\d+|all)", name)))
    if not folds:
        others = ", ".join(sorted({path.name for path in folder.glob("fold_*/*.pth")}))
        found = f"only {others}" if others else "none"
        todo = "Finish its training, or set teacher.checkpoint." if others else todo
        raise InputError(problem(folder, expected=f"a fold with {checkpoint}", found=found, todo=todo))
    return folds


def read_folds(folder: Path, folds: Sequence[int | str], checkpoint: str) -> list[TeacherFold]:
    """Read the checkpoints of a teacher.

    Args:
        folder: The model's.
        folds: Those that are asked for.
        checkpoint: Its name in each fold.

    Raises:
        InputError: The folder, a fold or a checkpoint is missing or damaged; all of them together.
    """
    there, read, problems = trained_folds(folder, checkpoint), [], []
    for fold in folds:
        path = folder / f"fold_{fold}" / checkpoint
        if str(fold) not in there:
            todo = "Train that fold of the teacher, or choose others with teacher.folds."
            found = f"folds {', '.join(there)}"
            problems.append(problem(path, expected="this fold of the teacher", found=found, todo=todo))
            continue
        try:
            read.append(
                TeacherFold(path, load_checkpoint(path, todo="Train that fold of the teacher again."))
            )
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return read


def build(folds: Sequence[TeacherFold], device: torch.device, *, compiled: bool = False) -> Teacher:
    """Build a teacher from its own plans; the class that trained it is not needed.

    Args:
        folds: Those that are averaged; at least one.
        device: Where it computes.
        compiled: Whether its networks go through `torch.compile`.

    Raises:
        InputError: A checkpoint has another network than the one that nnU-Net builds from its plans.
    """
    networks = [_network(it).to(device) for it in folds]
    for network in networks if compiled else ():
        network.compile()
    independent = folds[0].plans.get_label_manager(folds[0].dataset_json).has_regions
    return Teacher(networks, independent=independent)


def _network(fold: TeacherFold) -> nn.Module:
    """A fold's network with its weights."""
    plans, configuration, described = fold.plans, fold.configuration, fold.dataset_json
    try:
        network = get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            determine_num_input_channels(plans, configuration, described),
            plans.get_label_manager(described).num_segmentation_heads,
            allow_init=False,
            deep_supervision=False,
        )
        network.load_state_dict({_plain(key): it for key, it in fold.content["network_weights"].items()})
    except (RuntimeError, TypeError) as error:  # weights that do not fit; a class that nnU-Net cannot call
        expected = "the weights of the network that nnU-Net builds from the teacher's plans"
        found = f"others, of {fold.content['trainer_name']} ({' '.join(str(error).split())[:120]} …)"
        raise InputError(problem(fold.path, expected=expected, found=found, todo=OFFLINE)) from None
    return network


def _plain(key: str) -> str:
    """The name of a weight without what wrappers put before it."""
    while key.startswith(_WRAPPERS):
        key = key.removeprefix("module.").removeprefix("_orig_mod.")
    return key
