"""A trainer of nnU-Net's on tiny data, and what a failure breaks."""

from __future__ import annotations

from contextlib import redirect_stdout
from copy import deepcopy
from io import StringIO

import numpy as np
import pytest
import torch

from tests.upstream.reading import changed, theirs
from tests.upstream.tiny import CASES, DESCRIBED, TINY


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Below a failed test of behaviour: which of our modules it breaks, which its docstring says."""
    report = yield
    if report.failed and item.module.__name__.startswith("tests.upstream.test_behaviour"):
        what = f"it does no longer what {item.name} expects"
        report.sections.append(("contract", changed("nnunetv2", what, item.function.__doc__)))
    return report


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """nnU-Net's own trainer of a tiny network, initialized, on five tiny cases."""
    base = tmp_path_factory.mktemp("upstream")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()):
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(base / name))
        patch.setenv("nnUNet_n_proc_DA", "0")
        folder = base / "preprocessed" / "Dataset001_Tiny" / "tiny_2d"
        folder.mkdir(parents=True)
        array, whole = np.zeros((1, 1, 16, 16)), {"chunks": (1, 1, 16, 16), "blocks": (1, 1, 16, 16)}
        seg_whole = {f"{name}_seg": value for name, value in whole.items()}
        for case in CASES:
            properties, truncated = {"class_locations": {1: []}}, str(folder / case)
            args = (array.astype(np.float32), array.astype(np.int8), properties, truncated)
            theirs("nnUNetDatasetBlosc2").save_case(*args, **whole, **seg_whole)
            theirs("write_pickle")(properties, f"{truncated}.pkl")
        made = theirs("nnUNetTrainer")(deepcopy(TINY), "2d", 0, DESCRIBED, torch.device("cpu"))
        made.initialize()
        yield made
