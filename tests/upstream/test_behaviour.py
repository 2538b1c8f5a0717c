"""What in nnU-Net is a behaviour rather than a name, tried on tiny arrays, without this package."""

from __future__ import annotations

import json
import os
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.upstream.reading import (
    theirs,
)
from tests.upstream.tiny import CASES


def stock_transforms(*, dummy_2d: bool) -> Any:
    """The training transforms of a cascade with regions, its rotation certain."""
    dimensions = 3 if dummy_2d else 2
    stock = theirs("nnUNetTrainer").get_training_transforms(
        (4, 16, 16)[-dimensions:], (0.7, 0.7), None, tuple(range(dimensions)), dummy_2d, use_mask_for_norm=[True],
        is_cascaded=True, foreground_labels=[1], regions=[(1,)],
    )  # fmt: skip
    for part in stock.transforms:
        if hasattr(part, "p_rotation"):
            part.p_rotation = 1
    return stock


@pytest.mark.parametrize("dummy_2d", [False, True])
def test_a_float_target_goes_with_the_image_and_is_left_alone_else(dummy_2d):
    """nnunet/transforms.py: every transform moves it as it moves the image, linearly, or does not touch it."""
    shape, moved = (4, 16, 16)[0 if dummy_2d else 1 :], []
    torch.manual_seed(0)
    np.random.seed(0)
    step = (torch.arange(16) > 7).float().expand(1, *shape).clone()
    data = {
        "image": step,
        "regression_target": step.clone(),
        "segmentation": step.to(torch.int16).repeat(2, *[1] * len(shape)),
    }
    for part in stock_transforms(dummy_2d=dummy_2d).transforms:
        part = getattr(part, "transform", part)  # a random one, for certain
        data["image"] = data["regression_target"].clone()
        before = data["regression_target"].clone()
        data = part(**data)
        after = data["regression_target"]
        kind = type(part).__name__
        assert after.dtype == torch.float32, kind
        if after.shape != before.shape or not torch.equal(after, before):
            moved.append(kind)
            assert torch.equal(after, data["image"]), kind
        if kind == "SpatialTransform":
            assert ((after > 0) & (after < 1)).any(), "no linear interpolation"
    assert set(moved) <= {
        "SpatialTransform",
        "MirrorTransform",
        "Convert3DTo2DTransform",
        "Convert2DTo3DTransform",
    }
    assert "SpatialTransform" in moved


def test_outside_the_image_a_float_target_is_0():
    """nnunet/transforms.py: 0 is background."""
    part = next(it for it in stock_transforms(dummy_2d=False).transforms if hasattr(it, "p_rotation"))
    ones = torch.ones(1, 16, 16)
    out = part(image=ones, regression_target=ones.clone(), segmentation=ones.to(torch.int16))
    assert out["regression_target"][0, 0, 0] == 0
    assert out["segmentation"][0, 0, 0] == -1


def test_a_mirrored_float_target():
    """nnunet/transforms.py."""
    part = next(it for it in stock_transforms(dummy_2d=False).transforms if hasattr(it, "allowed_axes"))
    ramp = torch.arange(16.0).view(1, 4, 4)
    out = part.apply({"regression_target": ramp}, axes=[1])
    assert torch.equal(out["regression_target"], ramp.flip(2))


def test_which_transforms_change_the_image_alone():
    """nnunet/views.py: it leaves these out of the weak view."""
    parts = [getattr(it, "transform", it) for it in theirs("nnUNetTrainer").get_training_transforms(
        (16, 16), (0, 0), None, (0, 1), False, use_mask_for_norm=[True]
    ).transforms]  # fmt: skip
    others = [type(it).__name__ for it in parts if not isinstance(it, theirs("ImageOnlyTransform"))]
    assert others == ["SpatialTransform", "MirrorTransform", "MaskImageTransform", "RemoveLabelTransform"]


