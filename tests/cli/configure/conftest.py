"""Plans to change."""

from __future__ import annotations

import json

import pytest

from tests.cli.configure.calls import PLANS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "Dataset501_Name"
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(PLANS))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    return folder
