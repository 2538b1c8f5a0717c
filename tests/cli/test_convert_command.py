import json

import pytest

from nnunet_dml.cli.main import main
from tests.nnunet.convert_helpers import folders_source


@pytest.fixture
def place(tmp_path, monkeypatch):
    for variable in ("nnUNet_preprocessed", "nnUNet_results", "nnUNet_def_n_proc"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    folders_source(tmp_path / "src", labels=3)
    return tmp_path


def run(place, *options):
    return main(
        [
            "convert",
            "raters",
            str(place / "src"),
            "--dataset",
            "501_Test",
            "--layout",
            "folders",
            "-np",
            "1",
            *options,
        ]
    )


def test_written(place, capsys):
    assert run(place, "--channel-names", "MR", "--labels", "edema=2", "tumour=1") == 0
    out = capsys.readouterr().out
    dataset = json.loads((place / "raw/Dataset501_Test/dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "edema": 1, "tumour": 2}
    assert dataset["channel_names"] == {"0": "MR"}
    ties = [case["tied_voxels"] for case in dataset["nnunet_dml"]["cases"].values()]
    assert sum(ties) > 0
    assert f"ties, given to the lowest label: {sum(ties)} voxels in 2 cases (a {ties[0]}, b {ties[1]})" in out
    assert "labels: background 0, edema 1 (value 2), tumour 2 (value 1)" in out
    assert f"written to {place / 'raw/Dataset501_Test'}" in out


def test_dry_run(place, capsys):
    assert run(place, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "dry run: nothing written" in out
    assert "raters per case: 3 (2 cases)" in out
    assert not (place / "raw").exists()


def test_bad_input(place, capsys):
    for name in ("a", "b"):
        (place / f"src/raters/r1/{name}.nii.gz").write_bytes(b"")
    assert run(place) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("nnunet-dml convert: ")]
    assert len(lines) == 2
    assert all("found an empty file" in line for line in lines)
    assert captured.out == ""
    assert not (place / "raw").exists()


@pytest.mark.parametrize("label", ["tumour", "=1", "tumour=x", "tumour=-1"])
def test_labels_that_are_none(place, capsys, label):
    assert run(place, "--labels", label) == 2
    assert "--labels: expected NAME=VALUE" in capsys.readouterr().err


def test_help_names_the_layouts(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["convert", "raters", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for word in ("qubiq", "folders", "flat", "{rater}", "1e-6"):
        assert word in out
