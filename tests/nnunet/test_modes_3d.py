"""Soft labels in nnU-Net's modes, 3D: anisotropic volumes, low resolution, cascade, Primus."""

from __future__ import annotations

import blosc2
import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.primus import Primus
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.primus.primus_trainers import AbstractPrimus

from nnunet_dml.nnunet.trainers import nnUNetTrainerDML
from tests.conftest import set_folders
from tests.nnunet import mode_helpers as here
from tests.nnunet.mode_helpers import batches, disc, reaching_the_loss, trainer_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # nnU-Net's own code warns

DATASET = "Dataset920_Thick"
SHAPE, SPACING = (24, 32, 8), (1.0, 1.0, 5.0)  # nnU-Net moves the thick axis to the front


def masks_of(number: int) -> dict[str, np.ndarray]:
    masks = {}
    for rater, grow in (("a", 0.0), ("b", 0.15), ("c", 0.3)):
        mask = np.zeros(SHAPE, np.uint8)
        mask[disc(SHAPE, 0.5 + grow, (0.1 * number - 0.2, 0.1, 0.1))] = 1
        mask[disc(SHAPE, 0.3 + grow, (0.1 * number - 0.2, 0.1, 0.1))] = 2
        masks[rater] = mask
    return masks


def by_hand(masks: dict[str, np.ndarray]) -> np.ndarray:
    """(3, z, y, x) fractions in nnU-Net's order of axes."""
    stack = np.stack(list(masks.values())).transpose(0, 3, 1, 2)
    return np.stack([(stack == c).mean(0) for c in range(3)])


@pytest.fixture(scope="module")
def thick(tmp_path_factory):
    """Five volumes of two channels; nnU-Net's plans with a low resolution and a cascade, which it gives to large ones.

    The second channel is, but for the noise, the raters' mean of the foreground.
    """
    with pytest.MonkeyPatch.context() as patch:
        folders = set_folders(patch, tmp_path_factory.mktemp("thick"))
        folders.masks = {f"case{i}": masks_of(i) for i in range(5)}
        noise = np.random.default_rng(0)
        images, consensus = {}, {}
        for case, masks in folders.masks.items():
            stack = np.stack(list(masks.values()))
            images[case] = [
                (100 + 40 * stack.mean(0) + noise.normal(0, 5, SHAPE)).astype(np.float32),
                (100 + 40 * (stack > 0).mean(0)).astype(np.float32),
            ]
            consensus[case] = np.median(stack, 0).astype(np.uint8)
        labels = {"background": 0, "rim": 1, "core": 2}
        here.write_raw(folders.raw / DATASET, images, folders.masks, consensus, labels, spacing=SPACING)
        here.plan(920)
        here.edit_json(folders.preprocessed / DATASET / "nnUNetPlans.json", add_cascade)
        here.preprocess(920, ["3d_fullres", "3d_lowres"])
        here.configure(920, "tiny", "labels.source=uniform")
        here.configure(920, "flat", "labels.source=uniform", "loss.deep_supervision=false")
        yield folders


def add_cascade(plans: dict) -> None:
    configurations = plans["configurations"]
    full = configurations["3d_fullres"]
    configurations["3d_lowres"] = {
        **full,
        "data_identifier": "nnUNetPlans_3d_lowres",
        "spacing": [5.0, 2.0, 2.0],
        "patch_size": [8, 16, 16],
        "batch_dice": False,
        "next_stage": "3d_cascade_fullres",
    }
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}


def test_anisotropic_volumes(thick):
    """Two channels, transposed axes, augmentation in planes."""
    trainer = trainer_for(920, "3d_fullres", "tiny")
    assert trainer.plans_manager.transpose_forward == [2, 0, 1]
    assert trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[1], "dummy 2D augmentation"
    for batch in batches(trainer, 3):
        assert batch["data"].shape[1] == 2
        target, mask = reaching_the_loss(trainer, batch)[0]
        assert mask is None
        for case, found in zip(batch["keys"], target, strict=True):
            np.testing.assert_allclose(found, by_hand(thick.masks[case]), atol=2 / 255)


def test_the_augmented_fractions_go_with_the_image_in_planes(thick):
    """The second channel is linear in the foreground's fraction: so it is after every spatial transform."""
    trainer = trainer_for(920, "3d_fullres", "tiny")
    ours = trainer.dataloader_train.data_loader.transforms.transforms
    stock = next(it for it in ours if hasattr(it, "transforms"))
    stock.transforms = [
        it for it in stock.transforms if type(it).__name__ not in ("RandomTransform", "MaskImageTransform")
    ]
    names = [type(it).__name__ for it in stock.transforms]
    assert names[:3] == ["Convert3DTo2DTransform", "SpatialTransform", "Convert2DTo3DTransform"]
    stock.transforms[1].p_rotation = stock.transforms[1].p_scaling = 1
    for _ in range(3):
        batch = next(trainer.dataloader_train)
        fractions = trainer.layout.soft(batch["target"])[0]
        for image, found in zip(batch["data"][:, 1].numpy(), 1 - fractions[:, 0].numpy(), strict=True):
            inside = found > 0.02  # outside the volume the image is 0, which is its mean
            assert ((found > 0.02) & (found < 0.98)).any()
            assert np.corrcoef(image[inside], found[inside])[0, 1] > 0.999


