"""Prediction around nnU-Net's own command, which a stand-in plays here; and once with a model that was really trained."""

import json
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_dml.cli.main import main
from nnunet_dml.evaluation import predictions
from tests.cli.calibration_world import DATASET, World
from tests.conftest import nnunet_dml, run

SPACING, ORIGIN, DIRECTION = (0.7, 1.3, 2.5), (3.0, -4.0, 5.5), (0.0, -1.0, 0, 1.0, 0.0, 0, 0, 0, 1)

CHECKPOINT = {
    "network_weights": {"w": torch.zeros(1)},
    "trainer_name": "nnUNetTrainer",
    "init_args": {"plans": {}, "configuration": "2d", "fold": 0, "dataset_json": {}},
}  # which the stand-in does not read


class Stock:
    """What nnU-Net does with images `IN/<case>_0000…`: the world's probabilities and its own segmentation."""

    def __init__(self, world):
        self.world, self.calls, self.fails_after = world, [], None

    def nnunetv2_predict(self, arguments, *, by_folder):
        self.calls.append((list(arguments), by_folder))
        out = self.world.root / arguments[arguments.index("-o") + 1]
        out.mkdir(parents=True, exist_ok=True)
        for name in ("dataset.json", "plans.json"):
            (out / name).write_bytes((self.world.model / name).read_bytes())
        done = 0
        for case in sorted(it.name.split("_")[0] for it in (self.world.root / "in").glob("*_0000*")):
            if "--continue_prediction" in arguments and (out / f"{case}.npz").is_file():
                continue
            if done == self.fails_after:
                raise KeyboardInterrupt
            probs = self.world.probs[case]
            np.savez_compressed(out / f"{case}.npz", probabilities=probs)
            (out / f"{case}.pkl").write_bytes(b"")
            write(out / f"{case}{self.world.ending}", stock_labels(self.world, case))
            done += 1

    def results_folder(self, dataset, trainer, plans, configuration):
        return self.world.root / "results" / DATASET / f"{trainer}__{plans}__{configuration}"


def stock_labels(world, case):
    probs = world.probs[case]
    if not world.regions:
        return probs.argmax(0).astype(np.uint8)
    labels = np.zeros(probs.shape[1:], np.uint8)
    labels[probs[0] > 0.5] = 2
    labels[probs[1] > 0.5] = 1
    return labels


def write(path, array):
    picture = path.suffix == ".png"
    image = sitk.GetImageFromArray(array[0] if picture else array)
    if not picture:
        image.SetSpacing(SPACING)
        image.SetOrigin(ORIGIN)
        image.SetDirection(DIRECTION)
    sitk.WriteImage(image, str(path))


def make(root, monkeypatch, **options):
    monkeypatch.setenv("nnUNet_raw", str(root / "raw"))
    monkeypatch.setenv("nnUNet_results", str(root / "results"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    world = World(root, **options)
    for case in "ab":
        (root / "in").mkdir(exist_ok=True)
        write(root / "in" / f"{case}_0000{world.ending}", np.zeros((1, 12, 10), np.uint8))
    for fold in (0, 1, 2, 3, 4, "all"):
        (world.model / f"fold_{fold}").mkdir(exist_ok=True)
        for name in ("checkpoint_final.pth", "best.pth"):
            torch.save(CHECKPOINT, world.model / f"fold_{fold}" / name)
    world.stock = Stock(world)
    monkeypatch.setitem(sys.modules, "nnunet_dml.nnunet.stock_commands", world.stock)
    monkeypatch.chdir(root)
    return world


@pytest.fixture
def world(tmp_path, monkeypatch):
    return make(tmp_path, monkeypatch)


def predict(world, *more, out="out", status=0):
    command = ["predict", "-i", "in", "-o", out, "-m", str(world.model), "-device", "cpu", "-nps", "1", *more]
    assert main(command) == status
    return world.root / out


def fit(world, method):
    assert main(["calibrate", "fit", str(world.model), "--method", method, "--keys", "60", "-np", "1"]) == 0


def expected(world, case, capsys):
    """What `calibrate apply` makes of the same probabilities."""
    folder, out = world.root / f"npz_{case}", world.root / f"applied_{case}"
    folder.mkdir()
    np.savez(folder / f"{case}.npz", probabilities=world.probs[case])
    assert main(["calibrate", "apply", str(world.model), "-i", str(folder), "-o", str(out), "-np", "1"]) == 0
    capsys.readouterr()
    return np.load(out / f"{case}.npz")["probabilities"]


def maps_of(out, case):
    image = sitk.ReadImage(str(out / "probabilities" / f"{case}.nii.gz"))
    return image, sitk.GetArrayFromImage(image)


def labels_of(out, case, ending=".nii.gz"):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(out / (case + ending))))


