"""The real data sets beside the repository, from conversion to nnU-Net's own check of integrity."""

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_dml.labels import FUSIONS, fuse, majority_vote, rater_dice
from nnunet_dml.nnunet.convert import convert_raters
from tests.nnunet.convert_helpers import load
from tests.nnunet.mode_helpers import threads_for_processes

DATA = Path(__file__).parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the repository"),
]


@pytest.fixture
def raw(tmp_path, monkeypatch):
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    return tmp_path


def verify(folder):
    """nnU-Net prints its complaints about single cases and raises about the data set."""
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    with threads_for_processes():
        verify_dataset_integrity(str(folder), num_processes=2)


def test_brain_growth(raw, capfd):
    src = DATA / "qubiq" / "brain-growth"
    result = convert_raters(src, dataset="501_BrainGrowth", layout="qubiq", task=1, channel_names=["MR"])
    assert len(result.cases) == 39
    assert {len(case.raters) for case in result.cases} == {7}
    assert result.tied_voxels == [0] * 39  # seven raters, two labels
    scores = []
    for case in result.cases:
        each = np.stack([load(path) for path in sorted((src / case.name).glob("task01_seg*"))])
        strict = each.sum(axis=0) * 2 > len(each)
        np.testing.assert_array_equal(load(result.folder / "labelsTr" / f"{case.name}.nii.gz"), strict)
        written = [load(path) for path in sorted((result.folder / "ratersTr" / case.name).iterdir())]
        np.testing.assert_array_equal(written, each)
        scores.append(rater_dice(each).mean())
    assert np.mean(scores) == pytest.approx(0.9111, abs=5e-5)  # as measured before by other means
    capfd.readouterr()
    verify(result.folder)
    out = capfd.readouterr().out
    assert "verify_dataset_integrity Done" in out
    assert "Error" not in out
    assert "Warning: " not in out


def test_bubil(raw, capfd):
    result = convert_raters(DATA / "bubil", dataset="502_Bubil", layout="folders")
    assert len(result.cases) == 35
    assert {len(case.raters) for case in result.cases} == {10}
    assert "values 0 and 255 in 8-bit files read as 0 and 1" in result.summary()
    case = result.cases[0]
    each = np.stack([load(path) > 0 for path in case.raters.values()])
    votes = each.sum(axis=0)
    np.testing.assert_array_equal(load(result.folder / "labelsTr" / f"{case.name}.png"), votes > 5)
    assert result.tied_voxels[0] == (votes == 5).sum() > 0
    block = json.loads((result.folder / "dataset.json").read_text())["nnunet_dml"]
    assert block["cases"][case.name]["tied_voxels"] == result.tied_voxels[0]
    capfd.readouterr()
    verify(result.folder)
    assert "verify_dataset_integrity Done" in (out := capfd.readouterr().out)
    assert "Error" not in out


def test_lidc_nodules():
    folders = sorted(path for path in (DATA / "lidc-nodules").iterdir() if path.is_dir())
    assert len(folders) == 111
    for folder in folders:
        each = [load(path) for path in sorted(folder.glob("rater*.nii.gz"))]
        assert len(each) in (3, 4)
        assert each[0].ndim == 3
        votes = np.sum(each, axis=0)
        labels, ties = majority_vote(each)
        np.testing.assert_array_equal(labels, votes * 2 > len(each))
        assert ties == np.count_nonzero(votes * 2 == len(each))
        for method in FUSIONS:
            fused = fuse(each, method=method, num_classes=2)
            np.testing.assert_allclose(fused.sum(axis=0), 1, atol=1e-6)
            assert (fused[1][votes == 0] == 0).all()
            assert (fused[1][votes == len(each)] == 1).all()
            if method == "uniform":
                np.testing.assert_allclose(fused[1], votes / len(each), atol=1e-6)
