"""nnU-Net's own commands, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.inference.predict_from_raw_data import predict_entry_point, predict_entry_point_modelfolder
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunet_dml._checks import InputError, problem


def nnunetv2_train(arguments: Sequence[str]) -> None:
    """`nnUNetv2_train` with these arguments."""
    sys.argv = ["nnUNetv2_train", *arguments]
    run_training_entry()


def nnunetv2_predict(arguments: Sequence[str], *, by_folder: bool) -> None:
    """`nnUNetv2_predict` with these arguments; with `by_folder` its sister, which takes a model's folder (-m)."""
    sys.argv = ["nnUNetv2_predict_from_modelfolder" if by_folder else "nnUNetv2_predict", *arguments]
    (predict_entry_point_modelfolder if by_folder else predict_entry_point)()


def results_folder(dataset: str, trainer: str, plans: str, configuration: str) -> Path:
    """Where nnU-Net looks for a trained model.

    Raises:
        InputError: The data set is unknown, or nnUNet_results is unset.
    """
    try:
        return Path(get_output_folder(dataset, trainer, plans, configuration))
    except (RuntimeError, TypeError) as error:
        todo = "Check the id or name, and nnU-Net's variables; or give the model's folder with -m."
        found = " ".join(str(error).split())[:120]
        raise InputError(problem(f"-d {dataset}", expected="a data set", found=found, todo=todo)) from None