def test_the_low_resolution_interpolates_fractions(thick):
    """At twice the spacing a voxel's centre lies between four: their mean."""
    trainer = trainer_for(920, "3d_lowres", "tiny")
    assert not trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[1]
    (batch,) = batches(trainer)
    target, _ = reaching_the_loss(trainer, batch)[0]
    assert list(target.shape[2:]) == [8, 16, 16]
    for case, found in zip(batch["keys"], target.numpy(), strict=True):
        expected = by_hand(thick.masks[case]).reshape(3, 8, 12, 2, 16, 2).mean((3, 5))
        assert ((expected > 0.01) & (expected < 0.99)).any()
        np.testing.assert_allclose(found[:, :, :12], expected, atol=2 / 255)
        assert (found[0, :, 12:] == 1).all(), "padding is background"


def test_cascade(thick):
    """Low resolution of all cases, then the cascade: image, previous stage and fractions side by side."""
    here.train(920, "3d_lowres", "tiny", fold="all")
    model = thick.results / DATASET / "nnUNetTrainerDML__tiny__3d_lowres"
    previous = model / "predicted_next_stage" / "3d_cascade_fullres"
    assert sorted(path.stem for path in previous.glob("*.b2nd")) == sorted(thick.masks)
    before = {}
    for number, case in enumerate(
        sorted(thick.masks)
    ):  # what two iterations have learnt would be all background
        shape = blosc2.open(str(previous / f"{case}.b2nd"), mode="r").shape
        assert shape == (8, 24, 32)
        before[case] = np.random.default_rng(number).integers(0, 3, shape).astype(np.uint8)
        nnUNetDatasetBlosc2.save_seg(before[case], str(previous / case))
    trainer = trainer_for(920, "3d_cascade_fullres", "tiny", fold="all")
    for batch in batches(trainer, 2):
        assert batch["data"].shape[1] == 2 + 2
        target, _ = reaching_the_loss(trainer, batch)[0]
        for number, case in enumerate(batch["keys"]):
            np.testing.assert_allclose(target[number], by_hand(thick.masks[case]), atol=2 / 255)
            one_hot = np.stack([before[case] == 1, before[case] == 2])
            np.testing.assert_array_equal(batch["data"][number, 2:], one_hot)
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
    here.train(920, "3d_cascade_fullres", "tiny", fold="all", export_validation_probabilities=True)
    here.train(920, "3d_cascade_fullres", "tiny", fold="all", only_run_validation=True)
    validation = (
        thick.results / DATASET / "nnUNetTrainerDML__tiny__3d_cascade_fullres" / "fold_all" / "validation"
    )
    assert len(list(validation.glob("*.npz"))) == 5


class TinyPrimus(AbstractPrimus):
    """As nnU-Net's trainers of Primus, but small."""

    @staticmethod
    def build_network_architecture(
        plans_manager,
        configuration_manager,
        num_input_channels,
        num_output_channels,
        enable_deep_supervision=True,
    ):
        return Primus(
            num_input_channels, 24, (8, 8, 8), num_output_channels, 1, 2, configuration_manager.patch_size
        )


class PrimusDML(nnUNetTrainerDML, TinyPrimus):
    """How a trainer of nnU-Net with a network of its own gets soft labels."""


def primus(folders, plans):
    content = here.read_json(folders.preprocessed / DATASET / f"{plans}.json")
    described = here.read_json(folders.preprocessed / DATASET / "dataset.json")
    return PrimusDML({**content, "continue_training": False}, "3d_fullres", 0, described, here.CPU)


def test_a_trainer_of_primus_takes_soft_labels(thick, monkeypatch):
    trainer = primus(thick, "flat")
    assert trainer.initial_lr == 3e-4  # Primus' own, as the plans say nothing
    trainer.initialize()
    trainer.on_train_start()
    (batch,) = batches(trainer)
    with torch.no_grad():
        output = trainer.network(batch["data"])
    ((target, _),) = reaching_the_loss(trainer, batch)
    assert output.shape == target.shape
    for case, found in zip(batch["keys"], target, strict=True):
        np.testing.assert_allclose(found, by_hand(thick.masks[case]), atol=2 / 255)
    assert np.isfinite(trainer.train_step(batch)["loss"])
    trainer.set_deep_supervision_enabled(False)  # nnU-Net does so before it validates
    with here.threads_for_processes():
        trainer.perform_actual_validation()


def test_primus_with_deep_supervision_is_refused(thick, capsys):
    with pytest.raises(SystemExit) as stop:
        primus(thick, "tiny").initialize()
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "expected a network with deep supervision, found Primus without" in message
    assert "loss.deep_supervision=false" in message
