"""A calibrator that leaves with its model: all that predicting needs, no names of cases."""

import shutil

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.cli.main import main
from nnunet_dml.evaluation.calibrated import store
from tests.cli.calibration_world import World
from tests.nnunet.export_helpers import make_model, names


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    world = World(tmp_path)
    assert main(["calibrate", "fit", str(world.model), "--method", "temperature", "-np", "1"]) == 0
    return world


def test_it_calibrates_elsewhere_as_it_did_here(world):
    predictions = world.root / "predicted"
    predictions.mkdir()
    for case in "ab":
        shutil.copy(world.npz(case), predictions / f"new_{case}.npz")
    there = world.root / "there"
    there.mkdir()
    for name in ("dataset.json", "plans.json"):
        shutil.copy(world.model / name, there)
    for name, content in store.files_to_give_away(world.model).items():
        (there / name).parent.mkdir(exist_ok=True)
        (there / name).write_bytes(content)
    for model, out in ((world.model, "here"), (there, "elsewhere")):
        words = ["calibrate", "apply", model, "-i", predictions, "-o", world.root / out, "-np", "1"]
        assert main([str(it) for it in words]) == 0
    made = sorted(it.name for it in (world.root / "here").glob("*.npz"))
    assert made == ["new_a.npz", "new_b.npz"]
    for name in made:
        assert (world.root / "here" / name).read_bytes() == (world.root / "elsewhere" / name).read_bytes()


def test_it_names_no_case(world):
    files = store.files_to_give_away(world.model)
    assert sorted(files) == [
        "nnunet_dml_calibration/calibration.json",
        "nnunet_dml_calibration/calibrator.npz",
    ]
    text = files["nnunet_dml_calibration/calibration.json"].decode()
    assert '"groups": {}' in text
    assert "without_" not in text


def test_a_damaged_one_is_refused_and_none_is_none(world):
    (world.model / store.FOLDER / "calibrator.npz").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"calibrator\.npz: expected"):
        store.files_to_give_away(world.model)
    shutil.rmtree(world.model / store.FOLDER)
    assert store.files_to_give_away(world.model) == {}


def test_export_packs_it(world, tmp_path, capsys):
    model = make_model(tmp_path / "results")
    shutil.copytree(world.model / store.FOLDER, model / store.FOLDER)
    capsys.readouterr()
    assert main(["export", str(model), "-o", str(tmp_path / "model.zip")]) == 0
    assert "and its calibrator, which `nnunet-dml predict` applies" in capsys.readouterr().out
    base = "Dataset907_Toy/nnUNetTrainer__toy__2d/nnunet_dml_calibration"
    packed = [it for it in names(tmp_path / "model.zip") if it.startswith(base)]
    assert packed == [f"{base}/calibration.json", f"{base}/calibrator.npz"]