@pytest.mark.parametrize("bits", ["8", "16"])
@pytest.mark.parametrize("regions", [False, True])
def test_a_temperature_keeps_nnunets_own_file(tmp_path, monkeypatch, capsys, regions, bits):
    world = make(tmp_path, monkeypatch, regions=regions)
    fit(world, "temperature")
    out = predict(world, "--bits", bits)
    printed = capsys.readouterr().out
    assert "Calibrated by temperature; the segmentations are nnU-Net's own" in printed
    for case in "ab":
        want = expected(world, case, capsys)
        write(tmp_path / "stock.nii.gz", stock_labels(world, case))
        assert (out / f"{case}.nii.gz").read_bytes() == (tmp_path / "stock.nii.gz").read_bytes()
        image, maps = maps_of(out, case)
        np.testing.assert_allclose(maps, want if regions else want[1:], atol=0.51 / (2 ** int(bits) - 1))
        assert image.GetSize() == (10, 12, 1, 2)
        np.testing.assert_allclose(image.GetSpacing()[:3], SPACING, rtol=1e-6)
        np.testing.assert_allclose(image.GetOrigin()[:3], ORIGIN, rtol=1e-6)
        # the greatest of the calibrated probabilities is that file
        again = want if regions else want.argmax(0)
        if regions:
            np.testing.assert_array_equal(again > 0.5, world.probs[case] > 0.5)
        else:
            np.testing.assert_array_equal(again, stock_labels(world, case))
    names = {it.name for it in out.iterdir()}
    assert names == {
        "a.nii.gz",
        "b.nii.gz",
        "probabilities",
        "dataset.json",
        "plans.json",
        "nnunet_dml_calibrated.json",
    }
    assert {it.name for it in tmp_path.iterdir() if it.name.startswith(".")} == set()


@pytest.mark.parametrize("regions", [False, True])
def test_another_method_changes_voxels_and_says_how_many(tmp_path, monkeypatch, capsys, regions):
    world = make(tmp_path, monkeypatch, regions=regions)
    fit(world, "vector")
    with np.load(world.model / "nnunet_dml_calibration" / "calibrator.npz") as stored:
        arrays = dict(stored)
    for name in [it for it in arrays if it.startswith("bias")]:  # make it change much
        arrays[name] = arrays[name] + np.arange(len(arrays[name]))
    replace_calibrator(world, arrays)
    out = predict(world)
    printed = capsys.readouterr().out
    changed = 0
    for case in "ab":
        want = expected(world, case, capsys)
        labels = np.where(want[1] > 0.5, 1, np.where(want[0] > 0.5, 2, 0)) if regions else want.argmax(0)
        got = labels_of(out, case)
        np.testing.assert_array_equal(got, labels)
        assert got.dtype == np.uint8
        image = sitk.ReadImage(str(out / f"{case}.nii.gz"))
        np.testing.assert_allclose(image.GetSpacing(), SPACING, rtol=1e-6)
        changed += int((labels != stock_labels(world, case)).sum())
    assert changed > 10
    assert f"it changed the label of {changed} of 240 voxels" in printed


def replace_calibrator(world, arrays):
    import hashlib

    folder = world.model / "nnunet_dml_calibration"
    np.savez_compressed(folder / "calibrator.npz", **arrays)
    record = json.loads((folder / "calibration.json").read_text())
    record["files"]["calibrator.npz"] = hashlib.sha256((folder / "calibrator.npz").read_bytes()).hexdigest()
    (folder / "calibration.json").write_text(json.dumps(record))


