"""Which method calibrates best on cases that did not fit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nnunet_dml._checks import InputError, problem
from nnunet_dml.calibration import METHODS, Calibrator, OfRegions, Rows, VoxelSample, fit_calibrator
from nnunet_dml.metrics import ece_from_counts
from nnunet_dml.metrics._bins import equal_width
from nnunet_dml.metrics.calibration import BINS
from nnunet_dml.metrics.scores import CLAMP

Left = frozenset[str]
MARGIN = 1e-3  # a gain that is smaller, relatively, is not worth a method that can do more


@dataclass(frozen=True)
class Sums:
    """Weighted sums over voxels; they add up over samples."""

    scores: torch.Tensor
    """float64 `(3,)`: voxels, squared distances, negative log-likelihoods."""
    reliability: torch.Tensor
    """float64 `(3, bins)`: voxels, sum of confidences, sum of accuracies."""

    def __add__(self, other: Sums) -> Sums:
        """The sums of both samples."""
        return Sums(self.scores + other.scores, self.reliability + other.reliability)

    def figures(self) -> dict[str, float]:
        """Brier score, pooled ECE of the top label and NLL, as `nnunet_dml.metrics` defines them."""
        voxels, brier, nll = self.scores.tolist()
        return {"brier": brier / voxels, "ece": float(ece_from_counts(self.reliability)), "nll": nll / voxels}


def measure(calibrator: Calibrator, sample: VoxelSample) -> Sums:
    """What a calibrator makes of a sample; each row counts for the voxels that it stands for.

    Regions are problems of two classes, pooled.
    """
    tables = sample.rows()
    parts = calibrator.parts if isinstance(calibrator, OfRegions) else (calibrator,)
    sums = [_sums(it.of_rows(rows.probs.double()), rows) for it, rows in zip(parts, tables, strict=True)]
    return sum(sums[1:], sums[0])


def _sums(p: torch.Tensor, rows: Rows) -> Sums:
    y, w = rows.labels.double(), rows.weights
    squares = (p - y).square().sum(1)
    likelihoods = -(y * p.clamp(min=CLAMP).log()).sum(1)
    scores = torch.stack([w.sum(), (w * squares).sum(), (w * likelihoods).sum()])
    confidence, top = p.max(1)
    accuracy = y.gather(1, top[:, None])[:, 0]
    reliability = torch.zeros(3, BINS, dtype=torch.float64)
    for row, values in zip(reliability, (w, w * confidence, w * accuracy), strict=True):
        row.index_add_(0, equal_width(confidence, BINS).long(), values)
    return Sums(scores, reliability)


class CrossFit:
    """Calibrators fitted without some groups of cases, each made once."""

    def __init__(self, samples: Mapping[str, VoxelSample], *, keys: int) -> None:
        """Take the samples of the groups.

        Args:
            samples: By the groups' names, at least two.
            keys: See `fit_calibrator`.
        """
        self._samples, self._keys = dict(samples), keys
        self._fitted: dict[tuple[str, Left], Calibrator] = {}
        self._measured: dict[tuple[str, str, Left], Sums] = {}

    def calibrator(self, method: str, without: Left = frozenset()) -> Calibrator:
        """Fitted on all groups but some.

        Raises:
            InputError: The others have voxels of one class only.
        """
        key = method, without
        if key not in self._fitted:
            used = [sample for name, sample in self._samples.items() if name not in without]
            try:
                self._fitted[key] = fit_calibrator(method, VoxelSample.merged(used), keys=self._keys)
            except ValueError:
                expected = "voxels of at least two classes in the references"
                left = f" but {' and '.join(sorted(without))}" if without else ""
                todo = "Train and validate more folds."
                raise InputError(
                    problem(
                        "the validation cases" + left, expected=expected, found="one class only", todo=todo
                    )
                ) from None
        return self._fitted[key]

    def sums(self, method: str, group: str, without: Left = frozenset()) -> Sums:
        """Of a group, by a calibrator that was fitted without it and without some others."""
        left = without | {group}
        key = method, group, left
        if key not in self._measured:
            self._measured[key] = measure(self.calibrator(method, left), self._samples[group])
        return self._measured[key]

    def figures(self, method: str, without: Left = frozenset()) -> dict[str, float]:
        """Of all groups but some, each by a calibrator that was fitted on the others of them."""
        sums = [self.sums(method, name, without) for name in self._samples if name not in without]
        return sum(sums[1:], sums[0]).figures()

    def best(self, without: Left = frozenset()) -> str:
        """The simplest method whose Brier score is the lowest but for a thousandth; at least two groups must be left."""
        scores = {method: self.figures(method, without)["brier"] for method in METHODS}
        enough = (1 + MARGIN) * min(scores.values())
        return next(method for method in METHODS if scores[method] <= enough)

    def figures_of_choice(self, choice: Mapping[str, str]) -> dict[str, float]:
        """Of all groups, each by its own method, fitted without it."""
        sums = [self.sums(method, group) for group, method in choice.items()]
        return sum(sums[1:], sums[0]).figures()
