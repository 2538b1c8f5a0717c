"""Kernel regression after training: keys from held-out cases, applied to predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_dml.calibration.bandwidth import GRID, bandwidth_by_likelihood
from nnunet_dml.calibration.calibrators import Arrays, ClassCalibrator, Rows, check_rows, numbers
from nnunet_dml.calibration.kde import check_bandwidth, kernel_calibrate


class KernelCalibrator(ClassCalibrator):
    """Estimates E[y | f(x)] from key voxels with a Dirichlet kernel (regions: Beta, which is the same of two classes).

    Each key counts for as many voxels as it stands for, so that a rare class has its true frequency although its keys
    are as many as the background's. A class without a key keeps its value. Time grows with voxels times keys.

    Source: Wang et al., Dice Semimetric Losses, MICCAI 2023, appendix D; see `kernel_calibrate`.

    >>> right = torch.arange(100) < 60
    >>> rows = Rows(torch.tensor([[0.1, 0.9]]).repeat(100, 1), torch.stack([~right, right], 1).float(), torch.ones(100))
    >>> KernelCalibrator(rows, bandwidth=0.05).of_rows(torch.tensor([[0.1, 0.9]]).double())
    tensor([[0.4000, 0.6000]], dtype=torch.float64)
    """

    method = "kernel"

    def __init__(self, keys: Rows, *, bandwidth: float) -> None:
        """Take the keys.

        Args:
            keys: At least one.
            bandwidth: h > 0.

        Raises:
            ValueError: A wrong shape, no key, `bandwidth` not above 0.
            TypeError: A dtype that is not floating.
        """
        check_rows(keys)
        check_bandwidth(bandwidth)
        self.keys, self.bandwidth = keys, bandwidth

    @property
    def channels(self) -> int:
        """C."""
        return self.keys.probs.shape[1]

    @classmethod
    def fit(cls, rows: Rows, *, grid: Sequence[float] = GRID) -> KernelCalibrator:
        """Take all rows for keys, and the bandwidth under which each is likeliest without itself.

        Args:
            rows: At least two; a thousand make a good estimate.
            grid: Bandwidths to try.

        Raises:
            ValueError: A wrong shape, fewer than two rows, or a bad grid.
            TypeError: A dtype that is not floating.
        """
        check_rows(rows)
        rows = Rows(rows.probs.float(), rows.labels.float(), rows.weights.double())  # as they are stored
        search = bandwidth_by_likelihood(rows.probs, rows.labels, key_weights=rows.weights, grid=grid)
        return cls(rows, bandwidth=search.bandwidth)

    def of_rows(self, probs: Tensor) -> Tensor:
        """The estimate."""
        keys, labels, weights = (it.to(probs.device) for it in self.keys)
        return kernel_calibrate(probs, keys, labels, bandwidth=self.bandwidth, key_weights=weights)

    def to_arrays(self) -> Arrays:
        """Keys and bandwidth."""
        arrays: Arrays = {name: it.numpy() for name, it in self.keys._asdict().items()}
        return {**arrays, "bandwidth": np.array(self.bandwidth)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> KernelCalibrator:
        """See `ClassCalibrator.from_arrays`."""
        probs, labels = (torch.from_numpy(numbers(arrays, name, axes=2)) for name in ("probs", "labels"))
        weights = torch.from_numpy(numbers(arrays, "weights", axes=1))
        return cls(
            Rows(probs.float(), labels.float(), weights),
            bandwidth=float(numbers(arrays, "bandwidth", axes=0)),
        )
