"""Cases of odd sizes, and very many of them."""

from __future__ import annotations

import json
import resource
import shutil
import time

import numpy as np
import pytest

from nnunet_dml.cli.main import main
from tests.conftest import TINY, plan_and_preprocess, set_folders, train_tiny
from tests.nnunet.convert_helpers import save

pytestmark = pytest.mark.filterwarnings("ignore")


def convert(source, *more):
    """Raters' folders into Dataset501_New."""
    arguments = ("--dataset", "501_New", "--layout", "folders", "-np", "1", *more)
    return main(["convert", "raters", str(source), *arguments])


# -- sizes


@pytest.mark.parametrize(
    ("shape", "classes"), [((1, 1), 2), ((1, 1, 1), 2), ((1, 7, 6), 3), ((2, 9, 8), 20)], ids=str
)
def test_odd_sizes(tmp_path, monkeypatch, shape, classes):
    """A case of one voxel, of one slice, of 20 classes: converted, measured against itself, all is right."""
    for variable in ("raw", "preprocessed", "results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(f"nnUNet_{variable}", str(tmp_path / variable))
    mask = (np.arange(np.prod(shape)) % classes).reshape(shape).astype(np.uint8)
    if mask.size == 1:
        mask[...] = 1
    for rater in ("r1", "r2"):
        save(tmp_path / "src/raters" / rater / "a.nii.gz", mask)
    save(tmp_path / "src/images/a.nii.gz", mask.astype(np.float32))
    labels = [f"c{number}={number}" for number in range(1, classes)]
    assert convert(tmp_path / "src", "--labels", *labels) == 0
    probs = np.stack([mask == c for c in range(classes)]).astype(np.float32)
    (tmp_path / "npz").mkdir()
    np.savez(tmp_path / "npz/a.npz", probabilities=probs[:, None] if mask.ndim == 2 else probs)
    out = tmp_path / "out"
    assert (
        main(["evaluate", "-d", "501", "--predictions", str(tmp_path / "npz"), "-o", str(out), "-np", "1"])
        == 0
    )
    summary = json.loads((out / "summary.json").read_text())
    assert summary["mean"]["dice"] == summary["mean"]["bdice"] == 1
    assert summary["mean"]["ece"] == 0
    assert len(summary["classes"]) == classes - 1


BOX = (16, 24, 20)
ODD = {"dot": (1, 1, 1), "slice": (1, 24, 20), "row": (1, 1, 24), "a": BOX, "b": BOX, "c": BOX, "d": BOX}
CLASSES = 20


@pytest.mark.slow
def test_odd_sizes_are_trained_on(tmp_path, monkeypatch):
    """One voxel, one slice, one row and 20 classes in one data set: from masks to a report, learnt from and predicted."""
    folders = set_folders(monkeypatch, tmp_path)
    rng = np.random.default_rng(0)
    names = {f"{side}_{name}": shape for side in ("train", "val") for name, shape in ODD.items()}
    for case, shape in names.items():
        image = rng.normal(size=shape).astype(np.float32)
        save(tmp_path / "src/images" / f"{case}.nii.gz", image)
        for rater in ("r1", "r2"):
            mask = rng.integers(0, CLASSES, shape).astype(np.uint8)
            save(tmp_path / "src/raters" / rater / f"{case}.nii.gz", mask)
    assert (
        convert(tmp_path / "src", "--labels", *(f"c{number}={number}" for number in range(1, CLASSES))) == 0
    )
    plan_and_preprocess("501", "3d_fullres")
    assert main(["preprocess", "-d", "501", "-c", "3d_fullres", "-np", "1"]) == 0
    splits = [{side: [it for it in names if it.startswith(side)] for side in ("train", "val")}]
    (folders.preprocessed / "Dataset501_New/splits_final.json").write_text(json.dumps(splits))
    short = [f"training.{key}={value}" for key, value in TINY["training"].items()]
    arguments = ["-o", "tiny", "-c", "3d_fullres", "--scale-features", "0.125", "--batch-size", "2", "--set"]
    assert main(["configure", "-d", "501", *arguments, *short]) == 0
    train_tiny("501", "3d_fullres")
    model = folders.results / "Dataset501_New/nnUNetTrainerDML__tiny__3d_fullres"
    out = tmp_path / "out"
    assert (
        main(["evaluate", "-d", "501", "--model", str(model), "-o", str(out), "--surfaces", "-np", "1"]) == 0
    )
    summary = json.loads((out / "summary.json").read_text())
    assert {it.stem for it in (out / "cases").iterdir()} == set(splits[0]["val"])
    assert len(summary["classes"]) == CLASSES - 1
    assert 0 <= summary["mean"]["dice"] <= 1
    assert 0 <= summary["mean"]["ece"] <= 1
    assert main(["report", str(out), "-o", str(tmp_path / "report.html"), "--resamples", "20"]) == 0


# -- ten thousand cases


def _peak() -> float:
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.slow
def test_ten_thousand_cases_are_checked(tmp_path, monkeypatch, capsys):
    """`convert --dry-run` reads 10,000 volumes and masks of 2 × 2 × 1 voxels: about a minute, 300 MiB at most."""
    (tmp_path / "raw").mkdir()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    src = tmp_path / "src"
    volume = save(src / "volume-0.nii", np.ones((1, 2, 2), np.int16)).read_bytes()
    mask = save(src / "segmentation-0.nii", np.array([[[0, 1], [2, 0]]], np.uint8)).read_bytes()
    for number in range(1, 10_000):
        (src / f"volume-{number}.nii").write_bytes(volume)
        (src / f"segmentation-{number}.nii").write_bytes(mask)
    before, began = _peak(), time.process_time()
    assert main(["convert", "lits", str(src), "--dataset", "501_New", "--dry-run", "-np", "1"]) == 0
    assert "10000 cases" in capsys.readouterr().out
    assert time.process_time() - began < 120
    assert _peak() - before < 300


@pytest.mark.slow
def test_ten_thousand_cases_are_compared(tmp_path, monkeypatch, capsys):
    """Two evaluations of 10,000 cases each: read, paired and tested within a minute and 500 MiB."""
    from tests.report.evaluation_world import write_evaluation

    for name in ("first", "second"):
        folder = write_evaluation(tmp_path / name, cases=1)
        text = (folder / "cases" / "case000.json").read_text()
        for number in range(1, 10_000):
            other = text.replace('"case": "case000"', f'"case": "case{number:05d}"', 1)
            (folder / "cases" / f"case{number:05d}.json").write_text(other)
        summary = json.loads((folder / "summary.json").read_text()) | {"cases": 10_000}
        (folder / "summary.json").write_text(json.dumps(summary))
    before, began = _peak(), time.process_time()
    arguments = [str(tmp_path / "first"), str(tmp_path / "second"), "--resamples", "100"]
    assert main(["compare", *arguments]) == 0
    assert "10000" in capsys.readouterr().out.replace(",", "").replace(" ", "")
    assert time.process_time() - began < 60
    assert _peak() - before < 500
    shutil.rmtree(tmp_path / "first")
