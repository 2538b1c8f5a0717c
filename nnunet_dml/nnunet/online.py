"""Online validation on soft targets: upstream's pseudo-Dice against the labels, BDice and ECE beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from nnunetv2.training.loss.dice import get_tp_fp_fn_tn
from torch import Tensor
from torch import distributed as dist

from nnunet_dml.metrics import bdice_counts, bdice_from_counts, ece_from_counts, reliability_counts
from nnunet_dml.nnunet.soft_maps import SCALE
from nnunet_dml.nnunet.targets import fractions_of, labels_of

SERIES = (
    "val_bdice_per_class",
    "val_ece",
)  # kept by upstream's logger, one value an epoch, saved with checkpoints


def batch_statistics(logits: Tensor, target: Tensor) -> dict[str, np.ndarray]:
    """What one validation batch adds to the epoch's figures.

    Args:
        logits: (B, C, *spatial), full resolution.
        target: The packed soft target, (B, C, *spatial): fractions of the foreground, then the labels.

    Returns:
        `tp_hard`, `fp_hard`, `fn_hard` of the foreground classes as upstream's `validation_step` gives them,
        and the sums behind BDice and ECE.
    """
    labels = labels_of(target)
    # rounding to the integers on disk may have put 3 of 10 raters just below 0.3
    soft = fractions_of(target) + 0.5 / SCALE
    probs = logits.float().softmax(1)
    predicted = torch.zeros_like(probs).scatter_(1, probs.argmax(1, keepdim=True), 1)
    axes = [0, *range(2, logits.ndim)]
    tp, fp, fn, _ = get_tp_fp_fn_tn(predicted, labels, axes=axes)
    statistics = {"tp_hard": tp[1:], "fp_hard": fp[1:], "fn_hard": fn[1:]}
    statistics["bdice"] = bdice_counts(probs, soft)
    statistics["reliability"] = reliability_counts(probs, labels[:, 0])
    return {name: value.detach().cpu().numpy() for name, value in statistics.items()}


def epoch_figures(outputs: list[dict[str, Any]]) -> tuple[list[float], float]:
    """BDice per foreground class and pooled ECE of an epoch, over all batches and ranks."""
    sums = [np.sum([output[name] for output in outputs], axis=0) for name in ("bdice", "reliability")]
    if dist.is_available() and dist.is_initialized():
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, sums)
        sums = [np.sum([rank[i] for rank in everyone], axis=0) for i in range(2)]
    bdice, reliability = (torch.from_numpy(total) for total in sums)
    return bdice_from_counts(bdice).tolist(), float(ece_from_counts(reliability))
