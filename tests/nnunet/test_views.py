"""Weak and strong views, CutMix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_dml.nnunet.views import (
    BOX,
    AppendStrongView,
    cutmix,
    intensity_transforms,
    random_box,
    two_views,
)

SHAPES = [(24, 20), (16, 12, 20)]


def seed(number=0):
    np.random.seed(number)
    torch.manual_seed(number)


def image_of(shape, channels=2):
    return torch.randn(channels, *shape, generator=torch.Generator().manual_seed(1))


class Note(ImageOnlyTransform):
    """Adds a power of ten, so that the sum tells which were applied, and how often."""

    def __init__(self, power):
        super().__init__()
        self.power = power

    def _apply_to_image(self, img, **params):
        return img.add_(10**self.power)


@pytest.mark.parametrize("shape", SHAPES)
class TestStrongView:
    def test_the_weak_half_is_the_image_which_is_not_changed(self, shape):
        seed()
        image = image_of(shape)
        before = image.clone()
        for _ in range(20):
            both = AppendStrongView(intensity_transforms(), 3)(image=image)["image"]
            assert both.shape == (4, *shape)
            assert torch.equal(both[:2], before)
            assert not torch.equal(both[2:], before)
            assert torch.isfinite(both).all()
        assert torch.equal(image, before)

    def test_a_seed_repeats_it(self, shape):
        image, views = image_of(shape), []
        for number in (3, 3, 4):
            seed(number)
            views.append(torch.stack([AppendStrongView(intensity_transforms(), 3)(image=image)["image"] for _ in range(5)]))  # fmt: skip
        assert torch.equal(views[0], views[1])
        assert not torch.equal(views[0], views[2])

    def test_every_transform_changes_the_image(self, shape):
        seed()
        for transform in intensity_transforms():
            image = image_of(shape)
            assert not torch.equal(transform(image=image.clone())["image"], image), transform


@pytest.mark.parametrize(("scale", "shift"), [(400.0, -100.0), (1 / 256, 0.5)])
def test_the_strength_follows_a_channels_deviation(scale, shift):
    """As for CT without normalisation, or RGB in [0, 1]."""
    image = image_of((16, 16))
    for number in range(10):
        views = []
        for it in (image, scale * image + shift):
            seed(number)
            views.append(AppendStrongView(intensity_transforms(), 3)(image=it)["image"][2:])
        assert torch.allclose(views[1], scale * views[0] + shift, rtol=1e-3, atol=2e-3 * scale)


def test_a_channel_of_one_value_stays_finite():
    seed()
    image = torch.full((2, 8, 8), 7.0)
    assert torch.isfinite(AppendStrongView(intensity_transforms(), 3)(image=image)["image"]).all()


def test_one_to_most_different_transforms_are_applied():
    seed()
    notes = [Note(power) for power in range(4)]
    sums = [
        int(AppendStrongView(notes, 3)(image=torch.zeros(1, 1, 1, dtype=torch.float64))["image"][1].item())
        for _ in range(300)
    ]
    digits = [f"{number:04d}" for number in sums]
    assert {digit for number in digits for digit in number} == {"0", "1"}
    counts = [number.count("1") for number in digits]
    assert all(60 < counts.count(n) < 140 for n in (1, 2, 3))
    assert all(120 < sum(number[i] == "1" for number in digits) < 180 for i in range(4))


def test_without_intensities_both_views_are_the_same():
    image = image_of((8, 8))
    both = AppendStrongView(intensity_transforms(), 0)(image=image)["image"]
    assert torch.equal(both[:2], both[2:])


@pytest.mark.parametrize("dummy_2d", [False, True])
def test_nnunets_intensities_are_left_out_of_the_weak_view(dummy_2d):
    """Values of a weak view are the image's: rotations apart, which are switched off here."""
    seed()
    stock = nnUNetTrainer.get_training_transforms(
        (4, 16, 16), (0, 0), None, (0, 1, 2), dummy_2d, use_mask_for_norm=[False, False]
    )
    views = two_views(stock, most=3, masked=[], channels=2, ignore_axes=None)
    for part in views.transforms:
        if hasattr(part, "p_rotation"):
            part.p_rotation = part.p_scaling = 0
    image = image_of((4, 16, 16))
    for _ in range(20):
        out = views(image=image.clone(), segmentation=torch.zeros(1, 4, 16, 16, dtype=torch.int16))
        weak = out["image"][:2]
        torch.testing.assert_close(weak.flatten(1).sort().values, image.flatten(1).sort().values)
        assert not torch.equal(weak, out["image"][2:])


def test_outside_the_mask_both_views_of_masked_channels_are_zero():
    seed()
    inside = torch.zeros(1, 8, 8, dtype=torch.int16)
    inside[:, :3] = -1
    stock = ComposeTransforms([MirrorTransform((0,))])
    views = two_views(stock, most=3, masked=[1], channels=2, ignore_axes=None)
    for _ in range(10):
        out = views(image=torch.ones(2, 8, 8) + image_of((8, 8)), segmentation=inside.clone())
        outside = out["segmentation"][0] < 0
        assert outside.sum() == 24
        assert (out["image"][[1, 3]][:, outside] == 0).all()
        assert (out["image"][[0, 2]][:, outside] != 0).any(1).all()


