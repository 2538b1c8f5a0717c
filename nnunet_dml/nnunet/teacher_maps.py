"""An offline teacher's maps in a training: behind the labels through the augmentation, and apart again in the batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import read_json
from nnunet_dml._folders import folder_if_there
from nnunet_dml.nnunet import soft_maps
from nnunet_dml.nnunet.dataset import SoftLabelDataset
from nnunet_dml.nnunet.teacher import locate

if TYPE_CHECKING:
    from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer

BITS = 16  # the small fractions that a teacher gives to unlikely classes matter to the student, too
SCALE = 32767  # the integer of 1.0 at 16 bit
_TOLD = {"model", "calibration", "checkpoint"}
RECORD = "teacher.json"  # beside the maps of a fold, written when all of them are there


def folder(preprocessed: str | Path, data_identifier: str, name: str, fold: int | str) -> Path:
    """Where the maps of one fold of the student stand."""
    return soft_maps.folder(preprocessed, data_identifier, f"teacher_{name}_fold_{fold}")


@dataclass(frozen=True)
class TeacherMaps:
    """Where the maps of a fold are, and what stands before them among the channels of a target."""

    name: str
    folder: Path
    before: int
    """Number of soft channels of the labels, which come first."""
    channels: int
    """Number of channels of a map: the foreground classes, or the regions."""
    background: bool
    """Whether the background is what is left of the channels."""

    @classmethod
    def of(cls, trainer: SoftLabelTrainer, name: str) -> TeacherMaps:
        """The maps of a trainer's fold."""
        layout, base = trainer.layout, trainer.preprocessed_dataset_folder_base
        identifier = trainer.configuration_manager.data_identifier
        background = layout.regions is None
        return cls(
            name,
            folder(base, identifier, name, trainer.fold),
            layout.soft_channels if trainer.soft else 0,
            layout.outputs - background,
            background,
        )

    @property
    def scales(self) -> list[int]:
        """The integer of 1.0 of every channel."""
        return [SCALE] * self.channels

    @property
    def digests(self) -> dict[str, Any]:
        """Of the checkpoints that the maps were made by, by fold.

        Raises:
            InputError: There is no record of them.
        """
        return dict(read_json(self.folder / RECORD).get("checkpoints") or {})

    def behind(self, datasets: Iterable[Any]) -> tuple[Any, ...]:
        """Data sets of nnU-Net with the maps behind all that they yield as labels."""
        return tuple(SoftLabelDataset(it, self.folder) for it in datasets)

    def apart(self, batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
        """A batch with the target that it has without a teacher, and `teacher`, (B, outputs, *spatial) in [0, 1]."""
        target = batch["target"].to(device, non_blocking=True)
        end = self.before + self.channels
        probs = target[:, self.before : end]
        if self.background:
            probs = torch.cat(((1 - probs.sum(1, keepdim=True)).clamp_(min=0), probs), 1)
        own = torch.cat((target[:, : self.before], target[:, end:]), 1)
        if self.background and not self.before:
            own = own.round().long()  # nnU-Net's own labels, which rode among fractions
        return {**batch, "target": own, "teacher": probs}

    def check(self, trainer: SoftLabelTrainer) -> str:
        """Make sure that there is an up-to-date map of every case, and none from a teacher that knew what is held back.

        Returns:
            Whose maps they are, in words.

        Raises:
            InputError: Maps are missing, damaged, stale, or were made for another split; with the command to run.
        """
        dataset, fold = trainer.plans_manager.dataset_name, trainer.fold
        command = (
            f"nnunet-dml teach -d {dataset} -p {trainer.plans_manager.plans_name} -c {trainer.configuration_name} "
            f"-f {fold} --name {self.name} --teacher "
        )
        todo = f"Run `{command}MODEL`."
        record = read_json(self.folder / RECORD, todo=todo)
        options, checkpoints = record.get("options"), record.get("checkpoints")
        if not isinstance(options, dict) or not isinstance(checkpoints, dict) or not options.keys() >= _TOLD:
            expected, found = "the record of an offline teacher", "something else"
            raise InputError(problem(self.folder / RECORD, expected=expected, found=found, todo=todo))
        todo = f"Run `{command}{options['model']} --calibration {options['calibration']}`."
        if old := _changed_since(record):
            expected, found = (
                "maps of the teacher as it is",
                f"ones of an earlier training of {', '.join(old)}",
            )
            raise InputError(problem(self.folder, expected=expected, found=found, todo=todo))
        training, held_back = trainer.do_split()
        if fold != "all" and not set(held_back) <= set(record.get("held_back", ())):
            unknown = sorted(set(held_back) - set(record.get("held_back", ())))
            expected = "maps of a teacher that was not trained on the validation cases of the student"
            found = f"{some(unknown)} not among those held back when they were made"
            raise InputError(problem(self.folder, expected=expected, found=found, todo=todo))
        redo = soft_maps.stock_command_for(
            dataset, trainer.plans_manager.plans_name, trainer.configuration_name
        )
        stock = soft_maps.stock_dataset(trainer.preprocessed_dataset_folder, redo=redo)
        raw = folder_if_there("nnUNet_raw")
        bad = []
        for case in sorted({*training, *held_back}):
            grid = soft_maps.grid_of(*soft_maps.stock_properties(stock, case, redo=redo))
            expected_map = made_for(self.channels, trainer.plans_manager.transpose_forward, grid)
            expected_map |= {key: record.get(key) for key in ("options", "mirroring", "checkpoints")}
            label = (
                None
                if raw is None
                else raw / dataset / "labelsTr" / f"{case}{trainer.dataset_json['file_ending']}"
            )
            if label is not None and label.is_file():
                expected_map |= soft_maps.digests({"labels": label})
            if reason := soft_maps.why_not_current(self.folder / f"{case}.b2nd", expected_map):
                bad.append(f"{case} ({reason})")
        if bad:
            expected, found = "up-to-date maps of all cases", some(bad)
            raise InputError(problem(self.folder, expected=expected, found=found, todo=todo))
        return f"the maps {self.name} of {options['model']}, calibration: {options['calibration']}"


def _changed_since(record: dict[str, Any]) -> list[str]:
    """The checkpoints that are others than when maps were made; those that have gone do not count."""
    options = record["options"]
    found = {
        fold: locate(options["model"]) / f"fold_{fold}" / options["checkpoint"]
        for fold in record["checkpoints"]
    }
    there = {fold: path for fold, path in found.items() if path.is_file()}
    now = soft_maps.digests(there)
    return [str(path) for fold, path in there.items() if now[fold] != record["checkpoints"][fold]]


def made_for(channels: int, transpose: Iterable[int], grid: dict[str, Any]) -> dict[str, Any]:
    """The metadata that a map must have to fit a student, whoever its teacher is."""
    return soft_maps.made_for("teacher", channels, False, list(transpose), grid)
