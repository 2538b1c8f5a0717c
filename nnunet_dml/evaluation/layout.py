"""Classes that exclude one another, and regions that may overlap, in the one form that the metrics take.

A model's channels become a batch `(B, C, N)`: of classes B is 1; of R regions B is R and C is 2, each region a case of
its own against its complement, so that what is counted over the batch is pooled over the regions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml.evaluation.dataset import RawDataset
from nnunet_dml.evaluation.npz_files import Slabs
from nnunet_dml.metrics import complements

Array = npt.NDArray[Any]


class Layout:
    """How the arrays of a dataset's cases become batches. N are some voxels."""

    def __init__(self, dataset: RawDataset) -> None:
        self.regions = bool(dataset.regions)
        self.foreground = dataset.foreground
        self.order = dataset.regions_class_order
        self.values = dataset.labels
        size = 1 + max(dataset.label_values)
        self.inside = np.zeros((len(dataset.members), size), dtype=np.bool_)
        """`(K, labels)`: which labels belong to each foreground class or region."""
        for k, members in enumerate(dataset.members):
            self.inside[k, list(members)] = True

    def probs(self, values: Array) -> torch.Tensor:
        """`(B, C, N)` from a model's channels, `(channels, N)`."""
        tensor = torch.from_numpy(values)
        return complements(tensor) if self.regions else tensor[None]

    def labels(self, values: Array) -> torch.Tensor:
        """`(B, N)` from a label map, `(N,)`."""
        found = self.inside[:, values].view(np.uint8) if self.regions else values[None]
        return torch.from_numpy(np.ascontiguousarray(found))

    def soft(self, values: Array) -> torch.Tensor:
        """`(B, C, N)` from the fractions of each label, `(labels, N)`, background first."""
        if not self.regions:
            return torch.from_numpy(values)[None]
        inside = self.inside[:, : len(values)]
        sums = np.stack([values[row].sum(0, dtype=np.float32) for row in inside])
        return complements(torch.from_numpy(np.minimum(sums, 1)))

    def masks(self, values: Array) -> torch.Tensor:
        """Boolean `(K, N)`, a mask per foreground class or region, from a label map `(N,)`."""
        return torch.from_numpy(np.stack([row[values] for row in self.inside]))

    def segmentation(self, probs: Slabs) -> npt.NDArray[np.integer[Any]]:
        """nnU-Net's segmentation of `(channels, z, y, x)`.

        The class of the greatest probability, the lowest on ties; of regions the label of `regions_class_order` where
        a probability exceeds 0.5, later regions over earlier ones.
        """
        found = np.zeros(probs.shape[1:], dtype=np.uint8 if self.inside.shape[1] <= 256 else np.int32)
        for labels, channels in zip(found, probs.slices(), strict=True):
            if self.regions:
                for label, values in zip(self.order, channels, strict=True):
                    np.putmask(labels, values > 0.5, label)
                continue
            greatest = channels[0]
            for c in range(1, len(channels)):
                better = channels[c] > greatest
                if better.any():
                    np.putmask(labels, better, c)
                    greatest = np.maximum(greatest, channels[c])
        return found

    def sure_background(self, probs: list[Array], least: float) -> npt.NDArray[np.bool_]:
        """`(N,)`: where a model's channels leave less than `1 − least` to anything but the background."""
        if not self.regions:
            return np.greater_equal(probs[0], np.float32(least))
        sure = probs[0] <= np.float32(1 - least)
        for values in probs[1:]:
            sure &= values <= np.float32(1 - least)
        return sure
