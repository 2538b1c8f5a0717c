"""The way of soft labels through nnU-Net's augmentation.

Between `UnpackSoftLabels` and `PackTargets` stand nnU-Net's own transforms, unchanged: they know a float target as
`regression_target`, move it with the image (linear interpolation, zeros outside) and leave its values alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms


class UnpackSoftLabels(BasicTransform):
    """Part `segmentation` = [labels, soft channels …, previous stage …] into `segmentation` and `regression_target`.

    The soft channels become float32 fractions; what the loader padded with −1 becomes 0, which is background.
    """

    def __init__(self, scales: Sequence[int]) -> None:
        """Set the integer that stands for 1.0 in each of the soft channels."""
        super().__init__()
        self.scales = torch.tensor(scales, dtype=torch.float32)

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Part the channels."""
        packed = data_dict["segmentation"]
        end = 1 + len(self.scales)
        scales = self.scales.view(-1, *[1] * (packed.ndim - 1))
        data_dict["regression_target"] = packed[1:end].float().clamp_(min=0).div_(scales)
        labels, previous = packed[:1], packed[end:]
        data_dict["segmentation"] = torch.cat((labels, previous)) if len(previous) else labels
        return data_dict


class PackTargets(BasicTransform):
    """Join `regression_target` and `segmentation` into the one float target that nnU-Net's loader collates.

    The result is `segmentation`, float32: the soft channels, then the labels (one channel, or one per region).
    """

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Join the channels."""
        soft = data_dict.pop("regression_target").clamp_(0, 1)
        data_dict["segmentation"] = torch.cat((soft, data_dict["segmentation"].float()))
        return data_dict


def with_soft_labels(transforms: BasicTransform, scales: Sequence[int]) -> BasicTransform:
    """nnU-Net's transforms (built without deep supervision) with the packing around them; see `UnpackSoftLabels`."""
    return ComposeTransforms([UnpackSoftLabels(scales), transforms, PackTargets()])