class Lazy:
    """An array as nnunet/dataset.py stacks them: it has a shape, a dtype, and regions of all channels."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, index):
        assert index[0] == slice(None), "the channels are sliced apart"
        return self.array[index]


def test_the_loader_crops_pads_and_collates_all_channels():
    """nnunet/dataset.py, nnunet/transforms.py: soft maps ride behind the labels."""
    seen = []

    def note(**data):
        seen.append(data)
        return {"image": data["image"], "segmentation": data["segmentation"].float() / 2}

    array = np.arange(3 * 4 * 4, dtype=np.int16).reshape(3, 1, 4, 4)
    case = np.zeros((1, 1, 4, 4), np.float32), Lazy(array), None, {"class_locations": {1: []}}
    dataset = SimpleNamespace(identifiers=["a"], load_case=lambda identifier: case)
    labels = theirs("LabelManager")({"background": 0, "a": 1}, None)
    batch = next(theirs("nnUNetDataLoader")(dataset, 1, (6, 6), (6, 6), labels, transforms=note))
    assert set(seen[0]) == {"image", "segmentation"}
    assert seen[0]["segmentation"].dtype == torch.int16
    padded = np.pad(array[:, 0], ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    assert batch["target"].dtype == torch.float32
    np.testing.assert_array_equal(batch["target"][0], padded / 2)
    assert batch["data"].shape == (1, 1, 6, 6)


def test_the_files_of_preprocessed_cases(trainer):
    """nnunet/soft_maps.py, nnunet/unlabelled_making.py."""
    folder = Path(trainer.preprocessed_dataset_folder)
    assert {it.name for it in folder.glob("a*")} == {"a.b2nd", "a_seg.b2nd", "a.pkl"}
    kind = theirs("infer_dataset_class")(str(folder))
    assert kind is theirs("nnUNetDatasetBlosc2")
    assert sorted(kind.get_identifiers(str(folder))) == CASES
    data, seg, previous, properties = kind(str(folder), []).load_case("a")
    assert (data.shape, seg.shape, previous) == ((1, 1, 16, 16), (1, 1, 16, 16), None)
    assert properties == {"class_locations": {1: []}}


def test_new_splits_are_drawn_as_we_draw_them(trainer):
    """nnunet/student.py, nnunet/splits.py."""
    with redirect_stdout(StringIO()):
        training, validation = trainer.do_split()
    ours = theirs("generate_crossval_split")(sorted(CASES), seed=12345, n_splits=5)
    written = json.loads((Path(trainer.preprocessed_dataset_folder_base) / "splits_final.json").read_text())
    assert written == [{side: list(map(str, it[side])) for side in ("train", "val")} for it in ours]
    assert (list(training), list(validation)) == (written[0]["train"], written[0]["val"])


def test_a_trainer_is_found_in_the_folders_of_the_variable(tmp_path, monkeypatch):
    """_folders.py, plugin: the class itself, not a copy, although the module is dropped; the first folder wins."""
    for name, line in (("one", f"from {__name__} import Mine as FoundTrainer"), ("two", "FoundTrainer = 1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"module_{name}.py").write_text(f"{line}\n")
    mine = type("Mine", (theirs("nnUNetTrainer"),), {})
    monkeypatch.setattr(sys.modules[__name__], "Mine", mine, raising=False)
    monkeypatch.setenv("nnUNet_extTrainer", f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'two'}")
    with redirect_stdout(StringIO()):
        assert theirs("recursive_find_trainer_class_by_name")("FoundTrainer") is mine
        assert "module_one" not in sys.modules
        monkeypatch.delenv("nnUNet_extTrainer")
        with pytest.raises(RuntimeError, match="FoundTrainer"):
            theirs("recursive_find_trainer_class_by_name")("FoundTrainer")


def test_a_training_calls_its_hooks_in_this_order(trainer, monkeypatch):
    """nnunet/trainers: seeds, records and averaged weights rely on it."""
    epoch = "on_epoch_start on_train_epoch_start train_step train_step on_train_epoch_end on_validation_epoch_start "
    epoch += "validation_step on_validation_epoch_end on_epoch_end"
    order, called = ["on_train_start", *epoch.split(), "on_train_end"], []
    for hook in set(order):
        monkeypatch.setattr(trainer, hook, lambda *_, hook=hook: called.append(hook))
    for name, value in (
        ("num_epochs", 1),
        ("num_iterations_per_epoch", 2),
        ("num_val_iterations_per_epoch", 1),
    ):
        monkeypatch.setattr(trainer, name, value)
    for loader in ("dataloader_train", "dataloader_val"):
        monkeypatch.setattr(trainer, loader, iter([{}] * 2))
    trainer.run_training()
    assert called == order


def test_a_step_hands_targets_to_the_loss_as_they_are(trainer, monkeypatch):
    """nnunet/trainers/soft.py: one target for all outputs; nnunet/trainers/semi_supervised.py: a list of several."""
    seen = []

    def loss(output, target):
        seen.append((output, target))
        return sum(it.mean() for it in output)

    monkeypatch.setattr(trainer, "loss", loss)
    trainer.set_deep_supervision_enabled(True)
    images, target = torch.rand(2, 1, 16, 16), torch.rand(2, 3, 16, 16)
    assert set(trainer.train_step({"data": images, "target": target})) == {"loss"}
    trainer.train_step({"data": images, "target": [target] * 3})
    assert [len(output) for output, _ in seen] == [2, 2]
    assert torch.equal(seen[0][1], target)
    assert len(seen[1][1]) == 3
    hard = torch.zeros(2, 1, 16, 16)
    found = trainer.validation_step({"data": images, "target": [hard, hard[..., ::2, ::2]]})
    assert set(found) == {"loss", "tp_hard", "fp_hard", "fn_hard"}
    assert found["tp_hard"].shape == (1,)


def test_figures_beside_nnunets_own(trainer):
    """nnunet/online.py, nnunet/trainers: more outputs of a validation step, more series in the logger."""
    one = np.ones(1)
    outputs = [
        {"loss": np.array(0.5), "tp_hard": one, "fp_hard": one, "fn_hard": one, "more": np.ones((2, 3))}
    ] * 2
    trainer.on_validation_epoch_end(outputs)
    assert trainer.logger.get_value("dice_per_class_or_region", step=-1) == [0.5]
    trainer.logger.local_logger.my_fantastic_logging.update({"ours": []})
    trainer.logger.log("ours", [1.5, 2.5], 0)
    assert trainer.logger.get_value("ours", step=-1) == [1.5, 2.5]
    assert trainer.logger.get_value("ours", step=None) == [[1.5, 2.5]]


def test_what_a_checkpoint_holds(trainer, tmp_path):
    """nnunet/checkpoints.py, nnunet/export.py, nnunet/trained_model.py."""
    file = tmp_path / "checkpoint.pth"
    trainer.logger.local_logger.my_fantastic_logging["kept"] = [1]
    trainer.save_checkpoint(str(file))
    found = torch.load(file, weights_only=False)
    assert found["network_weights"].keys() == trainer.network.state_dict().keys()
    assert found["init_args"].keys() == {"plans", "configuration", "fold", "dataset_json", "device"}
    assert found["init_args"]["plans"]["nnunet_dml"] == {"ours": 1}
    assert (found["trainer_name"], found["current_epoch"]) == ("nnUNetTrainer", trainer.current_epoch + 1)
    assert "inference_allowed_mirroring_axes" in found
    trainer.logger.local_logger.my_fantastic_logging["kept"] = []
    trainer.load_checkpoint(str(file))
    assert trainer.logger.get_value("kept", step=-1) == 1
    trainer.current_epoch = 0


def test_debug_json_has_attributes_and_properties_as_text(trainer, monkeypatch):
    """evaluation/training.py."""
    text = '{"seed": 1, "names": ["ä"]}'
    monkeypatch.setattr(type(trainer), "own", property(lambda self: text), raising=False)
    for attribute, value in (("lacking", None), ("num_epochs", 30)):
        monkeypatch.setattr(trainer, attribute, value, raising=False)
    trainer._save_debug_information()
    found = json.loads((Path(trainer.output_folder) / "debug.json").read_text("utf-8"))
    assert (found["own"], found["lacking"], found["num_epochs"]) == (text, "None", "30")
    assert found["output_folder_base"] == str(Path(trainer.output_folder).parent)
    assert "RobustCrossEntropyLoss(" in found["loss"]


def test_deep_supervision_is_a_switch_of_the_decoder(trainer):
    """nnunet/trainers/networks.py, nnunet/segmentation_models.py, nnunet/trainers/semi_supervised.py."""
    images = torch.rand(1, 1, 16, 16)
    for enabled in (False, True):
        trainer.set_deep_supervision_enabled(enabled)
        assert trainer.network.decoder.deep_supervision is enabled
        assert isinstance(trainer.network(images), list) is enabled
    assert trainer._get_deep_supervision_scales() == [[1.0, 1.0], [0.5, 0.5]]
