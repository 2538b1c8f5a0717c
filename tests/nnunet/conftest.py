"""What the tests of the conversion share."""

from __future__ import annotations

import matplotlib as mpl
import pytest


@pytest.fixture(autouse=True)
def few_pixels(monkeypatch):
    """nnU-Net's trainings draw 16 million each epoch."""
    monkeypatch.setitem(mpl.rcParams, "savefig.dpi", 10)


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """An empty folder that `nnUNet_raw` names; the other two variables are unset."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("nnUNet_raw", str(folder))
    return folder
