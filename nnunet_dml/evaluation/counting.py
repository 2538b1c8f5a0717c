"""Sums over the voxels of a case, from which all its figures are made.

Most voxels of a volume are background that nobody doubts: there every sum is known in closed form but for those over the
probabilities themselves. `Counts.add_sure` takes such voxels, `Counts.add` all others; together they are what the
metrics' own `…_counts` give for all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nnunet_dml.evaluation.binning import histograms
from nnunet_dml.evaluation.layout import Layout
from nnunet_dml.evaluation.options import Options
from nnunet_dml.labels import fuse
from nnunet_dml.metrics import (
    bdice_counts,
    brier_counts,
    mask_overlap_counts,
    nll_counts,
    overlap_counts,
    pair_counts,
    reliability_counts,
    soft_overlap_counts,
)
from nnunet_dml.metrics._arrays import SUM_TOLERANCE
from nnunet_dml.metrics._bins import FINE_BINS, fine
from nnunet_dml.metrics.raters import LEVELS
from nnunet_dml.metrics.scores import CLAMP

Array = npt.NDArray[Any]

BOTH = ("", "soft_")
"""Prefixes of what is measured against the hard and against the soft reference."""


@dataclass(frozen=True)
class Voxels:
    """Some voxels of a case."""

    probs: npt.NDArray[np.float32]
    """`(channels, N)`."""
    segmentation: Array
    """`(N,)`: nnU-Net's labels."""
    labels: Array
    """`(N,)`."""
    raters: Array
    """`(R, N)`; no row where there is no rater."""
    soft: npt.NDArray[np.float32] | None
    """`(labels, N)`: a soft map that was read; None where the raters or the labels are the soft reference."""
    near: npt.NDArray[np.bool_]
    """`(N,)`: near the foreground."""
    edge: npt.NDArray[np.bool_]
    """`(B, N)`: at a boundary of the reference."""


