"""A network of segmentation_models_pytorch trained by nnU-Net on soft labels, and loaded for prediction."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.segmentation_models import SegmentationModel
from nnunet_dml.nnunet.trained_model import read_model
from tests.nnunet import mode_helpers as here
from tests.nnunet.mode_helpers import disc

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # nnU-Net's own code warns

NETWORK = ("--network", "smp:Unet:resnet18:none")


def make(folders, number):
    """Five images of 36 × 30 with two raters and two channels, preprocessed; plans `resnet` by the paper's recipe."""
    shape, dataset = (36, 30), f"Dataset{number}_Networks"
    raters = {
        f"case{i}": {
            rater: disc(shape, 0.4 + grow, [0.05 * i, 0.1]).astype(np.uint8)
            for rater, grow in (("a", 0.0), ("b", 0.12))
        }
        for i in range(5)
    }
    noise = np.random.default_rng(0)
    images = {
        case: [(100 + 50 * masks["b"] + noise.normal(0, 5, shape)).astype(np.float32) for _ in range(2)]
        for case, masks in raters.items()
    }
    consensus = {case: masks["a"] for case, masks in raters.items()}
    here.write_raw(folders.raw / dataset, images, raters, consensus, {"background": 0, "disc": 1})
    here.plan(number)
    here.preprocess(number, ["2d"])
    here.command("configure", "-d", number, "-o", "resnet", *NETWORK, "--recipe", "paper", "--batch-size", 2,
                 "--set", *here.TINY, "labels.source=uniform")  # fmt: skip
    return dataset


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The data set, made when it is asked for."""
    with here.made_when_asked(tmp_path_factory.mktemp("networks"), make) as folders:
        yield folders


def test_it_trains_with_the_recipes_optimizer(world):
    world.dataset(906)
    trainer = here.trainer_for(906, "2d", "resnet")
    group = trainer.optimizer.param_groups[0]
    assert {key: group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")} == {
        "lr": 0.01, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4,
    }  # fmt: skip
    assert isinstance(trainer.network, SegmentationModel)
    assert trainer.network.resize == 256
    before = {name: it.clone() for name, it in trainer.network.state_dict().items()}
    trainer.on_train_epoch_start()
    loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
    assert np.isfinite(loss)
    moved = [not torch.equal(it, before[name]) for name, it in trainer.network.named_parameters()]
    assert all(moved)


def test_from_training_to_prediction(world, capsys):
    dataset = world.dataset(906)
    here.train(906, "2d", "resnet")
    assert "resnet18: random weights, as the plans have it." in capsys.readouterr().out
    model = world.results / dataset / "nnUNetTrainerDML__resnet__2d"
    assert (model / "fold_0" / "validation" / "summary.json").is_file()
    predictor = nnUNetPredictor(device=here.CPU, use_mirroring=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,), checkpoint_name="checkpoint_final.pth")
    image = np.zeros((2, 1, 45, 31), np.float32)
    predicted = predictor.predict_single_npy_array(image, {"spacing": [999, 1, 1]}, None, None, False)
    assert predicted.shape == (1, 45, 31)
    with pytest.raises(InputError, match=r"expected a network that nnU-Net has, found nnunet_dml\."):
        read_model(model, None, "checkpoint_final.pth")


def test_pretrained_weights_are_loaded_before_the_first_step_and_over_no_others(world, monkeypatch):
    world.dataset(906)
    asked = []
    monkeypatch.setattr(SegmentationModel, "load_pretrained", lambda self: asked.append(self) or "loaded")
    trainer = here.trainer_for(906, "2d", "resnet", start=False)
    trainer.on_train_start()
    assert asked == [trainer.network]
    loaded = here.trainer_for(906, "2d", "resnet", start=False)
    loaded.initialize()  # as for --c and -pretrained_weights, which load what they have next
    loaded.on_train_start()
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["nnUNetTrainerConfigured", "nnUNetTrainerNoDeepSupervision"])
def test_nnunets_own_loss_trains_it_too(world, name):
    dataset = world.dataset(906)
    path = world.preprocessed / dataset / "resnet.json"
    plans = json.loads(path.read_text())
    plans["nnunet_dml"] = {"training": plans["nnunet_dml"]["training"]}
    plans["plans_name"] = "stock"
    (path.parent / "stock.json").write_text(json.dumps(plans))
    trainer = here.trainer_for(906, "2d", "stock", name)
    trainer.on_train_epoch_start()
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
    trainer.set_deep_supervision_enabled(False)


def test_deep_supervision_is_refused(world, capsys):
    dataset = world.dataset(906)
    path = world.preprocessed / dataset / "resnet.json"
    plans = json.loads(path.read_text())
    plans["nnunet_dml"]["loss"] = {"deep_supervision": True}
    plans["plans_name"] = "supervised"
    (path.parent / "supervised.json").write_text(json.dumps(plans))
    with pytest.raises(SystemExit):
        here.trainer_for(906, "2d", "supervised")
    assert (
        "expected loss.deep_supervision=false, found true for a network of one output"
        in capsys.readouterr().err
    )
