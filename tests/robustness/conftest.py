"""Worlds of other tests, under the names that these use."""

from __future__ import annotations

import pytest

from nnunet_dml._folders import PLUGIN
from tests.benchmark.conftest import world as benchmark_world
from tests.nnunet.layouts.conftest import src
from tests.nnunet.layouts.test_lidc import database, dicom
from tests.robustness.worlds import COMMANDS, Called, predicted
from tests.robustness.zygote import Zygote

__all__ = ["benchmark_world", "database", "dicom", "src"]


@pytest.fixture(scope="session")
def zygote():
    """Starts commands without their imports."""
    it = Zygote()
    yield it
    it.close()


@pytest.fixture
def called(request, tmp_path, monkeypatch):
    """Makes the world of a command in `tmp_path`; returns the call."""

    def make(name: str) -> Called:
        command = COMMANDS[name]
        for variable in ("raw", "preprocessed", "results"):
            if not command.own_folders:
                (tmp_path / variable).mkdir()
            monkeypatch.setenv(f"nnUNet_{variable}", str(tmp_path / variable))
        monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
        monkeypatch.setenv("nnUNet_extTrainer", str(PLUGIN))
        for fixture in command.fixtures:
            request.getfixturevalue(fixture)
        if name == "predict":
            monkeypatch.setattr("nnunet_dml.nnunet.stock_commands.nnunetv2_predict", predicted)
        command.make(tmp_path)
        monkeypatch.chdir(tmp_path)
        return Called(command, tmp_path)

    return make
