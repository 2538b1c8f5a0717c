"""Forward and backward of the training loss: cross-entropy and overlap from logits.

Ours, MONAI's and the plain formula take soft labels, nnU-Net's hard ones, which is what each trains on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from monai.losses import DiceLoss
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks._timing import Aim, Options, Point, Row, Table, compare, over
from nnunet_dml.losses import CrossEntropyOverlapLoss

OURS, NNUNET, MONAI, PLAIN = "nnunet_dml, soft", "nnU-Net, hard", "MONAI, soft", "plain formula, soft"
LIMITS = {NNUNET: 1.0, MONAI: 0.6, PLAIN: 0.6}
SHAPES: dict[str, list[list[int]]] = {
    "full": [[2, 3, 128, 128, 128], [8, 2, 512, 512]],
    "quick": [[2, 3, 64, 64, 64], [8, 2, 256, 256]],
    "minute": [[2, 3, 8, 8, 8]],
}
EDGES = {"full": (32, 48, 64, 96, 128), "quick": (16, 32, 64), "minute": (4, 8)}
CLASSES = {"full": (2, 4, 8, 16), "quick": (2, 4, 8), "minute": (2, 3)}
SMALLEST = {"shape": [2, 3, 8, 8, 8]}
CURVE = (
    "two classes have a way of their own, with one probability for both; and the gradient of 16 classes has 32 MiB, from which "
    "on glibc gives arrays back to the system, which makes their pages anew in every step. Where glibc keeps its memory "
    "(MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184) a value of the logits took 9.6, 13.2, 12.0 and "
    "12.3 ns of the processor with 2, 4, 8 and 16 classes, and without the way of two classes 14.1 ns with two; where it does not, "
    "16 classes took 13.4 ns and 3.0 ns of the system's (getrusage around 25 steps of 2 × C × 64³, one core of an AMD EPYC, "
    "2026-11-28)"
)


def plain(logits: Tensor, target: Tensor) -> Tensor:
    """½ CE + 1½ (Δ − 1) as one would write it down: Δ = 1 − (Σp + Σy − Σ|p − y|) / (Σp + Σy), over the batch."""
    p, y = logits.softmax(1)[:, 1:], target[:, 1:]
    axes = (0, *range(2, p.ndim))
    total, difference = (p + y).sum(axes), (p - y).abs().sum(axes)
    return 0.5 * cross_entropy(logits, target) - 1.5 * ((total - difference + 1e-5) / (total + 1e-5)).mean()


def losses(logits: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The losses, each with its own kind of target."""
    soft = torch.randn_like(logits).mul_(3).softmax(1)
    hard = soft.argmax(1, keepdim=True).float()
    ours = CrossEntropyOverlapLoss("dml")
    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    nnunet = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)
    monai = DiceLoss(include_background=False, softmax=True, batch=True, soft_label=True)
    found: dict[str, Callable[[], Tensor]] = {
        OURS: lambda: ours(logits, soft),
        NNUNET: lambda: nnunet(logits, hard),
        MONAI: lambda: monai(logits, soft) + cross_entropy(logits, soft),
        PLAIN: lambda: plain(logits, soft),
    }
    if logits.is_cuda:
        compiled = torch.compile(plain)
        found[f"{PLAIN}, torch.compile"] = lambda: compiled(logits, soft)
    return found


def candidates(shape: list[int], device: str = "cpu") -> dict[str, Callable[[], Any]]:
    """A step of each: the gradient of the logits, which are made anew in every step."""
    torch.manual_seed(0)
    logits = torch.randn(shape, device=device, requires_grad=True)

    def step(loss: Callable[[], Tensor]) -> None:
        logits.grad = None
        loss().backward()

    return {name: lambda loss=loss: step(loss) for name, loss in losses(logits).items()}


def measure(options: Options) -> Row:
    """The loss on all devices; curves on the first."""
    row = Row(
        "loss",
        "Cross-entropy + Dice semimetric loss, forward and backward",
        "Ours, MONAI's (`DiceLoss(soft_label=True)` + CE) and the plain formula in PyTorch take soft labels, nnU-Net's "
        "(`DC_and_CE_loss`) hard ones. Memory is what a step needs beyond its inputs, the gradient included.",
    )
    for device in options.devices:
        for shape in SHAPES[options.size]:
            title = f"{' × '.join(map(str, shape))}, {device}"
            lines = compare(__name__, {"shape": shape, "device": device}, options)
            row.tables.append(Table(title, lines))
            ours = lines[OURS]
            for name, limit in LIMITS.items():
                its = lines[name]
                row.aims.append(Aim(f"{title}: time ÷ {name}", ours.median / its.median, "≤", limit))
                if ours.mib and its.mib:
                    row.aims.append(Aim(f"{title}: memory ÷ {name}", ours.mib / its.mib, "≤", 1.0))
    edges, classes, device = EDGES[options.size], CLASSES[options.size], options.devices[0]
    points: list[Point] = [{"shape": [2, 3, n, n, n], "device": device} for n in edges]
    row.curves.append(over(__name__, "voxels", [2 * n**3 for n in edges], points, options))
    edge = edges[len(edges) // 2]
    points = [{"shape": [2, c, edge, edge, edge], "device": device} for c in classes]
    row.curves.append(replace(over(__name__, "classes", classes, points, options), reason=CURVE))
    if "cuda" not in options.devices:
        row.missing.append("the loss on a GPU and with torch.compile")
    return row
