"""The table of docs/how-to/migrate.md, against JDTLoss's definition written down from the papers in NumPy.

MONAI's part of the table is run against MONAI itself by the page's own block.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_dml.losses import (
    compatible_tversky_loss,
    dice_semimetric_loss,
    jaccard_metric_loss,
    soft_jaccard_loss,
)

RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet(np.ones(3), (2, 40)).transpose(0, 2, 1)
LABEL = RNG.dirichlet(np.ones(3), (2, 40)).transpose(0, 2, 1)
LABEL[0, 1] = 0.001  # below the threshold in the first image, above it in the second
HERE = (torch.from_numpy(PROBS), torch.from_numpy(LABEL))


def jdt_loss(
    alpha=1.0, beta=1.0, gamma=1.0, smooth=1e-3, norm=1, log=False, weights=(1, 1, 1), sets="D", present=False
):
    """1 − (tp + s) / (tp + α fp + β fn + s) of each set; of a data set (D), of images (I), of classes (C)."""
    x, y, d = ((np.abs(it) ** norm).sum(2) for it in (PROBS, LABEL, PROBS - LABEL))
    active = LABEL.max(2) > 0.01 if present else np.ones((2, 3), bool)
    if sets == "D":
        x, y, d = (it.sum(0, keepdims=True) for it in (x, y, d))
        active = active.any(0, keepdims=True)
    tp = (x + y - d) / 2
    score = (tp + smooth) / (tp + alpha * (x - tp) + beta * (y - tp) + smooth)
    loss = (-np.log(score) if log else 1 - score) ** gamma * np.array(weights)
    axis = 0 if sets == "C" else 1
    return float(np.mean((loss * active).sum(axis)[active.any(axis)] / active.sum(axis)[active.any(axis)]))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, lambda: jaccard_metric_loss(*HERE, smooth=2e-3)),
        ({"alpha": 0.5, "beta": 0.5}, lambda: dice_semimetric_loss(*HERE, smooth=2e-3)),
        ({"alpha": 0.3, "beta": 0.7, "smooth": 1.0}, lambda: compatible_tversky_loss(*HERE, alpha=0.3, beta=0.7, smooth=2)),
        ({"gamma": 2.0}, lambda: compatible_tversky_loss(*HERE, alpha=1, beta=1, power=2, smooth=2e-3)),
        ({"log": True}, lambda: jaccard_metric_loss(*HERE, log=True, smooth=2e-3)),
        ({"sets": "I"}, lambda: jaccard_metric_loss(*HERE, reduction="image", smooth=2e-3)),
        ({"sets": "C"}, lambda: jaccard_metric_loss(*HERE, reduction="class", smooth=2e-3)),
        ({"sets": "I", "present": True}, lambda: jaccard_metric_loss(*HERE, reduction="image", active="label", smooth=2e-3)),
        ({"sets": "C", "present": True}, lambda: jaccard_metric_loss(*HERE, reduction="class", active="label", smooth=2e-3)),
        ({"weights": (1, 2, 5)}, lambda: jaccard_metric_loss(*HERE, class_weights=[1, 2, 5], smooth=2e-3) * 8 / 3),
        ({"norm": 2, "smooth": 0}, lambda: soft_jaccard_loss(*HERE, norm=2, smooth=0)),
    ],
    ids=lambda it: str(it) if isinstance(it, dict) else "",
)  # fmt: skip
def test_the_recipes_give_equal_values(theirs, ours):
    assert float(ours()) == pytest.approx(jdt_loss(**theirs), rel=1e-9)


def test_sets_may_be_mixed():
    mixed = jaccard_metric_loss(*HERE, reduction={"batch": 1, "image": 2, "class": 1}, smooth=2e-3)
    parts = [weight * jdt_loss(sets=sets) for sets, weight in (("D", 1), ("I", 2), ("C", 1))]
    assert 4 * float(mixed) == pytest.approx(sum(parts), rel=1e-9)
