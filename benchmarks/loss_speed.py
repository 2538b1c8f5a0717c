"""Forward and backward of the training loss, against nnU-Net's and MONAI's, in alternation.

python benchmarks/loss_speed.py [--rounds 9] [--threads 2] [--device cpu]

Ours and MONAI's take soft labels, nnU-Net's hard ones, which is what each trains on. Prints the median
(min–max) of the times, our time over each one's, and how much memory each allocates beyond its inputs at its
peak.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from monai.losses import DiceLoss
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from nnunet_dml.losses import CrossEntropyOverlapLoss

SHAPES = ((2, 3, 128, 128, 128), (8, 2, 512, 512))


def losses(shape: tuple[int, ...], device: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """The three losses, each with its own kind of target, as functions of the logits."""
    soft = torch.randn(shape, device=device).mul_(3).softmax(1)
    hard = soft.argmax(1, keepdim=True).float()
    ours = CrossEntropyOverlapLoss("dml")
    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    nnunet = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)
    monai = DiceLoss(include_background=False, softmax=True, batch=True, soft_label=True)
    return {
        "nnunet_dml, soft": lambda logits: ours(logits, soft),
        "nnU-Net, hard": lambda logits: nnunet(logits, hard),
        "MONAI, soft": lambda logits: monai(logits, soft) + cross_entropy(logits, soft),
    }


def seconds(loss: Callable[[Tensor], Tensor], logits: Tensor) -> float:
    """Wall time of one forward and backward pass."""
    logits.grad = None
    synchronise(logits)
    start = time.perf_counter()
    loss(logits).backward()
    synchronise(logits)
    return time.perf_counter() - start


def synchronise(tensor: Tensor) -> None:
    """Wait for the accelerator, where there is one."""
    if tensor.is_cuda:
        torch.cuda.synchronize()


def peak_bytes(loss: Callable[[Tensor], Tensor], logits: Tensor) -> int:
    """The most that forward and backward hold at one time, the gradient included, the inputs not."""
    logits.grad = None
    if logits.is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss(logits).backward()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        loss(logits).backward()
    level = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    return peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, {options.rounds} rounds")
    for shape in SHAPES:
        logits = torch.randn(shape, device=options.device, requires_grad=True)
        candidates = losses(shape, options.device)
        for loss in candidates.values():  # warm up
            seconds(loss, logits)
        times: dict[str, list[float]] = {name: [] for name in candidates}
        names = list(candidates)
        for i in range(options.rounds):
            for name in names if i % 2 == 0 else reversed(names):
                times[name].append(seconds(candidates[name], logits))
        medians = {name: statistics.median(values) for name, values in times.items()}
        mine = medians[names[0]]
        print("×".join(map(str, shape)))
        for name, values in times.items():
            spread = f"({1e3 * min(values):.0f}–{1e3 * max(values):.0f})"
            memory = peak_bytes(candidates[name], logits) / 2**20
            time_ms, ratio = 1e3 * medians[name], mine / medians[name]
            print(
                f"  {name:<17} {time_ms:6.0f} ms {spread:<12} ours/this {ratio:.2f}   peak {memory:4.0f} MiB"
            )


if __name__ == "__main__":
    main()
