"""Calibration after training: keys from held-out cases, kept in a balanced reservoir, applied to predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_dml._checks import check_same_shape
from nnunet_dml.calibration.bandwidth import GRID, BandwidthSearch, bandwidth_by_likelihood
from nnunet_dml.calibration.batch import channel_groups
from nnunet_dml.calibration.kde import check_bandwidth, kernel_calibrate, working_dtype
from nnunet_dml.calibration.keys import greatest
from nnunet_dml.calibration.reservoir import Reservoir


class KernelCalibrator:
    """A calibrator of a trained model's probabilities, fitted on cases that the model was not trained on.

    `update` offers it the voxels of one case after another; of each class it keeps a uniform sample, so the
    number of cases does not matter for its size. `calibrate` then estimates E[y | f(x)] with ⌈keys / u⌉ keys of each of
    the u classes seen. Each key counts for as many voxels as it stands for, so that a rare class has its
    true frequency although its keys are as many as the background's.

    >>> calibrator = KernelCalibrator(bandwidth=0.05, keys=100)
    >>> probs = torch.tensor([0.1, 0.9]).view(1, 2, 1).expand(1, 2, 100)  # sure of 90 %, right in 60 %
    >>> right = torch.arange(100) < 60
    >>> calibrator.update(probs, torch.stack([~right, right])[None].float())
    >>> calibrator.calibrate(probs[..., :1]).flatten()
    tensor([0.4000, 0.6000])
    """

    def __init__(
        self,
        *,
        bandwidth: float | None = None,
        keys: int = 1000,
        independent: bool = False,
        seed: int = 0,
    ) -> None:
        """Settle what does not depend on the data.

        Args:
            bandwidth: h > 0; None where `choose_bandwidth` will find it.
            keys: How many keys an estimate uses (per region with `independent`); at most so many are kept of each class.
            independent: The channels are regions: Beta kernel, keys and estimate for each.
            seed: Of the draw, together with the number of updates before: the same cases in the same order
                give the same keys.

        Raises:
            ValueError: `bandwidth` not above 0, `keys` below 1 or a negative `seed`.
        """
        if bandwidth is not None:
            check_bandwidth(bandwidth)
        for name, value, least in (("keys", keys, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"Expected argument `{name}` to be at least {least}, got {value}.")
        self.bandwidth = bandwidth
        self.keys = keys
        self.independent = independent
        self.seed = seed
        self.updates = 0
        self._reservoirs: list[Reservoir] = []

    def update(self, probs: Tensor, labels: Tensor, *, mask: Tensor | None = None) -> None:
        """Offer the voxels of a case (or of several).

        Args:
            probs: (B, C, *spatial), floating; C the same at every call.
            labels: (B, C, *spatial), floating: one-hot or fractions; the class of a voxel is that of the
                greatest (a region's: whether it is above 0.5).
            mask: (B, 1, *spatial), bool or 0/1: the voxels that count.

        Raises:
            ValueError: A wrong shape or another number of classes.
            TypeError: `probs` or `labels` is not floating.
        """
        self._check(probs)
        check_same_shape(
            "labels", labels.shape, "probs", probs.shape, hint="For hard labels call `one_hot` first."
        )
        if not labels.is_floating_point():
            raise TypeError(f"Expected `labels` of a floating dtype, got {labels.dtype}.")
        one = (probs.shape[0], 1, *probs.shape[2:])
        if mask is not None and tuple(mask.shape) != one:
            raise ValueError(f"Expected `mask` of shape {one}, got {tuple(mask.shape)}.")
        channels = probs.shape[1]
        if not self._reservoirs:
            self._reservoirs = (
                [Reservoir.empty(1, 2) for _ in range(channels)]
                if self.independent
                else [Reservoir.empty(channels, channels)]
            )
        state = np.random.SeedSequence([self.seed, self.updates]).generate_state(1)
        random = torch.Generator().manual_seed(int(state[0]))
        for reservoir, group in zip(
            self._reservoirs, channel_groups(channels, self.independent), strict=True
        ):
            part, count = labels[:, group], len(reservoir.seen)
            classes = (part[:, 0] > 0.5).long() if self.independent else greatest(part)[:, 0]
            if mask is not None:
                classes = torch.where(mask[:, 0].bool(), classes, count)
            reservoir.offer(probs.detach()[:, group], part, classes, self.keys, random)
        self.updates += 1

    def choose_bandwidth(self, grid: Sequence[float] = GRID) -> BandwidthSearch:
        """Set and return the bandwidth with the best leave-one-out likelihood of the keys (`bandwidth_by_likelihood`).

        Args:
            grid: Bandwidths to try. Regions share one; their scores are averaged.

        Raises:
            ValueError: Fewer than two keys, or a bad grid.
        """
        self._check_fitted()
        kernel = "beta" if self.independent else "dirichlet"
        searches = []
        for reservoir in self._reservoirs:
            probs, labels, weights = reservoir.keys(self.keys)
            searches.append(
                bandwidth_by_likelihood(probs, labels, kernel=kernel, key_weights=weights, grid=grid)
            )
        scores = np.mean([it.scores for it in searches], axis=0)
        tried = searches[0].grid
        self.bandwidth = tried[int(scores.argmin())]
        return BandwidthSearch(self.bandwidth, tried, tuple(scores.tolist()))

    def calibrate(self, probs: Tensor, *, memory_mib: float | None = None) -> Tensor:
        """Calibrated probabilities.

        Args:
            probs: (B, C, *spatial), floating, of the model whose predictions were given to `update`.
            memory_mib: Bound on the working memory of the kernel in MiB.

        Returns:
            (B, C, *spatial), a new tensor, float32 (float64 if `probs` is); sums over C are one (regions: not so).

        Raises:
            ValueError: A wrong shape or number of classes, no keys or no bandwidth yet.
            TypeError: `probs` is not floating.
        """
        self._check(probs)
        self._check_fitted()
        if self.bandwidth is None:
            raise ValueError("Expected a `bandwidth`: give one or call `choose_bandwidth` first.")
        result = probs.detach().to(working_dtype(probs), copy=True, memory_format=torch.contiguous_format)
        for reservoir, group in zip(
            self._reservoirs, channel_groups(probs.shape[1], self.independent), strict=True
        ):
            key_probs, key_labels, weights = (it.to(probs.device) for it in reservoir.keys(self.keys))
            part = result[:, group]
            rows = kernel_calibrate(
                part.movedim(1, -1).flatten(0, -2),
                key_probs,
                key_labels,
                bandwidth=self.bandwidth,
                kernel="beta" if self.independent else "dirichlet",
                key_weights=weights,
                memory_mib=memory_mib,
            )
            part.copy_(rows.view(part.shape[0], *part.shape[2:], part.shape[1]).movedim(-1, 1))
        return result

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state as plain arrays, for `numpy.savez` or (with `tolist`) JSON."""
        arrays: dict[str, NDArray[Any]] = {
            "bandwidth": np.array(np.nan if self.bandwidth is None else self.bandwidth),
            "keys": np.array(self.keys),
            "independent": np.array(self.independent),
            "seed": np.array(self.seed),
            "updates": np.array(self.updates),
            "groups": np.array(len(self._reservoirs)),
        }
        for i, reservoir in enumerate(self._reservoirs):
            arrays |= {f"{name}_{i}": values for name, values in reservoir.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> KernelCalibrator:
        """A calibrator that goes on where the one that gave `to_arrays` stood.

        Args:
            arrays: What `to_arrays` gave, as arrays or nested lists.

        Raises:
            ValueError: An array is missing or its shape does not fit the others.
        """
        try:
            bandwidth = float(arrays["bandwidth"])
            made = cls(
                bandwidth=None if math.isnan(bandwidth) else bandwidth,
                keys=int(arrays["keys"]),
                independent=bool(arrays["independent"]),
                seed=int(arrays["seed"]),
            )
            made.updates = int(arrays["updates"])
            for i in range(int(arrays["groups"])):
                made._reservoirs.append(
                    Reservoir.from_arrays({name: arrays[f"{name}_{i}"] for name in Reservoir.DTYPES})
                )
        except KeyError as error:
            raise ValueError(f"Expected an array {error} in `arrays`.") from error
        return made

    def _check(self, probs: Tensor) -> None:
        if not probs.is_floating_point():
            raise TypeError(f"Expected `probs` of a floating dtype, got {probs.dtype}.")
        if probs.ndim < 3:
            raise ValueError(f"Expected `probs` of shape (B, C, *spatial), got {tuple(probs.shape)}.")
        if self._reservoirs:
            channels = len(self._reservoirs) if self.independent else self._reservoirs[0].probs.shape[1]
            if probs.shape[1] != channels:
                raise ValueError(f"Expected `probs` of {channels} classes as before, got {probs.shape[1]}.")

    def _check_fitted(self) -> None:
        if not any(len(it.classes) for it in self._reservoirs):
            raise ValueError("Expected keys: call `update` with held-out cases first.")
