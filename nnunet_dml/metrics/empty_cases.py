"""What an empty reference or an empty prediction means: decided here and nowhere else.

| reference | prediction | Dice, IoU, surface Dice, BDice at one threshold | HD95 | volume bias |
|---|---|---|---|---|
| empty | empty | `BOTH_EMPTY` = 1: nothing was to be found and nothing was | `BOTH_EMPTY_DISTANCE` = 0 | undefined (NaN) |
| empty | something | 0, as the formula says | `ONE_EMPTY_DISTANCE`: undefined (NaN) | undefined (NaN): there is no volume to relate to |
| something | empty | 0, as the formula says | `ONE_EMPTY_DISTANCE`: undefined (NaN) | −1, as the formula says |

The first row is a policy: 0/0 has no value of its own. 1 is what most challenges and MONAI's metrics with
`ignore_empty=False` use; nnU-Net's own `summary.json` leaves such cases out of its mean instead. So tables
say how many cases the policy decided, and undefined values stay NaN and are counted. (A distance to nothing is
infinite to some, the image's diagonal to others; either would drown a mean.)

Soft Dice and soft IoU follow the columns of Dice, the distance 1 − IoU of the generalised energy distance, too: two
empty masks are the same mask. Volume differences in millilitres and their CRPS are defined for empty masks: 0 ml.
Calibration errors and scores are undefined (NaN) where no voxel counts, and only there.

The Dice of two raters' masks follows the same table. Fleiss' kappa is undefined (NaN) where every vote of a case is
for one side, as where all raters left a class empty: there is no agreement beyond chance to speak of.
"""

from __future__ import annotations

import torch

BOTH_EMPTY = 1.0
"""Dice, IoU and surface Dice of an empty prediction against an empty reference."""

BOTH_EMPTY_DISTANCE = 0.0
"""Surface distance in mm between two empty masks."""

ONE_EMPTY_DISTANCE = float("nan")
"""Surface distance in mm between an empty mask and another."""


def overlap_ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """`numerator / denominator`, and `BOTH_EMPTY` where the denominator, a sum of two sizes, is zero.

    >>> overlap_ratio(torch.tensor([2, 0, 0]), torch.tensor([4, 3, 0])).tolist()
    [0.5, 0.0, 1.0]
    """
    ratio = numerator.double() / denominator.double()
    return torch.where(denominator == 0, torch.full_like(ratio, BOTH_EMPTY), ratio)


def relative_difference(predicted: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """`(predicted − reference) / reference`, and NaN where the reference is zero.

    >>> relative_difference(torch.tensor([3.0, 0.0, 1.0]), torch.tensor([2.0, 2.0, 0.0])).tolist()
    [0.5, -1.0, nan]
    """
    ratio = (predicted.double() - reference.double()) / reference.double()
    return torch.where(reference == 0, torch.full_like(ratio, float("nan")), ratio)


def mean_of_defined(values: torch.Tensor) -> torch.Tensor:
    """The mean of what is not NaN; NaN where nothing is. Say beside it how many values were left out.

    >>> mean_of_defined(torch.tensor([1.0, float("nan"), 3.0])).item()
    2.0
    """
    return torch.nanmean(values)
