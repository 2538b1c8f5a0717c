"""A bounded sample of the voxels of many cases, on which calibrators are fitted and compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nnunet_dml._checks import check_same_shape
from nnunet_dml.calibration.batch import channel_groups
from nnunet_dml.calibration.calibrators import Rows
from nnunet_dml.calibration.kde import two_columns
from nnunet_dml.calibration.keys import greatest
from nnunet_dml.calibration.reservoir import Reservoir

SURE = 0.99
_CHUNK = 2**22  # voxels that are offered at a time


class VoxelSample:
    """Voxels of case after case; of each stratum a uniform sample of at most `size`, and how many it stands for.

    The strata of a class are its voxels that are predicted right with more than 0.99, and all others: in a large volume
    nearly every voxel of a plain sample would be background far from anything. Weighted means over the rows are
    unbiased estimates of means over all voxels. What is kept does not grow with the number of cases.
    """

    def __init__(self, *, size: int = 10_000, independent: bool = False, seed: int = 0) -> None:
        """Start empty.

        Args:
            size: Voxels that are kept of each stratum; there are two per class (regions: four per region).
            independent: The channels are regions, each sampled for itself.
            seed: Of the draw: the same cases in the same order give the same sample. Samples that will be merged need
                different seeds.

        Raises:
            ValueError: `size` below 1 or a negative `seed`.
        """
        for name, value, least in (("size", size, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"Expected argument `{name}` to be at least {least}, got {value}.")
        self.size, self.independent, self.seed = size, independent, seed
        self.updates = 0
        self._reservoirs: list[Reservoir] = []

    @property
    def voxels(self) -> int:
        """How many voxels were seen."""
        return int(self._reservoirs[0].seen.sum()) if self._reservoirs else 0

    @property
    def channels(self) -> int | None:
        """C of what was seen; None before anything was."""
        if not self._reservoirs:
            return None
        return len(self._reservoirs) if self.independent else self._reservoirs[0].probs.shape[1]

    def update(self, probs: Tensor, labels: Tensor, *, mask: Tensor | None = None) -> None:
        """Offer the voxels of a case (or of several).

        Args:
            probs: (B, C, *spatial), floating, in [0, 1]; C the same at every call.
            labels: (B, C, *spatial), floating: one-hot or fractions; the class of a voxel is that of the
                greatest (a region's: whether it is above 0.5).
            mask: (B, 1, *spatial), bool or 0/1: the voxels that count.

        Raises:
            ValueError: A wrong shape or another number of classes.
            TypeError: `probs` or `labels` is not floating.
        """
        self._check(probs, labels, mask)
        groups = channel_groups(probs.shape[1], self.independent)
        if not self._reservoirs:
            columns = 1 if self.independent else probs.shape[1]
            self._reservoirs = [Reservoir.empty(columns, 2 * max(2, columns)) for _ in groups]
        state = np.random.SeedSequence([self.seed, self.updates]).generate_state(1)
        random = torch.Generator().manual_seed(int(state[0]))
        flat = [it.detach().flatten(2) for it in (probs, labels)]
        kept = None if mask is None else mask.bool().flatten(2)
        for image in range(len(probs)):
            for start in range(0, flat[0].shape[2], _CHUNK):
                here = slice(image, image + 1), slice(None), slice(start, start + _CHUNK)
                p, y = (it[here] for it in flat)
                for reservoir, group in zip(self._reservoirs, groups, strict=True):
                    strata = _strata(p[:, group], y[:, group], independent=self.independent)
                    if kept is not None:
                        strata = torch.where(kept[here][:, 0], strata, len(reservoir.seen))
                    reservoir.offer(p[:, group], y[:, group], strata, self.size, random)
        self.updates += 1

    def rows(self, number: int | None = None) -> list[Rows]:
        """What was kept: one table, or one per region, of two columns (against, for).

        Args:
            number: About how many rows, equally many of each stratum; all by default.

        Raises:
            ValueError: Nothing was seen yet.
        """
        if not self._reservoirs:
            raise ValueError("Expected voxels: call `update` first.")
        tables = []
        for reservoir in self._reservoirs:
            probs, labels, weights = reservoir.keys(
                len(reservoir.classes) * len(reservoir.seen) if number is None else number
            )
            if self.independent:
                probs, labels = two_columns(probs[:, 0]), two_columns(labels[:, 0])
            tables.append(Rows(probs, labels, weights.double()))
        return tables

    @classmethod
    def merged(cls, samples: Sequence[VoxelSample]) -> VoxelSample:
        """The sample of all voxels that several have seen, as if one had seen them.

        Args:
            samples: Of one size and kind, with different seeds; they stay as they are. Empty ones are left out.

        Raises:
            ValueError: No sample, or other sizes, kinds or numbers of classes.
        """
        parts = [it for it in samples if it._reservoirs]
        if not parts:
            raise ValueError("Expected `samples` with voxels, got none.")
        kinds = {(it.size, it.independent, it.channels) for it in parts}
        if len(kinds) > 1:
            raise ValueError(
                f"Expected `samples` of one size, kind and number of classes, got {sorted(kinds)}."
            )
        result = cls(size=parts[0].size, independent=parts[0].independent)
        result.updates = sum(it.updates for it in parts)
        result._reservoirs = [
            Reservoir.merged(group, result.size)
            for group in zip(*(it._reservoirs for it in parts), strict=True)
        ]
        return result

    def _check(self, probs: Tensor, labels: Tensor, mask: Tensor | None) -> None:
        for name, tensor in (("probs", probs), ("labels", labels)):
            if not tensor.is_floating_point():
                raise TypeError(f"Expected `{name}` of a floating dtype, got {tensor.dtype}.")
        if probs.ndim < 3:
            raise ValueError(f"Expected `probs` of shape (B, C, *spatial), got {tuple(probs.shape)}.")
        check_same_shape(
            "labels", labels.shape, "probs", probs.shape, hint="For hard labels call `one_hot` first."
        )
        if self.channels not in (None, probs.shape[1]):
            raise ValueError(f"Expected `probs` of {self.channels} classes as before, got {probs.shape[1]}.")
        one = (probs.shape[0], 1, *probs.shape[2:])
        if mask is not None and tuple(mask.shape) != one:
            raise ValueError(f"Expected `mask` of shape {one}, got {tuple(mask.shape)}.")


def _strata(probs: Tensor, labels: Tensor, *, independent: bool) -> Tensor:
    """(1, C, N) → (1, N), int64: twice the class, and 1 more where the prediction is wrong or not sure."""
    if independent:
        inside, right = labels[:, 0] > 0.5, probs[:, 0]
        classes = inside.long()
        confidence = torch.where(inside, right, 1 - right)
    else:
        place = greatest(labels)
        classes = place[:, 0]
        confidence = probs.gather(1, place)[:, 0]  # above 0.99 only where it is the greatest
    return 2 * classes + (confidence <= SURE)
