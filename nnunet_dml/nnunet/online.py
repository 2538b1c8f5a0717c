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
from nnunet_dml.nnunet.targets import TargetLayout

SERIES = (
    "val_bdice_per_class",
    "val_ece",
)  # kept by upstream's logger, one value an epoch, saved with checkpoints


def batch_statistics(logits: Tensor, target: Tensor, layout: TargetLayout) -> dict[str, np.ndarray]:
    """What one validation batch adds to the epoch's figures.

    Args:
        logits: (B, C, *spatial), full resolution.
        target: The packed soft target.
        layout: What its channels mean.

    Returns:
        `tp_hard`, `fp_hard`, `fn_hard` of the foreground classes or regions as upstream's `validation_step` gives
        them, and the sums behind BDice and ECE (of regions: pooled over them, each against its complement).
    """
    soft, mask = layout.soft(target)
    soft = soft + 0.5 / SCALE  # rounding to the integers on disk may have put 3 of 10 raters just below 0.3
    hard = layout.hard_of_packed(target)
    keep = None if mask is None else mask[:, 0]
    if mask is not None:  # the consensus may ignore what some rater has labelled
        mask = mask & (hard != layout.ignore_label if layout.regions is None else hard[:, -1:] < 0.5)
    axes = [0, *range(2, logits.ndim)]
    if layout.regions is None:
        probs = logits.float().softmax(1)
        predicted = torch.zeros_like(probs).scatter_(1, probs.argmax(1, keepdim=True), 1)
        labels = hard if mask is None else hard.masked_fill(~mask, 0)
        counted = get_tp_fp_fn_tn(predicted, labels, axes=axes, mask=mask)
        tp, fp, fn = (count[1:] for count in counted[:3])
        bdice = bdice_counts(probs, soft, mask=keep)
        reliability = reliability_counts(probs, labels[:, 0], mask=None if mask is None else mask[:, 0])
    else:
        probs = logits.float().sigmoid()
        reference = hard[:, : layout.outputs]
        tp, fp, fn, _ = get_tp_fp_fn_tn((probs > 0.5).float(), reference, axes=axes, mask=mask)
        # the metrics leave out the first channel, the background, which regions don't have
        bdice = bdice_counts(
            torch.cat((probs[:, :1], probs), 1), torch.cat((soft[:, :1], soft), 1), mask=keep
        )
        binary = torch.stack((1 - probs, probs), 2).flatten(0, 1)
        everywhere = None if mask is None else mask.expand_as(probs).flatten(0, 1)
        reliability = reliability_counts(binary, reference.flatten(0, 1).round().long(), mask=everywhere)
    statistics = {"tp_hard": tp, "fp_hard": fp, "fn_hard": fn, "bdice": bdice, "reliability": reliability}
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