def test_a_single_transform_is_as_good_as_several():
    out = two_views(MirrorTransform((0,)), most=0, masked=[], channels=1, ignore_axes=None)(
        image=image_of((4, 4), 1), segmentation=torch.zeros(1, 4, 4, dtype=torch.int16)
    )
    assert out["image"].shape == (2, 4, 4)
    bright = MultiplicativeBrightnessTransform((5, 5), synchronize_channels=True)
    assert isinstance(bright, BasicTransform)
    out = two_views(bright, most=0, masked=[], channels=1, ignore_axes=None)(
        image=torch.ones(1, 4, 4), segmentation=torch.zeros(1, 4, 4, dtype=torch.int16)
    )
    assert (out["image"] == 1).all()


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(0, 2**31))
def test_a_box_lies_in_the_patch(size, number):
    box = random_box(size, torch.Generator().manual_seed(number))
    assert all(0 <= part.start < part.stop <= n for part, n in zip(box, size, strict=True))


@pytest.mark.parametrize("size", [(200, 200), (64, 64, 64)])
def test_boxes_have_all_shares_and_proportions(size):
    generator = torch.Generator().manual_seed(0)
    sides = np.array([[it.stop - it.start for it in random_box(size, generator)] for _ in range(400)])
    shares = sides.prod(1) / np.prod(size)
    assert BOX[0] * 0.8 < shares.min() < 0.15
    assert 0.45 < shares.max() < BOX[1] * 1.2
    assert abs(shares.mean() - 0.3) < 0.02
    assert (sides[:, 0] > 2 * sides[:, 1]).mean() == pytest.approx(
        (sides[:, 1] > 2 * sides[:, 0]).mean(), abs=0.1
    )


def numbered(count, first, shape, channels=1):
    """Samples whose voxels are all their own number."""
    numbers = torch.arange(first, first + count, dtype=torch.float32)
    return numbers.view(-1, 1, *[1] * len(shape)).expand(count, channels, *shape).clone()


class TestCutmix:
    def mixed(self, confidence, probability=1.0, shape=(16, 12), labelled=2, number=0):
        """Unlabelled images 1, 2, …, their labels 10 higher, all valid; labelled ones −1, 0, not valid."""
        unlabelled = numbered(len(confidence), 1, shape, 2)
        own = (unlabelled, unlabelled[:, :1] + 10, torch.ones(len(confidence), 1, *shape, dtype=torch.bool))
        theirs_image = numbered(labelled, -1, shape, 2)
        theirs = (theirs_image, theirs_image[:, :1] + 10, torch.zeros(labelled, 1, *shape, dtype=torch.bool))
        before = [it.clone() for it in (*own, *theirs)]
        out = cutmix(
            own, theirs, torch.tensor(confidence), probability=probability,
            generator=torch.Generator().manual_seed(number),
        )  # fmt: skip
        assert all(torch.equal(a, b) for a, b in zip((*own, *theirs), before, strict=True))
        return own, out

    @pytest.mark.parametrize("shape", [(16, 12), (8, 10, 6)])
    def test_image_and_labels_are_mixed_alike(self, shape):
        (own, *_), (image, labels, valid) = self.mixed([0.5] * 8, shape=shape)
        assert torch.equal(image[:, :1], image[:, 1:])
        assert torch.equal(image[:, :1] + 10, labels)
        changed = image != own
        assert changed.flatten(1).any(1).all()
        assert not changed.flatten(1).all(1).any()
        assert [it.dtype for it in (image, labels, valid)] == [torch.float32, torch.float32, torch.bool]
        assert torch.equal(valid, image[:, :1] > 0)
        assert not valid.all()

    def test_what_the_teacher_does_not_know_is_cut_from_labelled_samples(self):
        _, (image, *_) = self.mixed([0.0, 0.0, 0.0])
        for own, sample in zip((1, 2, 3), image, strict=True):
            foreign = sample[sample != own].unique()
            assert len(foreign) == 1
            assert foreign.item() in (-1, 0)

    def test_what_it_knows_from_the_next_unlabelled_one(self):
        _, (image, _, valid) = self.mixed([1.0, 1.0, 1.0])
        for own, sample in zip((1, 2, 3), image, strict=True):
            assert sample.unique().tolist() == sorted({own, own % 3 + 1})
        assert valid.all()

    def test_a_box_is_one_box(self):
        _, (image, *_) = self.mixed([0.0], shape=(20, 30))
        rows, columns = torch.nonzero(image[0, 0] != 1, as_tuple=True)
        area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert area == len(rows)

    def test_a_single_sample_that_is_known_stays(self):
        (own, *_), (image, *_) = self.mixed([1.0])
        assert torch.equal(own, image)

    def test_without_probability_nothing_is_mixed(self):
        (own, *_), (image, *_) = self.mixed([0.0] * 5, probability=0.0)
        assert torch.equal(own, image)

    def test_probability_and_confidence_are_shares(self):
        (own, *_), (image, *_) = self.mixed([0.7] * 4000, probability=0.5, shape=(6, 6))
        touched = (image != own).flatten(1).any(1).float().mean()
        injected = (image <= 0).flatten(1).any(1).float().mean()
        assert touched == pytest.approx(0.5, abs=0.03)
        assert injected / touched == pytest.approx(0.3, abs=0.03)

    def test_a_seed_repeats_it(self):
        first, again, other = (self.mixed([0.5] * 6, number=number)[1][0] for number in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
