"""The two views of an unlabelled patch, and CutMix: weak for the teacher, strong for the student.

The weak view is nnU-Net's own augmentation without the intensities. The strong view adds a random number of random
intensity augmentations, also nnU-Net's; both are made where nnU-Net augments, in the loader's workers, and travel as
the two halves of the image's channels. CutMix needs the teacher's confidence and takes place on the device.

Source: Zhao et al., Augmentation Matters (AugSeg), CVPR 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import (
    BrightnessAdditiveTransform,
    MultiplicativeBrightnessTransform,
)
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.noise.sharpen import SharpeningTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from torch import Tensor

BOX = (0.1, 0.5)  # the share of a patch that CutMix cuts in


def intensity_transforms(ignore_axes: tuple[int, ...] | None = None) -> list[BasicTransform]:
    """What the strong view draws from, for channels of mean 0 and deviation 1; each with a strength drawn evenly."""
    factor = BGContrast((0.5, 1.5))
    alike: dict[str, Any] = {"synchronize_channels": False, "p_per_channel": 1}
    return [
        GaussianNoiseTransform(noise_variance=(0, 0.3), **alike),
        # no benchmark: it chooses the algorithm by the clock, and a seeded run would not repeat itself
        GaussianBlurTransform(blur_sigma=(0.5, 1.0), synchronize_axes=False, benchmark=False, **alike),
        SharpeningTransform(strength=(0.1, 1.0)),
        MultiplicativeBrightnessTransform(multiplier_range=factor, **alike),
        BrightnessAdditiveTransform(mu=0, sigma=0.3, **alike),
        ContrastTransform(contrast_range=factor, preserve_range=True, **alike),
        GammaTransform(gamma=BGContrast((0.5, 2.0)), p_invert_image=0, p_retain_stats=1, **alike),
        GammaTransform(gamma=BGContrast((0.5, 2.0)), p_invert_image=1, p_retain_stats=1, **alike),
        SimulateLowResolutionTransform(
            scale=(0.5, 1), synchronize_axes=True, ignore_axes=ignore_axes, allowed_channels=None, **alike
        ),
    ]


class AppendStrongView(BasicTransform):
    """Put a strong view (C, *spatial) behind an image (C, *spatial): 1 to `most` different transforms of it, in any order.

    They see each channel with mean 0 and deviation 1 in the patch, whatever normalisation the plans have.
    """

    def __init__(self, transforms: Sequence[BasicTransform], most: int) -> None:
        """Set what to draw from, and how many at most; 0 leaves the strong view as the weak one."""
        super().__init__()
        self.transforms, self.most = list(transforms), min(most, len(transforms))

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Append it; the image itself is not changed."""
        strong = data_dict["image"].clone()  # nnU-Net's transforms work in place
        if self.most:
            count = np.random.randint(1, self.most + 1)
            axes = tuple(range(1, strong.ndim))
            mean, deviation = strong.mean(axes, keepdim=True), strong.std(axes, correction=0, keepdim=True)
            deviation = torch.where(deviation > 0, deviation, 1)
            strong = (strong - mean) / deviation
            for index in np.random.permutation(len(self.transforms))[:count]:
                strong = self.transforms[index](image=strong)["image"]
            strong = strong * deviation + mean
        data_dict["image"] = torch.cat((data_dict["image"], strong))
        return data_dict


def two_views(
    stock: BasicTransform,
    *,
    most: int,
    masked: Sequence[int],
    channels: int,
    ignore_axes: tuple[int, ...] | None,
) -> BasicTransform:
    """Both views by nnU-Net's augmentation.

    Args:
        stock: nnU-Net's training transforms, without deep supervision and regions.
        most: The greatest number of intensity augmentations of the strong view.
        masked: The channels that nnU-Net sets to 0 outside the image's mask.
        channels: Number of the image's channels.
        ignore_axes: Axes whose resolution stays as it is.

    Returns:
        A transform whose `image` is (2 · channels, *spatial), the weak view first.
    """
    parts = stock.transforms if isinstance(stock, ComposeTransforms) else [stock]
    left_out = (MaskImageTransform, RemoveLabelTansform)  # masked below, in both views
    weak = [part for part in parts if not _changes_intensities(part) and not isinstance(part, left_out)]
    strong = AppendStrongView(intensity_transforms(ignore_axes), most)
    mask = MaskImageTransform([*masked, *(channels + channel for channel in masked)])
    return ComposeTransforms([*weak, strong, mask])


def _changes_intensities(transform: BasicTransform) -> bool:
    inner = transform.transform if isinstance(transform, RandomTransform) else transform
    return isinstance(inner, ImageOnlyTransform)


def random_box(size: Sequence[int], generator: torch.Generator | None = None) -> tuple[slice, ...]:
    """A box with a share of the volume drawn evenly from `BOX`, of random proportions and place.

    Args:
        size: The spatial shape.
        generator: Of random numbers; None is torch's own.
    """
    dimensions = len(size)
    share, *rest = torch.rand(1 + 2 * dimensions, generator=generator).tolist()
    share = BOX[0] + (BOX[1] - BOX[0]) * share
    weights = [-math.log(max(it, 1e-6)) for it in rest[:dimensions]]  # evenly from the simplex
    box = []
    for n, weight, place in zip(size, weights, rest[dimensions:], strict=True):
        side = max(1, round(n * share ** (weight / sum(weights))))
        start = int(place * (n - side + 1))
        box.append(slice(start, start + side))
    return tuple(box)


def cutmix(
    unlabelled: Sequence[Tensor],
    labelled: Sequence[Tensor],
    confidence: Tensor,
    *,
    probability: float,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Adaptive CutMix: cut a box of another sample into each sample, image and labels alike.

    With `probability` a sample is mixed at all. Then it gets a labelled sample's box with probability 1 − confidence,
    so that what the teacher does not know is trained with labels, otherwise the box of the next unlabelled sample.

    Args:
        unlabelled: Images, pseudo-labels, …: tensors (U, C_i, *spatial). They are not changed.
        labelled: The same of labelled samples, (L, C_i, *spatial).
        confidence: (U,) in [0, 1], of the teacher.
        probability: In [0, 1].
        generator: Of random numbers, on the CPU; None is torch's own.

    Returns:
        Tensors as `unlabelled`. Nothing waits for the device: what to do is drawn on the CPU but for the comparison
        with the confidence.
    """
    count, samples = len(confidence), len(labelled[0])
    mixing, injecting = torch.rand(2, count, generator=generator)
    from_labelled = injecting.to(confidence.device, non_blocking=True) >= confidence
    donors = torch.randint(samples, (count,), generator=generator).tolist()
    mixed = [tensor.clone() for tensor in unlabelled]
    for i in range(count):
        box = random_box(unlabelled[0].shape[2:], generator)
        if mixing[i] >= probability:
            continue
        for out, own, theirs in zip(mixed, unlabelled, labelled, strict=True):
            region = (slice(None), *box)
            neighbour = own[(i + 1) % count][region]
            out[i][region] = torch.where(from_labelled[i], theirs[donors[i]][region].to(own.dtype), neighbour)
    return mixed