def test_without_a_calibrator_it_says_so(world, capsys):
    out = predict(world)
    assert "NOT calibrated" in capsys.readouterr().out
    np.testing.assert_allclose(maps_of(out, "a")[1], world.probs["a"][1:], atol=1e-5)
    fit(world, "temperature")
    again = predict(world, "--no-calibration", out="own")
    assert "the model's own (--no-calibration)" in capsys.readouterr().out
    np.testing.assert_array_equal(maps_of(again, "a")[1], maps_of(out, "a")[1])


def test_arguments_of_nnunet_are_handed_on_unchanged(world):
    predict(world, "-f", "0", "all", "--disable_tta", "-chk", "best.pth", "--bits", "8", "-step_size", "0.7")
    ((handed, by_folder),) = world.stock.calls
    assert by_folder
    staging = handed[3]
    assert handed == [
        "-i", "in", "-o", staging, "-m", str(world.model), "-device", "cpu", "-nps", "1", "-f", "0", "all",
        "--disable_tta", "-chk", "best.pth", "-step_size", "0.7", "--save_probabilities",
    ]  # fmt: skip
    more = ["-tr", "nnUNetTrainer", "-c", "2d", "-device", "cpu", "-nps", "1"]
    assert main(["predict", "-i", "in", "-o", "by_name", "-d", "7", *more]) == 0
    handed, by_folder = world.stock.calls[-1]
    assert not by_folder
    assert handed[4:6] == ["-d", "7"]


def test_pictures_have_maps_with_voxels_of_size_1(tmp_path, monkeypatch, capsys):
    world = make(tmp_path, monkeypatch, ending=".png")
    fit(world, "vector")
    out = predict(world)
    image, maps = maps_of(out, "a")
    want = expected(world, "a", capsys)
    np.testing.assert_allclose(maps, want[1:], atol=1e-5)
    assert image.GetSpacing() == (1.0,) * 4
    np.testing.assert_array_equal(labels_of(out, "a", ".png"), want.argmax(0)[0])


def test_the_maps_can_be_evaluated(world):
    out = predict(world)
    found = predictions.of_folder(out / "probabilities")
    assert [it.case for it in found.cases] == ["a", "b"]
    probs = predictions.read_probabilities(found.cases[0].path, num_classes=3)
    np.testing.assert_allclose(probs, world.probs["a"], atol=2e-5)


