"""What an offline teacher has to know of its student: its data set, preprocessed by nnU-Net, and its splits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.utilities.crossval_split import generate_crossval_split
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_file, read_json, read_splits
from nnunet_dml._folders import environment_folder, find_dataset
from nnunet_dml.nnunet import soft_maps
from nnunet_dml.nnunet.preprocess import read_labels, read_plans
from nnunet_dml.nnunet.targets import TargetLayout

FOLDS = 5  # nnU-Net's own


@dataclass(frozen=True)
class Student:
    """A data set and the configuration that a student will be trained with."""

    raw: Path
    preprocessed: Path
    plans: PlansManager
    configuration: str
    dataset_json: dict[str, Any]
    layout: TargetLayout
    stock: nnUNetBaseDataset  # nnU-Net's own preprocessed cases
    redo: str  # the command that makes them anew
    splits: list[dict[str, list[str]]]

    @classmethod
    def read(cls, dataset: str, plans_name: str, configuration: str) -> Student:
        """Read and check a data set that nnU-Net has preprocessed.

        Raises:
            InputError: A folder, the plans, the configuration, the cases or their splits are missing or bad.
        """
        raw = find_dataset(dataset, environment_folder("nnUNet_raw"))
        preprocessed = environment_folder("nnUNet_preprocessed") / raw.name
        plans_file = preprocessed / f"{plans_name}.json"
        plans = read_plans(plans_file, dataset)
        labels, _, _ = read_labels(raw / "dataset.json", plans)
        if configuration not in plans.available_configurations:
            found = ", ".join(plans.available_configurations)
            raise InputError(problem(plans_file, expected=f"a configuration {configuration}", found=found))
        redo = soft_maps.stock_command_for(raw.name, plans_name, configuration)
        stock = soft_maps.stock_dataset(
            preprocessed / plans.get_configuration(configuration).data_identifier, redo=redo
        )
        dataset_json = read_json(raw / "dataset.json")
        return cls(
            raw, preprocessed, plans, configuration, dataset_json, TargetLayout.of(labels), stock, redo,
            _splits(preprocessed, stock),
        )  # fmt: skip

    def cases(self, fold: int | str) -> tuple[list[str], list[str]]:
        """The training and the validation cases of a fold; of `all` every case, twice, as nnU-Net has it."""
        if fold == "all":
            everything = sorted(self.stock.get_identifiers(self.stock.source_folder))
            return everything, everything
        split = self.splits[int(fold)]
        return list(split["train"]), list(split["val"])

    def held_back(self, fold: int | str) -> set[str]:
        """The cases of a fold that its teacher must not have seen; none of `all`."""
        return set() if fold == "all" else set(self.cases(fold)[1])


def _splits(preprocessed: Path, stock: nnUNetBaseDataset) -> list[dict[str, list[str]]]:
    """nnU-Net's splits; drawn and written as nnU-Net's trainer does where there are none yet."""
    path = preprocessed / "splits_final.json"
    if not path.is_file():
        cases = sorted(stock.get_identifiers(stock.source_folder))
        if len(cases) < FOLDS:
            todo = "Write the splits, for instance by `nnunet-dml split`."
            expected, found = f"splits, or {FOLDS} cases to split", f"none, and {len(cases)} cases"
            raise InputError(problem(path, expected=expected, found=found, todo=todo))
        splits: list[dict[str, list[str]]] = generate_crossval_split(cases, seed=12345, n_splits=FOLDS)
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(splits, indent=4), encoding="utf-8")
        return splits
    return read_splits(path)
