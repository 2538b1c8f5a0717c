"""A uniform sample of the voxels of each class, drawn from cases that come one after another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_dml.calibration.batch import rows_of


@dataclass
class Reservoir:
    """For each class the `size` voxels with the greatest random priorities seen so far: a uniform sample.

    A reservoir of a softmax has a class for each of its C columns; that of a region one column and two classes.
    """

    DTYPES: ClassVar[dict[str, type]] = {
        "probs": np.float32,
        "labels": np.float32,
        "classes": np.int64,
        "priorities": np.float64,
        "seen": np.int64,
    }

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

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays."""
        return {name: getattr(self, name).numpy().copy() for name in self.DTYPES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Reservoir:
        """The reservoir that gave `to_arrays`; nested lists serve as well. `ValueError` if lengths do not fit."""
        parts: dict[str, NDArray[Any]] = {
            name: np.array(arrays[name], dtype=dtype) for name, dtype in cls.DTYPES.items()
        }
        shapes = {name: part.shape for name, part in parts.items()}
        number = len(parts["classes"])
        columns = shapes["probs"][-1] if parts["probs"].ndim == 2 else 0
        fit = {
            "probs": (number, columns),
            "labels": (number, columns),
            "classes": (number,),
            "priorities": (number,),
            "seen": (parts["seen"].size,),
        }
        if shapes != fit:
            raise ValueError(f"Expected arrays of {number} keys, {fit}, got {shapes}.")
        return cls(**{name: torch.from_numpy(part) for name, part in parts.items()})
