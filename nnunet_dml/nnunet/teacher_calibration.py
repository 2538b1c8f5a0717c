"""How a teacher's probabilities are calibrated in a training, and the choice of the bandwidth or temperature."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nnunet_dml.calibration import (
    apply_temperature,
    bandwidth_by_brier,
    calibrate_batch,
    fit_temperature,
    logits_of,
    wrong_voxels,
)
from nnunet_dml.calibration.batch import calibrated_voxels, channel_groups, rows_of
from nnunet_dml.calibration.keys import choose_weighted_keys
from nnunet_dml.labels import boundary_voxels
from nnunet_dml.nnunet.option_groups import TeacherOptions

Seen = tuple[Tensor, Tensor, Tensor | None]  # a teacher's probabilities, the labels, the mask of a batch
ROWS = 10_000  # voxels of a batch that bandwidth or temperature are chosen on
_PARAMETERS = {"kde": "bandwidth", "temperature": "temperature"}


class TeacherCalibration:
    """Calibrates a teacher's probabilities as the options say."""

    def __init__(self, options: TeacherOptions, *, independent: bool) -> None:
        """Read `teacher.calibration` and what belongs to it.

        Args:
            options: The options.
            independent: Whether the channels are regions.
        """
        self.kind = "none" if options.maps is not None else options.calibration  # maps are calibrated already
        self.name = _PARAMETERS.get(self.kind)
        """What the parameter is called; None without calibration."""
        self._options, self._independent = options, independent
        given = None if self.name is None else getattr(options, self.name)
        self.parameter: float | None = None if given in (None, "auto") else float(given)
        self.must_choose = given == "auto"
        """Whether bandwidth or temperature has to be chosen before the first call."""
        self.random: torch.Generator | None = None
        """Of the choice of the keys; None is torch's own."""

    def __call__(self, probs: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
        """Calibrated probabilities.

        Args:
            probs: (B, C, *spatial) in [0, 1], float32.
            labels: (B, C, *spatial) in [0, 1], one-hot or fractions.
            mask: (B, 1, *spatial), 0 where voxels are ignored, or None.

        Returns:
            (B, C, *spatial); `probs` itself without calibration.
        """
        if self.kind == "none":
            return probs
        assert self.parameter is not None
        if self.kind == "temperature":
            return apply_temperature(probs, self.parameter, independent=self._independent)
        return calibrate_batch(
            probs,
            labels,
            bandwidth=self.parameter,
            where=self._where(probs, labels, mask),
            mask=mask,
            keys=self._options.keys,
            independent=self._independent,
            weighted=self._options.weighted_keys,
            generator=self.random,
        )

    def _where(self, probs: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor | None:
        """The voxels that the regression calibrates; None for all."""
        if self._options.voxels == "all":
            return None
        return wrong_voxels(probs, labels, independent=self._independent) | boundary_voxels(
            labels, neighbourhood=self._options.neighbourhood, mask=mask, independent=self._independent
        )

    def choose(self, batches: Iterable[Seen]) -> str:
        """Choose bandwidth or temperature; a sentence that says which and why.

        Args:
            batches: What the teacher says about some, and the truth.
        """
        self.parameter, how = (self._most_accurate if self.kind == "kde" else self._fitted)(batches)
        return f"The teacher's {self.name} is {self.parameter:.4g}, {how}."

    def _most_accurate(self, batches: Iterable[Seen]) -> tuple[float, str]:
        """The bandwidth with the lowest Brier score on the voxels that are calibrated, as far as they are no keys.

        The likelihood of the keys (`bandwidth_by_likelihood`) would choose for the background far from all boundaries,
        which most of the weight stands for, and which is not calibrated.
        """
        searches, count = [], 0
        kernel = "beta" if self._independent else "dirichlet"
        for probs, labels, mask in batches:
            count += 1
            where = self._where(probs, labels, mask)
            for group in channel_groups(probs.shape[1], self._independent):
                part, truth = probs[:, group], labels[:, group]
                keys, stands_for = choose_weighted_keys(
                    truth,
                    keys=self._options.keys,
                    mask=mask,
                    independent=self._independent,
                    generator=self.random,
                )
                voxels = calibrated_voxels(probs, group, where=where, mask=mask)
                voxels = voxels[~torch.isin(voxels, keys)]
                drawn = torch.randperm(len(voxels), generator=self.random)[:ROWS].to(voxels.device)
                if len(keys) and len(voxels):
                    rows = [rows_of(it, at) for at in (voxels[drawn], keys) for it in (part, truth)]
                    weights = stands_for if self._options.weighted_keys else None
                    searches.append(bandwidth_by_brier(*rows, kernel=kernel, key_weights=weights))
        if not searches:
            default = TeacherOptions().bandwidth
            assert isinstance(default, float)
            return default, "the default, as the patches have no voxel to choose it on"
        grid = searches[0].grid
        scores = [sum(search.scores[i] for search in searches) for i in range(len(grid))]
        best = grid[scores.index(min(scores))]
        end = f"; an end of what was tried, {grid[0]:g} … {grid[-1]:g}" if best in (grid[0], grid[-1]) else ""
        return best, f"with the lowest Brier score on {count} training batches{end}"

    def _fitted(self, batches: Iterable[Seen]) -> tuple[float, str]:
        """The temperature under which voxels, drawn everywhere, are likeliest."""
        rows = []
        for probs, labels, mask in batches:
            valid = torch.ones_like(probs[:, :1], dtype=torch.bool) if mask is None else mask.bool()
            voxels = valid.flatten().nonzero()[:, 0]
            drawn = torch.randperm(len(voxels), generator=self.random)[:ROWS].to(voxels.device)
            rows.append((rows_of(probs, voxels[drawn]), rows_of(labels, voxels[drawn])))
        probs, labels = (torch.cat(parts) for parts in zip(*rows, strict=True))
        if not len(probs):
            return 1.0, "none at all, as no voxel of the patches has a label"
        logits = logits_of(probs, independent=self._independent)
        fit = fit_temperature(logits, labels, independent=self._independent)
        bound = "; a bound of the search: the patches do not determine it" if fit.at_bound else ""
        return fit.temperature, f"fitted on {len(rows)} training batches{bound}"
