"""A model of three folds to calibrate."""

import pytest

from tests.cli.calibration_world import World


@pytest.fixture
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    return tmp_path


@pytest.fixture
def world(environment):
    return World(environment)
