"""Exported models: nnU-Net predicts the same with them, without this package."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import time
import zipfile

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet import trainers
from nnunet_dml.nnunet.export import export
from tests.conftest import DATASET as PHANTOM
from tests.conftest import nnunet_dml, run
from tests.nnunet.export_helpers import DATASET, build_network, change_checkpoint, make_model, names

BLOCKER = '''
import sys

class Blocker:
    """This package is not installed here, whatever the folders on the path hold."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "nnunet_dml":
            raise ImportError("blocked: " + name)

sys.meta_path.insert(0, Blocker())
'''
STOCK = """
import importlib, json, os, sys
try:
    import nnunet_dml
except ImportError as error:
    assert str(error).startswith("blocked"), error
else:
    sys.exit("nnunet_dml can be imported")
assert "nnUNet_extTrainer" not in os.environ
for entry, *arguments in json.loads(sys.argv[1]):
    module, _, name = entry.partition(":")
    sys.argv = ["stock", *arguments]
    getattr(importlib.import_module(module), name)()
"""


@pytest.fixture(autouse=True)
def no_external_trainers(monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)


def read(path, name, entry=None):
    """A checkpoint or JSON file of the zip."""
    with zipfile.ZipFile(path) as archive:
        content = archive.read(name)
    return (
        json.loads(content) if name.endswith(".json") else torch.load(io.BytesIO(content), weights_only=True)
    )


def stock_predictor(zipped, folder, target, folds):
    """nnU-Net's predictor on the installed model."""
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(target)
    predictor = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(target / folder), folds)
    return predictor


@pytest.mark.parametrize("name", trainers.__all__)
def test_every_trainer_builds_nnunets_own_network(name):
    """What the export rests on."""
    assert getattr(trainers, name).build_network_architecture is nnUNetTrainer.build_network_architecture


@pytest.mark.parametrize(
    ("labels", "heads"),
    [
        ({"background": 0, "a": 1, "b": 2}, 3),
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, 3),
        ({"background": 0, "whole": [1, 2], "core": 2}, 2),
    ],
    ids=["classes", "ignore", "regions"],
)
def test_nnunet_builds_the_same_network_with_the_same_weights(tmp_path, labels, heads):
    model = make_model(tmp_path, trainer="nnUNetTrainerConfigured", folds=(0, 2), labels=labels)
    export(model, tmp_path / "model.zip")
    folder = f"{DATASET}/nnUNetTrainer__toy__2d"
    predictor = stock_predictor(tmp_path / "model.zip", folder, tmp_path / "installed", None)
    assert predictor.trainer_name == "nnUNetTrainer"
    assert predictor.allowed_mirroring_axes == (0, 1)
    assert predictor.label_manager.num_segmentation_heads == heads
    image = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    for fold, weights in zip((0, 2), predictor.list_of_parameters, strict=True):
        trained = torch.load(model / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)
        original = build_network(trained["init_args"]["plans"], "2d", trained["init_args"]["dataset_json"])
        original.load_state_dict(trained["network_weights"])
        predictor.network.load_state_dict(weights)
        with torch.no_grad():
            expected = original(image)[0]  # the highest resolution of deep supervision
            assert expected.shape[1] == heads
            assert torch.equal(predictor.network(image), expected)


def test_what_is_in_the_zip(tmp_path):
    model = make_model(tmp_path, training={"epochs": 7}, labels={"background": 0, "a": 1})
    for inside in (".", "crossval_results_folds_0", "crossval_results_folds_0_1", "evaluation/deep"):
        (model / inside).mkdir(exist_ok=True, parents=True)
        (model / inside / "postprocessing.pkl").write_bytes(pickle.dumps(([], [])))
        (model / inside / "summary.json").write_text('{"reference_file": "/home/me"}')
    (model / "crossval_results_folds_0" / "postprocessing.json").write_text("{}")
    (exported,) = export(model, tmp_path / "model.zip")
    base = f"{DATASET}/nnUNetTrainer__toy__2d"
    assert names(tmp_path / "model.zip") == sorted(
        f"{base}/{name}"
        for name in (
            "crossval_results_folds_0/postprocessing.json",
            "crossval_results_folds_0/postprocessing.pkl",
            "dataset.json",
            "dataset_fingerprint.json",
            "fold_0/checkpoint_final.pth",
            "nnunet_dml.json",
            "plans.json",
            "postprocessing.pkl",
        )
    )
    assert exported.notes == (
        "crossval_results_folds_0_1/postprocessing.pkl is left out: it is for other folds",
    )
    plans = json.loads((model / "plans.json").read_text())
    assert json.dumps(read(tmp_path / "model.zip", f"{base}/plans.json")) == json.dumps(plans)
    dataset_json = read(tmp_path / "model.zip", f"{base}/dataset.json")
    assert set(dataset_json) == {"channel_names", "labels", "regions_class_order", "file_ending"}
    record = read(tmp_path / "model.zip", f"{base}/nnunet_dml.json")
    assert record["trainer"] == "nnUNetTrainerDML"
    assert record["folds"] == {"0": {"epochs": 7}}
    assert record["options"]["training"]["epochs"] == 7
    assert record["options"]["loss"]["overlap"] == "dml"
    assert set(record["exported_by"]) == {"nnunet_dml", "nnunetv2"}
    checkpoint = read(tmp_path / "model.zip", f"{base}/fold_0/checkpoint_final.pth")
    assert checkpoint["nnunet_dml"] == record
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["init_args"]["configuration"] == "2d"
    assert "optimizer_state" not in checkpoint
    assert "Jane Doe" not in repr(checkpoint) + repr(record)


def test_a_checkpoint_without_the_optimizer_is_half_as_large(tmp_path):
    model = make_model(tmp_path, folds=(0, 1))
    plans = json.loads((model / "plans.json").read_text())
    wide = json.loads(json.dumps(plans).replace("[4, 8]", "[64, 128]"))
    (model / "plans.json").write_text(json.dumps(wide))
    described = json.loads((model / "dataset.json").read_text())
    network = build_network(wide, "2d", described)
    momentum = {i: torch.ones_like(p) for i, p in enumerate(network.parameters())}
    for fold in (0, 1):
        change_checkpoint(
            model,
            fold,
            network_weights=network.state_dict(),
            optimizer_state=momentum,
            init_args=lambda old: {**old, "plans": wide},
        )
    (exported,) = export(model, tmp_path / "model.zip")
    files = [model / f"fold_{fold}" / "checkpoint_final.pth" for fold in (0, 1)]
    assert exported.bytes_before == sum(it.stat().st_size for it in files)
    assert 0.45 < exported.bytes_after / exported.bytes_before < 0.55


def test_the_same_input_gives_the_same_bytes(tmp_path, monkeypatch):
    model = make_model(tmp_path, folds=(0, 1))
    export(model, tmp_path / "one.zip")
    now = time.localtime(time.time() + 1e6)
    monkeypatch.setattr(time, "localtime", lambda *_: now)
    export(model, tmp_path / "two.zip", folds=["0", "1"])
    one, two = (hashlib.sha256((tmp_path / f"{n}.zip").read_bytes()).digest() for n in ("one", "two"))
    assert one == two


def test_a_cascade_brings_its_previous_stage(tmp_path):
    labels = {"background": 0, "a": 1, "b": 2}
    cascade = make_model(tmp_path, configuration="cascade", folds=(0, 1), labels=labels)
    with pytest.raises(
        InputError, match=r"nnUNetTrainerDML__toy__low: expected the model of low, .* cascade starts"
    ):
        export(cascade, tmp_path / "model.zip")
    make_model(tmp_path, configuration="low", folds=(0, 1), labels=labels)
    exported = export(cascade, tmp_path / "model.zip", folds=["1"])
    assert [it.record["configuration"] for it in exported] == ["low", "cascade"]
    assert [list(it.record["folds"]) for it in exported] == [["1"], ["1"]]
    for configuration, channels in (
        ("low", 2),
        ("cascade", 4),
    ):  # two images, and two classes of the stage before
        folder = f"{DATASET}/nnUNetTrainer__toy__{configuration}"
        network = stock_predictor(tmp_path / "model.zip", folder, tmp_path / "in", ("1",)).network
        assert next(network.parameters()).shape[1] == channels


def test_without_folds_the_numbered_ones_are_taken(tmp_path):
    model = make_model(tmp_path, folds=(10, "all", 9))
    assert list(export(model, tmp_path / "a.zip")[0].record["folds"]) == ["9", "10"]
    assert list(export(model, tmp_path / "b.zip", folds=["all"])[0].record["folds"]) == ["all"]
    (model / "fold_3").mkdir()  # as a training leaves it that was refused
    (model / "fold_3" / "training_log.txt").touch()
    assert list(export(model, tmp_path / "d.zip")[0].record["folds"]) == ["9", "10"]
    only = make_model(tmp_path / "only", folds=("all",))
    assert list(export(only, tmp_path / "c.zip")[0].record["folds"]) == ["all"]


@pytest.mark.parametrize("name", ["nnUNetTrainer", "nnUNetTrainer_5epochs"])
def test_a_stock_trainer_keeps_its_name(tmp_path, name):
    (exported,) = export(make_model(tmp_path, trainer=name), tmp_path / "model.zip")
    folder = f"{DATASET}/{name}__toy__2d"
    assert stock_predictor(tmp_path / "model.zip", folder, tmp_path / "in", ("0",)).trainer_name == name
    assert "options" not in exported.record


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_stock_nnunet_predicts_the_same_without_this_package(phantom, tmp_path, monkeypatch):
    """Train with ours; predict with ours and, where ours cannot be imported, from the zip."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "trained"))
    (tmp_path / "trained").mkdir()
    plugin = nnunet_dml("env").stdout.partition("=")[2].strip()
    run("nnUNetv2_train", "901", "2d", "0", "-tr", "nnUNetTrainerDML", "-p", "tiny", "-device", "cpu", nnUNet_extTrainer=plugin)  # fmt: skip
    zipped = tmp_path / "model.zip"
    model = "nnUNetTrainerDML__tiny__2d"
    said = nnunet_dml("export", model, "-d", "901", "-o", zipped).stdout
    assert f"-d {PHANTOM} -tr nnUNetTrainer -p tiny -c 2d -f 0" in said

    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(phantom.raw / PHANTOM / "imagesTr" / "case01_0000.nii.gz", images)
    common = ["-i", images, "-f", "0", "-device", "cpu", "-npp", "0", "-nps", "0", "--save_probabilities"]
    which = ["-d", "901", "-p", "tiny", "-c", "2d"]
    run(
        "nnUNetv2_predict",
        "-o",
        tmp_path / "ours",
        "-tr",
        "nnUNetTrainerDML",
        *which,
        *common,
        nnUNet_extTrainer=plugin,
    )

    (tmp_path / "blocker").mkdir()
    (tmp_path / "blocker" / "sitecustomize.py").write_text(BLOCKER)
    (tmp_path / "installed").mkdir()

    installed = tmp_path / "installed" / PHANTOM / "nnUNetTrainer__tiny__2d"
    predict = "nnunetv2.inference.predict_from_raw_data:predict_entry_point"
    two = ["-npp", "1", "-nps", "1"]  # this command cannot do without workers
    calls = [
        ["nnunetv2.model_sharing.entry_points:install_from_zip_entry_point", zipped],
        [predict, "-o", tmp_path / "stock", "-tr", "nnUNetTrainer", *which, *common],
        [f"{predict}_modelfolder", "-o", tmp_path / "folder", "-m", installed, *common, *two],
    ]
    places = {"PYTHONPATH": str(tmp_path / "blocker"), "nnUNet_results": str(tmp_path / "installed")}
    run("python", "-c", STOCK, json.dumps(calls, default=str), **places)

    ours = np.load(tmp_path / "ours" / "case01.npz")["probabilities"]
    for other in ("stock", "folder"):
        assert (tmp_path / other / "case01.nii.gz").read_bytes() == (
            tmp_path / "ours" / "case01.nii.gz"
        ).read_bytes()
        assert np.array_equal(np.load(tmp_path / other / "case01.npz")["probabilities"], ours)
    assert 0.01 < ours[1].mean() < 0.99