class Counts:
    """Sums of one case. Those that belong to a soft reference are there only where it is not the labels themselves."""

    def __init__(
        self, layout: Layout, options: Options, *, kind: str, raters: int, ignore: int | None
    ) -> None:
        self.layout, self.options, self.ignore = layout, options, ignore
        self.kind, self.raters = kind, raters
        self.prefixes = BOTH[:1] if kind == "labels" else BOTH
        self.sums: dict[str, torch.Tensor] = {}
        self.unlabelled = 0
        """Voxels that count, although no rater gave them a label."""

    @property
    def least(self) -> float:
        """From which probability of the background on everything else is in the first bin, below all thresholds.

        With raters below the levels of the energy distance, too.
        """
        levels = LEVELS if self.raters else ()
        return 1 - min(1 / self.options.bins, *self.options.thresholds, *levels) + 2 * SUM_TOLERANCE

    def __getitem__(self, name: str) -> torch.Tensor:
        """A sum; a soft one is the hard one where both references are the same."""
        return self.sums[name if name in self.sums else name.removeprefix("soft_")]

    def _plus(self, name: str, value: torch.Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def soft_of(self, voxels: Voxels) -> torch.Tensor | None:
        """The soft reference, `(B, C, N)`; None where it is the labels themselves."""
        if self.kind == "labels":
            return None
        if self.kind == "softlabels":
            if voxels.soft is None:
                raise ValueError("Expected the soft map of a case whose soft reference it is.")
            return self.layout.soft(voxels.soft)
        values = self.layout.values
        shares = fuse(voxels.raters, method="uniform", num_classes=values, ignore_label=self.ignore)
        if self.ignore is not None:
            self.unlabelled += int(np.count_nonzero(shares[-1]))
        return self.layout.soft(shares[:values])

    def add(self, voxels: Voxels) -> None:
        """Count voxels of any kind."""
        layout = self.layout
        p, y = layout.probs(voxels.probs), layout.labels(voxels.labels)
        soft = self.soft_of(voxels)
        references = [y] if soft is None else [y, soft]
        self._add_histograms(voxels, p, references)
        for prefix, reference in zip(self.prefixes, references, strict=True):
            self._plus(f"{prefix}brier", brier_counts(p, reference))
            self._plus(f"{prefix}nll", nll_counts(p, reference))
        self._add_overlaps(voxels, p, y, soft)
        if self.raters:
            self._add_raters(voxels, p)

    def _add_histograms(self, voxels: Voxels, p: torch.Tensor, references: Sequence[torch.Tensor]) -> None:
        """Of every zone and reference, and of the raters where nobody abstains."""
        raters = [self.layout.labels(row) for row in voxels.raters] if self.ignore is None else []
        classes = (1,) if self.layout.regions else range(p.shape[1])
        zones = voxels.near + 2 * voxels.edge.view(np.uint8)
        rows = [
            histograms(
                probs.numpy(),
                [reference[b].numpy() for reference in references],
                zones[b],
                bins=self.options.bins,
                classes=classes,
                top_only=[reference[b].numpy() for reference in raters],
            )
            for b, probs in enumerate(p)
        ]
        top, adaptive = (
            torch.from_numpy(np.sum([getattr(it, name) for it in rows], axis=0))
            for name in ("top", "adaptive")
        )
        by_class = torch.from_numpy(np.concatenate([it.classes for it in rows]))
        for i, prefix in enumerate(self.prefixes):
            own = [0, 1, 2 + i]
            self._plus(f"{prefix}reliability", top[:, own].sum(0))
            self._plus(f"{prefix}reliability_foreground", top[1::2, own].sum(0))
            self._plus(f"{prefix}reliability_boundary", top[2:, own].sum(0))
            self._plus(f"{prefix}classwise", by_class[:, :, own].sum(1))
            self._plus(f"{prefix}classwise_boundary", by_class[:, 2:, own].sum(1))
            self._plus(f"{prefix}adaptive", adaptive[own])
        if raters:
            first = 2 + len(references)
            sums = [top[:, [0, 1, first + r]].sum(0) for r in range(len(raters))]
            self._plus("rater_reliability", torch.stack(sums))

    def _add_overlaps(
        self, voxels: Voxels, p: torch.Tensor, y: torch.Tensor, soft: torch.Tensor | None
    ) -> None:
        """Columns are the classes, background first; of regions the regions."""
        thresholds = self.options.thresholds
        wanted = y if soft is None else soft
        levels = torch.stack([1 - y, y], 1).float() if self.layout.regions else _one_hot(y, p.shape[1])
        levels = levels if soft is None else soft
        if self.layout.regions:
            masks = (self.layout.masks(labels) for labels in (voxels.segmentation, voxels.labels))
            self._plus("overlap", mask_overlap_counts(*masks))
            rows = [soft_overlap_counts(p[r, None], wanted[r, None])[:, 1] for r in range(len(p))]
            self._plus("soft_overlap", torch.stack(rows, 1))
            pairs = [bdice_counts(p[r, None], levels[r, None], thresholds=thresholds) for r in range(len(p))]
            self._plus("bdice", torch.cat(pairs, 2))
            return
        self._plus("overlap", overlap_counts(voxels.segmentation, voxels.labels, num_classes=p.shape[1]))
        self._plus("soft_overlap", soft_overlap_counts(p, wanted))
        self._plus("bdice", bdice_counts(p, levels, thresholds=thresholds))

    def _add_raters(self, voxels: Voxels, p: torch.Tensor) -> None:
        """Of each rater the voxels where he voted; of all together those where all did."""
        predicted = self.layout.masks(voxels.segmentation)
        votes = torch.stack([self.layout.masks(row) for row in voxels.raters])
        voted = None if self.ignore is None else torch.from_numpy(voxels.raters != self.ignore)
        keeps = [None if voted is None else voted[r] for r in range(self.raters)]
        overlaps = [
            mask_overlap_counts(predicted, its, mask=keep) for its, keep in zip(votes, keeps, strict=True)
        ]
        self._plus("rater_overlap", torch.stack(overlaps))
        if voted is not None:
            sums = [
                reliability_counts(
                    p, self.layout.labels(row), bins=self.options.bins, mask=keep.expand(len(p), -1)
                )
                for row, keep in zip(voxels.raters, voted, strict=True)
            ]
            self._plus("rater_reliability", torch.stack(sums))
        shares = p[:, 1] if self.layout.regions else p[0, 1:]
        samples = torch.stack([shares >= level for level in LEVELS])
        every = None if voted is None else voted.all(0)
        self._plus("pairs", pair_counts(samples, votes, mask=every))
        counted = shares if every is None else shares[:, every]
        self._plus("voted_volume", counted.sum(1, dtype=torch.float64))

    def add_sure(self, probs: Sequence[npt.NDArray[np.float32]]) -> None:
        """Count voxels that are background to all references and, from `least` on, to the model; in no zone.

        Args:
            probs: The model's channels, `(N,)` each.
        """
        number = len(probs[0])
        if not number:
            return
        bins, layout = self.options.bins, self.layout
        rows = (
            [(1 - values, [values]) for values in probs] if layout.regions else [(probs[0], list(probs[1:]))]
        )
        reliability, adaptive = (torch.zeros(3, n, dtype=torch.float64) for n in (bins, FINE_BINS))
        classwise = torch.zeros(len(probs), 3, bins, dtype=torch.float64)
        overlap = torch.zeros(3, len(probs), dtype=torch.float64)
        brier, nll = torch.zeros(2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        shares = []
        for confidence, others in rows:
            total = _sum(confidence)
            reliability[:, -1] += _doubles(number, total, number)
            place = fine(torch.from_numpy(confidence)).numpy()
            found = torch.from_numpy(np.bincount(place, minlength=FINE_BINS))
            adaptive += torch.stack(
                [found, torch.from_numpy(np.bincount(place, weights=confidence, minlength=FINE_BINS)), found]
            )
            brier += _doubles(number, sum(_sum(np.square(it)) for it in (1 - confidence, *others)))
            nll[:2] += _doubles(number, -_sum(np.log(np.maximum(confidence, np.float32(CLAMP)))))
            shares += [_sum(it) for it in others]
        first = len(probs) - len(shares)  # the background's column, which regions have not
        if first:
            classwise[0, :, -1] = reliability[:, -1]
            sure = min(float(reliability[1, -1]), _sum(np.minimum(probs[0], 1)))
            overlap[:, 0] = _doubles(sure, float(reliability[1, -1]), number)
        overlap[1, first:] = _doubles(*shares)
        classwise[first:, 0, 0] = number
        classwise[first:, 1, 0] = overlap[1, first:]
        for prefix in self.prefixes:
            self._plus(f"{prefix}reliability", reliability)
            self._plus(f"{prefix}classwise", classwise)
            self._plus(f"{prefix}adaptive", adaptive)
            self._plus(f"{prefix}brier", brier)
            self._plus(f"{prefix}nll", nll)
        self._plus("soft_overlap", overlap)
        hard = torch.zeros(3, len(probs), dtype=torch.int64)
        hard[:, :first] = number
        self._plus("overlap", hard)
        if self.raters:
            self._plus("rater_reliability", reliability.expand(self.raters, 3, bins))
            self._plus("voted_volume", overlap[1, first:])


def _one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """`(B, C, N)` of `(B, N)`."""
    return torch.stack([labels == c for c in range(classes)], 1).float()


def _doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _sum(values: Array) -> float:
    return float(values.sum(dtype=np.float64))
