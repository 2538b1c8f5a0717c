"""How much of the fractions is left on their way from the raters to the maps on disk.

Nothing is imitated: maps are made anew by what makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from nnunet_dml._parallel import each
from nnunet_dml.labels.storage import DamagedSoftMapError, open_soft_map
from nnunet_dml.nnunet import map_making, soft_maps
from nnunet_dml.nnunet.findings import Step

EPSILON = (
    1e-3  # a fraction is farther than this from 0 and 1: less than a level on disk, more than rounding errors
)
RAW, GRID, STORED = "fused, original space", "nnU-Net's grid, float", "stored"


class Tally:
    """Fractional voxels counted so far, and the greatest difference from the step before."""

    def __init__(self) -> None:
        """Start at none."""
        self.fractional, self.voxels = 0, 0
        self.error: float | None = None

    def add(self, maps: Any, mask: Tensor | None = None, *, one: float = 1) -> None:
        """Count the voxels of (C, *spatial) where some channel lies between 0 and `one`, of those in the mask."""
        maps = torch.as_tensor(maps)
        self.add_where(((maps > EPSILON * one) & (maps < (1 - EPSILON) * one)).any(0), mask)

    def add_where(self, fractional: Any, mask: Tensor | None = None) -> None:
        """Count voxels that are known to be fractional or not."""
        fractional = torch.as_tensor(fractional)
        if mask is not None:
            fractional = fractional[mask.bool()]
        self.fractional += int(fractional.sum())
        self.voxels += fractional.numel()

    def compare(self, maps: Any, before: Any) -> None:
        """Remember the greatest absolute difference of two maps on one grid."""
        difference = torch.as_tensor(maps).float() - torch.as_tensor(before).float()
        self.error = max(self.error or 0.0, float(difference.abs().max()))

    def step(self, name: str) -> Step:
        """The share of fractional voxels, None where no voxel was seen."""
        return Step(name, self.fractional / self.voxels if self.voxels else None, self.error)


def steps_of_maps(cases: Sequence[map_making.Case]) -> list[Step]:
    """Fractions in original space (inside nnU-Net's bounding box), on nnU-Net's grid, and as they are stored.

    Of the source `random`, which stores the raters' labels themselves, the voxels are counted where raters differ.

    Args:
        cases: What `nnunet-dml preprocess` would make; nothing is written.

    Raises:
        InputError: Masks are bad; all of them are named.
    """
    tallies = {name: Tally() for name in (RAW, GRID, STORED)}

    def measure(case: map_making.Case) -> None:
        if case.source == "random":
            _measure_raters(case, tallies)
        else:
            _measure_fractions(case, tallies)

    each(measure, cases, processes=1, title="Soft labels, made again")
    steps = [tally.step(name) for name, tally in tallies.items()]
    # quantising moves a fraction by half a level, and where a sum came out too large the largest by a few more
    levels = 0.5 + max((case.num_classes for case in cases), default=0) / 2
    if (steps[2].error or 0) > (levels + 0.01) / soft_maps.SCALE:
        remark = "the files differ from what their sources give: make them again (nnunet-dml preprocess --overwrite)"
        steps[2] = replace(steps[2], level="wrong", remark=remark)
    return steps


def _measure_fractions(case: map_making.Case, tallies: Mapping[str, Tally]) -> None:
    plans = PlansManager(str(case.plans_file))
    shape, properties = soft_maps.stock_properties(case.stock, case.name, redo=case.redo)
    cropped = map_making.crop(map_making.fractions(case, plans, properties), properties, plans)
    maps = map_making.to_grid(cropped, properties, shape, plans, plans.get_configuration(case.configuration))
    tallies[RAW].add(cropped)
    tallies[GRID].add(maps)
    if cropped.shape == maps.shape:
        tallies[GRID].compare(maps, cropped)
    stored = _stored(case.out)
    if stored is not None and stored.shape == maps.shape:
        tallies[STORED].add(stored, one=soft_maps.SCALE)
        tallies[STORED].compare(stored / np.float32(soft_maps.SCALE), maps)


def _measure_raters(case: map_making.Case, tallies: Mapping[str, Tally]) -> None:
    plans = PlansManager(str(case.plans_file))
    shape, properties = soft_maps.stock_properties(case.stock, case.name, redo=case.redo)
    cropped = map_making.crop(map_making.rater_labels(case, plans, properties), properties, plans)
    configuration = plans.get_configuration(case.configuration)
    labels = map_making.labels_to_grid(cropped, properties, shape, plans, configuration)
    stored = _stored(case.out)
    for name, raters in ((RAW, cropped), (GRID, labels), (STORED, stored)):
        if raters is not None:
            tallies[name].add_where((raters != raters[:1]).any(0))
    if stored is not None and stored.shape == labels.shape:
        tallies[STORED].error = float((stored != labels).any())


def _stored(path: Path) -> np.ndarray | None:
    """The integers in a soft map; None where there are none to be read."""
    try:
        return np.asarray(open_soft_map(path).array[:])
    except (FileNotFoundError, DamagedSoftMapError, RuntimeError):
        return None