def test_an_interrupted_prediction_goes_on(world):
    world.stock.fails_after = 1
    predict(world, status=130)
    assert not (world.root / "out" / "a.nii.gz").exists()
    world.stock.fails_after = None
    out = predict(world, "--continue_prediction")
    assert sorted(it.name for it in out.glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz"]
    assert not list(world.root.glob(".out*"))


BAD = {
    "no value": (["predict", "-i"], "-i: expected a value behind it"),
    "no input": (["predict", "-o", "out", "-m", "x"], "-i: expected a folder of images, found none"),
    "no output": (["predict", "-i", "in", "-m", "x"], "-o: expected a folder to write, found none"),
    "no folder": (["predict", "-i", "nowhere", "-o", "out", "-m", "x"], "-i nowhere: expected a folder of images"),
    "no model": (["predict", "-i", "in", "-o", "out", "-m", "x"], "x: expected a trained model's folder, found none"),
    "neither": (["predict", "-i", "in", "-o", "out"], "either a model's folder -m or a data set -d, found neither"),
    "both": (["predict", "-i", "in", "-o", "out", "-m", "x", "-d", "7"], "found both"),
    "no configuration": (["predict", "-i", "in", "-o", "out", "-d", "7"], "-c: expected a configuration"),
    "bits": (["predict", "-i", "in", "-o", "out", "-m", "x", "--bits", "12"], "--bits: expected 8 or 16, found 12"),
    "output is input": (["predict", "-i", "in", "-o", "in", "-m", "MODEL", "-device", "cpu"], "another folder than the input"),
    "output in use": (["predict", "-i", "in", "-o", "raw", "-m", "MODEL", "-device", "cpu"], "-o raw: expected an empty folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_predict_refuses(world, capsys, name):
    command, words = BAD[name]
    before = sorted(world.root.rglob("*"))
    assert main([str(world.model) if it == "MODEL" else it for it in command]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert sorted(world.root.rglob("*")) == before
    assert not world.stock.calls


def test_predict_refuses_a_bad_calibrator_before_the_work(world, capsys):
    fit(world, "vector")
    (world.model / "nnunet_dml_calibration" / "calibrator.npz").write_bytes(b"")
    predict(world, status=2)
    assert (
        "calibrator.npz: expected the file that calibration.json was written with" in capsys.readouterr().err
    )
    content = json.loads((world.model / "dataset.json").read_text())
    content["labels"]["third"] = 3
    (world.model / "dataset.json").write_text(json.dumps(content))
    predict(world, status=2)
    assert "expected a calibrator of the labels of" in capsys.readouterr().err
    plans = {"image_reader_writer": "NibabelIOWithReorient"}
    (world.model / "plans.json").write_text(json.dumps(plans))
    predict(world, status=2)
    assert "NibabelIOWithReorient" in capsys.readouterr().err
    assert not world.stock.calls


def test_predict_refuses_a_folder_without_images(world, capsys):
    for it in (world.root / "in").iterdir():
        it.unlink()
    predict(world, status=2)
    assert (
        "expected images named as nnU-Net wants them (case_0000.nii.gz), found none"
        in capsys.readouterr().err
    )
    assert not list(world.root.glob(".out*"))


@pytest.mark.slow
def test_a_trained_model_predicts_as_nnunet_does(phantom, tmp_path):
    """Stock's segmentations to the bit, and its probabilities, calibrated, on the image's grid."""
    name = "nnUNetTrainerDML__tiny_hard__2d"
    run(
        "nnUNetv2_train",
        "901",
        "2d",
        "0",
        "-tr",
        "nnUNetTrainerDML",
        "-p",
        "tiny_hard",
        "-device",
        "cpu",
        "--npz",
    )
    model = phantom.results / "Dataset901_Phantom" / name
    images = phantom.raw / "Dataset901_Phantom" / "imagesTr"
    where = ["-f", "0", "-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1"]
    fitted = nnunet_dml(
        "calibrate", "fit", name, "-d", "901", "--method", "temperature", "--keys", "50", "-np", "1"
    ).stdout
    assert "cases are left out instead of folds" in fitted
    out = nnunet_dml("predict", "-i", images, "-o", tmp_path / "ours", "-m", model, *where).stdout
    assert "10 segmentations" in out
    run("nnUNetv2_predict", "-i", images, "-o", tmp_path / "stock", "-d", "901", "-c", "2d", "-tr", "nnUNetTrainerDML",
        "-p", "tiny_hard", "--save_probabilities", *where)  # fmt: skip
    nnunet_dml("calibrate", "apply", model, "-i", tmp_path / "stock", "-o", tmp_path / "applied", "-np", "1")
    for path in sorted((tmp_path / "stock").glob("*.nii.gz")):
        assert (tmp_path / "ours" / path.name).read_bytes() == path.read_bytes()
        case = path.name.removesuffix(".nii.gz")
        image, maps = maps_of(tmp_path / "ours", case)
        want = np.load(tmp_path / "applied" / f"{case}.npz")["probabilities"]
        np.testing.assert_allclose(maps, want[1], atol=1e-5)
        theirs = sitk.ReadImage(str(path))
        np.testing.assert_allclose(image.GetSpacing()[:2], theirs.GetSpacing()[:2])
        np.testing.assert_allclose(image.GetOrigin()[:2], theirs.GetOrigin()[:2])
    by_name = nnunet_dml("predict", "-i", images, "-o", tmp_path / "by_name", "-d", "901", "-c", "2d", "-tr",
                         "nnUNetTrainerDML", "-p", "tiny_hard", *where).stdout  # fmt: skip
    assert "Calibrated by temperature" in by_name
    first = next((tmp_path / "stock").glob("*.nii.gz")).name
    assert (tmp_path / "by_name" / first).read_bytes() == (tmp_path / "stock" / first).read_bytes()
