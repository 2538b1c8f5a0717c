"""A uniform sample of the voxels of each class, drawn from cases that come one after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_dml.calibration.batch import rows_of


@dataclass
class Reservoir:
    """For each class the `size` voxels with the greatest random priorities seen so far: a uniform sample.

    A reservoir of a softmax has a class for each of its C columns; that of a region one column and two classes.
    """

    probs: Tensor  # (M, C) float32
    labels: Tensor  # (M, C) float32
    classes: Tensor  # (M,) int64
    priorities: Tensor  # (M,) float64, descending within a class
    seen: Tensor  # (K,) int64: voxels of each class that were offered

    @classmethod
    def empty(cls, columns: int, classes: int) -> Reservoir:
        """Nothing seen yet."""
        none = torch.empty(0, columns)
        return cls(
            none,
            none.clone(),
            torch.empty(0, dtype=torch.int64),
            torch.empty(0, dtype=torch.float64),
            torch.zeros(classes, dtype=torch.int64),
        )

    def offer(
        self, probs: Tensor, labels: Tensor, classes: Tensor, size: int, random: torch.Generator
    ) -> None:
        """Let the voxels of (1, C, *spatial) compete; `classes` (*spatial) is K where a voxel is left out."""
        flat = classes.reshape(-1)
        kept = []
        for label in range(len(self.seen)):
            mine = (self.classes == label).nonzero()[:, 0]
            voxels = (flat == label).nonzero()[:, 0]
            self.seen[label] += len(voxels)
            priorities = torch.rand(len(voxels), generator=random, dtype=torch.float64)
            best = priorities.topk(min(size, len(voxels)))
            chosen = voxels[best.indices.to(voxels.device)]
            rows = [
                torch.cat([old[mine], new.float().cpu()])
                for old, new in ((self.probs, rows_of(probs, chosen)), (self.labels, rows_of(labels, chosen)))
            ]
            merged = torch.cat([self.priorities[mine], best.values])
            order = merged.argsort(descending=True)[:size]
            kept.append((*(row[order] for row in rows), torch.full_like(order, label), merged[order]))
        self.probs, self.labels, self.classes, self.priorities = (
            torch.cat(parts) for parts in zip(*kept, strict=True)
        )

    def keys(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """About `number` keys, equally many of each class, and how many voxels each of them stands for."""
        held = torch.bincount(self.classes, minlength=len(self.seen))
        share = math.ceil(number / max(1, int((held > 0).sum())))
        first = torch.cat([torch.arange(int(n)) for n in held])  # rank within the class
        used = first < share
        weights = (self.seen / held.clamp(min=1, max=share))[self.classes[used]]
        return self.probs[used], self.labels[used], weights

    @classmethod
    def merged(cls, parts: Sequence[Reservoir], size: int) -> Reservoir:
        """The reservoir of all voxels that several, each of at least `size`, have seen.

        The greatest priorities of all are among the greatest of each, so the sample is as uniform as theirs.
        """
        result = cls.empty(parts[0].probs.shape[1], len(parts[0].seen))
        result.seen = torch.stack([it.seen for it in parts]).sum(0)
        columns = ("probs", "labels", "classes", "priorities")
        joined = {name: torch.cat([getattr(it, name) for it in parts]) for name in columns}
        chosen = []
        for label in range(len(result.seen)):
            mine = (joined["classes"] == label).nonzero()[:, 0]
            chosen.append(mine[joined["priorities"][mine].argsort(descending=True)[:size]])
        for name in columns:
            setattr(result, name, joined[name][torch.cat(chosen)])
        return result
