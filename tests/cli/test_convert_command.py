import json
import shlex

import numpy as np
import pytest
import yaml

from nnunet_dml.benchmark.grid import READY_MADE
from nnunet_dml.cli.main import build_parser, main
from tests.nnunet.convert_helpers import folders_source, load, save


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


def test_an_archive_its_names_and_a_window(place, capsys):
    src = place / "lits"
    save(src / "volume-0.nii", np.arange(-500, 500, 50, dtype=np.int16).reshape(1, 4, 5))
    save(src / "segmentation-0.nii", np.arange(20, dtype=np.uint8).reshape(1, 4, 5) % 3)
    words = ["--dataset", "502_LiTS", "--labels", "tumour", "--window", "-60", "140", "-np", "1"]
    assert main(["convert", "lits", str(src), *words]) == 0
    out = capsys.readouterr().out
    for line in (
        "intensities clipped to -60 … 140",
        "made background: liver",
        "labels: background 0, tumour 1 (value 2)",
    ):
        assert line in out
    assert load(place / "raw/Dataset502_LiTS/imagesTr/LiTS_000_0000.nii").min() == -60


def test_bad_files_left_out(place, capsys):
    (place / "src/raters/r1/a.nii.gz").write_bytes(b"")
    assert run(place, "--leave-out-bad", "--labels", "one=1", "two=2") == 0
    out = capsys.readouterr().out
    assert f"left out: {place}/src/raters/r1/a.nii.gz: expected" in out
    assert "cases that lack a rater: 1 (a: r1)" in out


@pytest.mark.parametrize("path", sorted(READY_MADE.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_grids_of_the_package_convert_with_options_that_exist(path):
    for name, entry in yaml.safe_load(path.read_bytes())["datasets"].items():
        words = ["convert", entry.get("kind", "raters"), "SRC", "--dataset", f"{entry['id']}_{entry['name']}"]
        args = build_parser().parse_args([*words, *shlex.split(entry["convert"])])
        assert args.labels == (["tumour"] if name.endswith("iTS") else None)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("lits", ("volume-N.nii", "tumour (2)")),
        ("kits", ("segmentations/kidney_instance-1_annotation-1.nii.gz", "--masks")),
        ("lidc", ("LIDC-IDRI-0001", "--database", "--min-readers")),
    ],
)
def test_help_of_the_archives(capsys, kind, words):
    with pytest.raises(SystemExit):
        main(["convert", kind, "--help"])
    out = capsys.readouterr().out
    for word in (*words, "--window LOW HIGH", "--repair-headers", "--leave-out-bad"):
        assert word in out


def test_help_names_the_layouts(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["convert", "raters", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for word in ("auto", "qubiq", "folders", "curvas", "chase", "flat", "{rater}", "1e-6"):
        assert word in out
