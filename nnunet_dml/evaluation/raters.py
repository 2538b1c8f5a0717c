"""How much the raters of each case agree: records of all cases, and tables of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch

from nnunet_dml._parallel import each
from nnunet_dml.evaluation.rater_masks import Classes, RaterCase, Raters, read_case
from nnunet_dml.metrics.agreement import Agreement, agreement
from nnunet_dml.metrics.empty_cases import relative_difference

Row = dict[str, Any]


@dataclass
class CaseAgreement:
    """What was measured on a case."""

    case: str
    raters: list[str]
    classes: list[Agreement]
    """In the order of `Classes.members`."""
    voxel_ml: float

    @property
    def dispute(self) -> float:
        """The largest share of disputed voxels in a class's union, 0 where all agree: what pictures are sorted by."""
        return max(found.disputed / max(found.union, 1) for found in self.classes)


def measure_case(case: RaterCase, classes: Classes) -> CaseAgreement:
    """Read and measure a case.

    Raises:
        InputError: With everything that is wrong with its masks.
    """
    masks = read_case(case, classes)
    found = agreement(
        masks.labels, classes=classes.indices, num_classes=len(classes.values), voted=masks.voted
    )
    return CaseAgreement(case.name, list(case.masks), found, masks.voxel_ml)


def measure(raters: Raters, *, processes: int = 1) -> list[CaseAgreement]:
    """Measure all cases with two raters or more.

    Args:
        raters: What `rater_masks` found.
        processes: How many cases are measured at once. 1 uses no other process.

    Raises:
        InputError: With every problem of every case.
    """
    work = partial(measure_case, classes=raters.classes)
    one_thread = partial(torch.set_num_threads, 1)
    return each(work, raters.compared, processes=processes, title="Comparing", initializer=one_thread)


def most_disputed(records: Sequence[CaseAgreement], number: int) -> list[str]:
    """The names of the cases with the largest `dispute`, largest first, without those that have none."""
    disputed = sorted((r for r in records if r.dispute > 0), key=lambda r: (-r.dispute, r.case))
    return [record.case for record in disputed[:number]]


@dataclass
class Tables:
    """Tidy tables of all cases; undefined values are NaN."""

    cases: pd.DataFrame
    """A row per case and class."""
    raters: pd.DataFrame
    """A row per case, class and rater."""
    pairs: pd.DataFrame
    """A row per case, class and pair of raters."""


def tables(records: Sequence[CaseAgreement], names: Sequence[str]) -> Tables:
    """The records as tables.

    Args:
        records: One per case.
        names: Those of the classes.
    """
    cases, raters, pairs = [], [], []
    for record in records:
        for name, found in zip(names, record.classes, strict=True):
            key = {"case": record.case, "class": name}
            own = [{**key, **row} for row in _rater_rows(record, found)]
            raters += own
            pairs += [{**key, **row} for row in _pair_rows(record, found)]
            cases.append({**key, **_case_row(record, found, pd.DataFrame(own))})
    return Tables(pd.DataFrame(cases), pd.DataFrame(raters), pd.DataFrame(pairs))


def _rater_rows(record: CaseAgreement, found: Agreement) -> Iterator[Row]:
    bias = relative_difference(torch.as_tensor(found.sizes), torch.tensor(found.majority_size)).tolist()
    for r, rater in enumerate(record.raters):
        yield {
            "rater": rater,
            "dice_majority": found.dice_majority[r],
            "dice_others": found.dice_others[r],
            "dice_pairs": pd.Series(np.delete(found.dice_pairs[r], r)).mean(),
            "voxels": found.sizes[r],
            "volume_ml": found.sizes[r] * record.voxel_ml,
            "volume_bias": bias[r],
        }


def _pair_rows(record: CaseAgreement, found: Agreement) -> Iterator[Row]:
    for r, s in combinations(range(len(record.raters)), 2):
        yield {"rater": record.raters[r], "other": record.raters[s], "dice": found.dice_pairs[r, s]}


def _case_row(record: CaseAgreement, found: Agreement, raters: pd.DataFrame) -> Row:
    return {
        "raters": len(record.raters),
        **raters[["dice_majority", "dice_others", "dice_pairs"]].mean(),
        "kappa": found.kappa,
        "voxels": found.voxels,
        "union_voxels": found.union,
        "disputed_voxels": found.disputed,
        "disputed_of_all": _share(found.disputed, found.voxels),
        "disputed_of_union": _share(found.disputed, found.union),
        "tied_voxels": found.tied,
        "majority_voxels": found.majority_size,
        "majority_ml": found.majority_size * record.voxel_ml,
        "raters_mean_voxels": found.sizes.mean(),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
