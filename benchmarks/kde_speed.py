"""Kernel calibration of an image against a direct version that evaluates all voxels at once.

python benchmarks/kde_speed.py [--size 512] [--classes 3] [--keys 1000] [--bandwidth 1e-3] [--rounds 5] [--threads 1]

The direct version is Eq. 21 and 23 of Dice Semimetric Losses with voxels, keys and classes in one tensor, in log
space and float32, as one would write it down. Times are seconds of the processor, all threads together (other work on the
machine counts little), medians (min–max) in alternation; "chosen" voxels are the wrong ones and those near a
boundary, their choice and that of the keys counted in. Memory is how much the resident size of a fresh process
grows by one call at most. Errors are against float64 on 2,000 voxels, half of them chosen ones.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot

from nnunet_dml.calibration import calibrate_batch, choose_keys, kernel_calibrate, wrong_voxels
from nnunet_dml.calibration.batch import rows_of
from nnunet_dml.calibration.kde import FLOOR
from nnunet_dml.labels import boundary_voxels


def image(size: int, classes: int) -> tuple[Tensor, Tensor]:
    """Probabilities of an overconfident teacher and one-hot labels: blobs of some ten voxels' radius."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(1, classes, size, size, generator=random)
    smooth = avg_pool2d(avg_pool2d(noise, 41, 1, 20), 41, 1, 20)
    logits = smooth / smooth.std() * 6
    labels = (logits + 0.5 * avg_pool2d(noise, 5, 1, 2) / 0.2).argmax(1)
    return logits.softmax(1), one_hot(labels, classes).movedim(-1, 1).float()


def direct(probs: Tensor, keys: Tensor, labels: Tensor, bandwidth: float) -> Tensor:
    """All at once: (N, 1, C) times (1, M, C)."""
    alpha = keys / bandwidth + 1
    constants = torch.lgamma(alpha.sum(1)) - torch.lgamma(alpha).sum(1)
    exponents = (probs.clamp(min=FLOOR).log()[:, None] * (alpha - 1)[None]).sum(2) + constants
    return exponents.softmax(1) @ labels


def candidates(options: argparse.Namespace) -> tuple[dict[str, Callable[[], Tensor]], str]:
    """What is compared, and a line about the image."""
    probs, labels = image(options.size, options.classes)
    bandwidth, count = options.bandwidth, options.keys
    key_voxels = choose_keys(labels, keys=count, generator=torch.Generator().manual_seed(0))
    rows = probs.movedim(1, -1).reshape(-1, options.classes)
    keys, key_labels = rows_of(probs, key_voxels), rows_of(labels, key_voxels)
    chosen = wrong_voxels(probs, labels) | boundary_voxels(labels)

    def batch(whole: bool) -> Tensor:
        where = None if whole else wrong_voxels(probs, labels) | boundary_voxels(labels)
        return calibrate_batch(probs, labels, bandwidth=bandwidth, keys=count, where=where)

    pick = torch.cat([chosen.flatten().nonzero()[:1000, 0], torch.randperm(len(rows))[:1000]])
    exact = direct(rows[pick].double(), keys.double(), key_labels.double(), bandwidth)
    errors = {
        "direct": (direct(rows[pick], keys, key_labels, bandwidth) - exact).abs().max(),
        "ours": (kernel_calibrate(rows[pick], keys, key_labels, bandwidth=bandwidth) - exact).abs().max(),
    }
    line = (
        f"{options.size}×{options.size}, {options.classes} classes, {len(keys)} keys, h = {bandwidth:g}; "
        f"{100 * chosen.float().mean():.1f} % of the voxels chosen; greatest error "
        + ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    )
    made = {
        "direct, all voxels": lambda: direct(rows, keys, key_labels, bandwidth),
        "ours, all voxels": lambda: batch(True),
        "ours, chosen voxels": lambda: batch(False),
    }
    return made, line


def growth_mib(call: Callable[[], Tensor]) -> float:
    """How much the greatest resident size of this process grows beyond what it is now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    before = pages * resource.getpagesize()
    call()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20


def main() -> None:
    """Measure and print; with `--memory NAME` one call only, and its memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--bandwidth", type=float, default=1e-3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    made, line = candidates(options)
    if options.memory:
        print(growth_mib(made[options.memory]))
        return
    print(f"torch {torch.__version__}, {options.threads} threads, {options.rounds} rounds; {line}")
    memory = {
        name: float(
            subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--memory", name],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for name in made
    }
    times: dict[str, list[float]] = {name: [] for name in made}
    for i in range(options.rounds + 1):
        for name in list(made) if i % 2 == 0 else list(reversed(made)):
            start = time.process_time()
            made[name]()
            if i:  # the first round warms up
                times[name].append(time.process_time() - start)
    first = next(iter(made))
    for name, values in times.items():
        median = statistics.median(values)
        faster, smaller = statistics.median(times[first]) / median, memory[first] / max(memory[name], 1e-9)
        print(
            f"  {name:<20} {median:7.3f} s ({min(values):.3f}–{max(values):.3f})  {faster:6.1f} × faster   "
            f"{memory[name]:6.0f} MiB  {smaller:6.1f} × less"
        )


if __name__ == "__main__":
    main()
