"""The data set of each test."""

from __future__ import annotations

import pytest

from tests.nnunet.doctor.discs import World


@pytest.fixture
def world(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    return World(tmp_path)
