"""Fractions on their way through nnU-Net's loader and augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import save_pickle
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_dml.labels.storage import save_soft_map
from nnunet_dml.nnunet.dataset import SoftLabelDataset, StackedChannels
from nnunet_dml.nnunet.soft_maps import SCALE
from nnunet_dml.nnunet.targets import TargetLayout
from nnunet_dml.nnunet.transforms import PackTargets, UnpackSoftLabels, with_soft_labels

LAYOUT = TargetLayout(foreground=2, regions=None, ignore_label=None)
SHAPE = {2: (1, 24, 20), 3: (12, 16, 20)}


def ramp(shape):
    """Two classes whose fractions differ at every voxel: multiples of 1/255, sums at most 1."""
    steps = np.arange(np.prod(shape)).reshape(shape)
    return np.stack([steps % 128, (steps // 7) % 128]).astype(np.float32) / 255


@pytest.fixture(params=[2, 3])
def case(request, tmp_path):
    """A preprocessed case with soft maps; image = the first class's fraction, labels = where it is above 0.25."""
    shape = SHAPE[request.param]
    maps = ramp(shape)
    labels = (maps[0] > 0.25).astype(np.int16)
    coordinates = np.argwhere(labels[None] > 0)
    properties = {"class_locations": {1: coordinates, 2: []}}
    (tmp_path / "hard").mkdir()
    (tmp_path / "soft").mkdir()
    nnUNetDatasetBlosc2.save_case(
        maps[:1],
        labels[None],
        properties,
        str(tmp_path / "hard" / "a"),
        chunks=(1, *shape),
        blocks=(1, *shape),
    )
    save_pickle(properties, str(tmp_path / "hard" / "a.pkl"))
    save_soft_map(tmp_path / "soft" / "a.b2nd", maps, metadata={})
    dataset = SoftLabelDataset(nnUNetDatasetBlosc2(str(tmp_path / "hard")), tmp_path / "soft")
    return request.param, maps, labels, dataset


def loader(dataset, patch, transforms):
    manager = LabelManager({"background": 0, "a": 1, "b": 2}, None)
    return nnUNetDataLoader(dataset, 1, patch, patch, manager, transforms=transforms)


def test_the_loaders_patch_holds_the_fractions_of_the_map(case):
    dim, maps, labels, dataset = case
    patch = SHAPE[dim][-dim:]
    packing = with_soft_labels(nnUNetTrainer.get_validation_transforms(None), [SCALE] * 2)
    batch = next(loader(dataset, patch, packing))
    target = batch["target"][0].numpy()
    assert target.dtype == np.float32
    expected = maps[:, 0] if dim == 2 else maps
    np.testing.assert_allclose(target[:2], expected, atol=1e-6)
    np.testing.assert_array_equal(target[2], labels[0] if dim == 2 else labels)


def test_padding_is_background(case):
    dim, maps, _, dataset = case
    patch = tuple(n + 8 for n in SHAPE[dim][-dim:])
    batch = next(
        loader(dataset, patch, with_soft_labels(nnUNetTrainer.get_validation_transforms(None), [SCALE] * 2))
    )
    fractions, labels = LAYOUT.soft(batch["target"])[0], LAYOUT.hard_of_packed(batch["target"])
    inside = (slice(None), slice(None), *[slice(4, -4)] * dim)
    outside = torch.ones_like(labels, dtype=torch.bool)
    outside[inside] = False
    assert (fractions[:, :1][outside] == 1).all()
    assert (labels[outside] == 0).all()
    np.testing.assert_allclose(fractions[inside][0, 1:].sum().item(), maps.sum(), rtol=1e-5)
    torch.testing.assert_close(fractions.sum(1), torch.ones_like(fractions.sum(1)))


@pytest.mark.parametrize("dummy_2d", [False, True])
def test_the_augmented_fractions_go_with_the_image(case, dummy_2d):
    """The image *is* the first class's fraction: after every spatial transform both must still agree.

    The intensity transforms, which would change the image alone, are left out by choosing the spatial ones.
    """
    dim, _, _, dataset = case
    if dummy_2d and dim == 2:
        pytest.skip("dummy 2D augmentation is for 3D patches")
    patch = SHAPE[dim][-dim:]
    stock = nnUNetTrainer.get_training_transforms(
        patch, (-3.0, 3.0), None, tuple(range(dim)), dummy_2d, use_mask_for_norm=[False]
    )
    spatial = (
        "SpatialTransform",
        "MirrorTransform",
        "Convert3DTo2DTransform",
        "Convert2DTo3DTransform",
        "RemoveLabelTransform",
    )
    stock.transforms = [t for t in stock.transforms if type(t).__name__ in spatial]
    moved = next(t for t in stock.transforms if type(t).__name__ == "SpatialTransform")
    moved.p_rotation = moved.p_scaling = 1
    np.random.seed(0)
    batches = loader(dataset, patch, with_soft_labels(stock, [SCALE] * 2))
    changed = 0
    for _ in range(5):
        batch = next(batches)
        target = batch["target"][0]
        torch.testing.assert_close(target[0], batch["data"][0, 0], atol=2e-3, rtol=0)
        assert ((target[:2] > 0) & (target[:2] < 1)).float().mean() > 0.2
        assert target[:2].sum(0).max() <= 1 + 1e-5
        changed += not torch.equal(target[2], target[2].clone().fill_(0))
    assert changed


def test_the_previous_stage_stays_a_segmentation_channel():
    packed = torch.arange(4 * 6).reshape(4, 2, 3).to(torch.int16)
    parted = UnpackSoftLabels([SCALE] * 2)(image=torch.zeros(1, 2, 3), segmentation=packed.clone())
    assert parted["segmentation"].tolist() == packed[[0, 3]].tolist()
    assert torch.equal(parted["regression_target"], packed[1:3].float() / SCALE)


def test_packing_clips_what_interpolation_overshot():
    packed = PackTargets()(
        image=torch.zeros(1, 1, 2),
        regression_target=torch.tensor([[[-0.1, 1.1]]]),
        segmentation=torch.tensor([[[0, 1]]]),
    )
    assert packed["segmentation"].tolist() == [[[0.0, 1.0]], [[0.0, 1.0]]]


def test_stacked_channels_read_as_one_array():
    first, second = np.arange(24).reshape(1, 2, 3, 4), np.arange(48, dtype=np.uint8).reshape(2, 2, 3, 4)
    stacked = StackedChannels(first, second)
    assert stacked.shape == (3, 2, 3, 4)
    region = (slice(None), slice(0, 1), slice(1, 3), slice(2, 4))
    np.testing.assert_array_equal(stacked[region], np.concatenate([first, second])[region])
    with pytest.raises(IndexError, match="channels"):
        stacked[0:1]
    with pytest.raises(ValueError, match="spatial shape"):
        StackedChannels(first, second[:, :1])
