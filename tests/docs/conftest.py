"""A prepared world for the pages: the phantom as data set 501, planned, preprocessed and trained in five folds, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import run_bash
from tests.preloaded import quick_commands

VARIABLES = """
for name in raw preprocessed results; do export nnUNet_$name="$PWD/nnUNet_$name"; mkdir -p "nnUNet_$name"; done
export nnUNet_def_n_proc=1 nnUNet_n_proc_DA=0
eval "$(nnunet-dml env)"
"""
MAKE = """
python scripts/make_phantom.py phantom --cases 11 --raters 3 --size 64
mkdir IN nnUNet_raw/labelsTs
cp phantom/case11/image.nii.gz IN/new_0000.nii.gz
mv phantom/case11/task01_seg02.nii.gz nnUNet_raw/labelsTs/new.nii.gz
rm -r phantom/case11
for number in 01 02 03 04 05 06 07 08 09 10; do mv phantom/case$number phantom/patient${number}_1; done
nnunet-dml convert raters phantom --dataset 501_BrainGrowth --layout qubiq --task 1 --channel-names MR
mv nnUNet_raw/labelsTs nnUNet_raw/Dataset501_BrainGrowth
env -u nnUNet_n_proc_DA nnUNetv2_plan_and_preprocess -d 501 -c 2d -npfp 1 -np 1
python shorten.py 501 nnUNetPlans
nnunet-dml preprocess -d 501 -c 2d --fusion weighted uniform
for fold in 0 1 2 3 4; do nnUNetv2_train 501 2d $fold -tr nnUNetTrainerDML --npz -device cpu; done
nnUNetv2_predict -i IN -o FOLDER -d 501 -c 2d -tr nnUNetTrainerDML --save_probabilities -device cpu
"""
SHORTEN = """
import json, os, sys
from pathlib import Path

dataset, name = sys.argv[1:]
(path,) = Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{dataset}_*/{name}.json")
plans = json.loads(path.read_text())
for here in plans["configurations"].values():
    if "architecture" in here:
        here["batch_size"] = 2
        arguments = here["architecture"]["arch_kwargs"]
        arguments["features_per_stage"] = [4 for _ in arguments["features_per_stage"]]
plans["nnunet_dml"] = {"training": {"epochs": 1, "iterations": 2, "val_iterations": 1}}
path.write_text(json.dumps(plans))
"""


@pytest.fixture(scope="session")
def quick() -> Path:
    """The folder of commands that start at once."""
    return quick_commands()


@pytest.fixture(scope="session")
def world(tmp_path_factory, quick) -> Path:
    """The folder to copy."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "shorten.py").write_text(SHORTEN)
    run_bash(VARIABLES + MAKE, folder, quick)
    return folder
