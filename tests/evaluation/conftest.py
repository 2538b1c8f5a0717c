import pytest

from tests.evaluation.evaluation_world import World


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """nnU-Net's variables point into a temporary folder."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    return tmp_path


@pytest.fixture
def eval_world(environment):
    return World(environment)
