"""Kernel calibration of an image against a direct version that evaluates all voxels at once.

The direct version is Eq. 21 and 23 of Dice Semimetric Losses with voxels, keys and classes in one tensor, in log space
and float32. Where that would not fit it gets the first voxels only, and its time and memory are scaled to all of them.
The matrix product is the same with the sum over the classes as one, all voxels at once: fewer and smaller arrays, as inexact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, avg_pool3d, one_hot

from benchmarks._timing import Aim, Line, Options, Point, Row, Table, compare, over
from nnunet_dml.calibration import calibrate_batch, choose_keys, kernel_calibrate, wrong_voxels
from nnunet_dml.calibration.batch import rows_of
from nnunet_dml.calibration.kde import FLOOR
from nnunet_dml.labels import boundary_voxels

OURS, CHOSEN, DIRECT = "nnunet_dml, all voxels", "nnunet_dml, chosen voxels", "direct, all voxels"
PRODUCT = "matrix product, all voxels"
SHAPES = {"full": ([512, 512], [128] * 3), "quick": ([128, 128], [32] * 3), "minute": ([16, 16],)}
CLASSES = {"full": (2, 3, 14), "quick": (2, 3, 14), "minute": (2, 3)}
KEYS = {"full": (125, 250, 500, 1000, 2000), "quick": (125, 250, 500, 1000), "minute": (20, 40)}
EDGES = {"full": (64, 128, 256, 512), "quick": (32, 64, 128), "minute": (8, 16)}
GIB = {"full": 4.0, "quick": 0.25, "minute": 0.25}  # what the direct version's tensor may take
SMALLEST = {"shape": [16, 16], "share": 1.0}
BANDWIDTH = 1e-3


def image(shape: list[int], classes: int, device: str) -> tuple[Tensor, Tensor]:
    """Probabilities of an overconfident teacher and one-hot labels: blobs whose size grows with the image's."""
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(1, classes, *shape, generator=random)
    pool = avg_pool2d if len(shape) == 2 else avg_pool3d
    radius = max(2, shape[0] // 25)
    smooth = pool(pool(noise, 2 * radius + 1, 1, radius), 2 * radius + 1, 1, radius)
    logits = smooth / smooth.std() * 6
    detail = pool(noise, 5, 1, 2)
    labels = (logits + 0.5 * detail / detail.std()).argmax(1)
    return logits.softmax(1).to(device), one_hot(labels, classes).movedim(-1, 1).float().to(device)


def direct(probs: Tensor, keys: Tensor, labels: Tensor, bandwidth: float) -> Tensor:
    """All at once: (N, 1, C) times (1, M, C)."""
    alpha = keys / bandwidth + 1
    constants = torch.lgamma(alpha.sum(1)) - torch.lgamma(alpha).sum(1)
    exponents = (probs.clamp(min=FLOOR).log()[:, None] * (alpha - 1)[None]).sum(2) + constants
    return exponents.softmax(1) @ labels


def product(probs: Tensor, keys: Tensor, labels: Tensor, bandwidth: float) -> Tensor:
    """The same from (N, M) alone: (N, C) @ (C, M)."""
    alpha = keys / bandwidth + 1
    constants = torch.lgamma(alpha.sum(1)) - torch.lgamma(alpha).sum(1)
    return (probs.clamp(min=FLOOR).log() @ (alpha - 1).T + constants).softmax(1) @ labels


def candidates(
    shape: list[int], classes: int, keys: int, share: float, device: str = "cpu", as_product: bool = False
) -> dict[str, Callable[[], Any]]:
    """Ours draw their keys and choose their voxels in the call; the others get their keys."""
    probs, labels = image(shape, classes, device)
    random = torch.Generator(device).manual_seed(0)
    key_voxels = choose_keys(labels, keys=keys, generator=random)
    key_probs, key_labels = rows_of(probs, key_voxels), rows_of(labels, key_voxels)
    rows = probs.movedim(1, -1).reshape(-1, classes)[: max(1, round(share * prod(shape)))]

    def batch(chosen: bool) -> Tensor:
        where = wrong_voxels(probs, labels) | boundary_voxels(labels) if chosen else None
        return calibrate_batch(probs, labels, bandwidth=BANDWIDTH, keys=keys, where=where)

    if as_product:
        given = rows, key_probs, key_labels
        return {OURS: lambda: batch(False), PRODUCT: lambda: product(*given, BANDWIDTH)}
    return {
        OURS: lambda: batch(False),
        CHOSEN: lambda: batch(True),
        DIRECT: lambda: direct(rows, key_probs, key_labels, BANDWIDTH),
    }


def errors(shape: list[int], classes: int, keys: int) -> str:
    """The greatest errors against float64 on 2,000 voxels."""
    probs, labels = image(shape, classes, "cpu")
    key_voxels = choose_keys(labels, keys=keys, generator=torch.Generator().manual_seed(0))
    mine = rows_of(probs, key_voxels), rows_of(labels, key_voxels)
    some = rows_of(probs, torch.randperm(prod(shape))[:2000])
    exact = direct(some.double(), *(it.double() for it in mine), BANDWIDTH)
    found = {
        "direct": direct(some, *mine, BANDWIDTH),
        "matrix product": product(some, *mine, BANDWIDTH),
        "nnunet_dml": kernel_calibrate(some, *mine, bandwidth=BANDWIDTH),
    }
    worst = ", ".join(f"{name} {float((it - exact).abs().max()):.1e}" for name, it in found.items())
    return f"Greatest error against float64 on 2,000 voxels: {worst}."


def compared(options: Options, shape: list[int], classes: int, device: str) -> tuple[dict[str, Line], float]:
    """The candidates, the direct one scaled to all voxels, and the share of them that it was given."""
    share = min(1.0, GIB[options.size] * 2**30 / (4.0 * prod(shape) * keys_of(options) * classes))
    point = {"shape": shape, "classes": classes, "keys": keys_of(options), "share": share, "device": device}
    lines = compare(__name__, point, options, rounds=min(3, options.rounds))
    return {**lines, DIRECT: lines[DIRECT].scaled(1 / share)}, share


def products(options: Options, shape: list[int], device: str) -> Iterator[Table]:
    """Ours against the matrix product, which needs no scaling in 2D."""
    for classes in CLASSES[options.size]:
        point = {"shape": shape, "classes": classes, "keys": keys_of(options), "share": 1.0, "device": device}
        lines = compare(__name__, {**point, "as_product": True}, options, rounds=min(3, options.rounds))
        yield Table(f"{' × '.join(map(str, shape))}, {classes} classes, {device}", lines)


def keys_of(options: Options) -> int:
    """How many keys are meant where they are not what varies."""
    return 40 if options.size == "minute" else 1000


def measure(options: Options) -> Row:
    """All shapes, classes and devices; curves in 2D, without the direct version, which is linear by construction."""
    row = Row(
        "kde",
        f"Kernel calibration, {keys_of(options)} keys, h = {BANDWIDTH:g}",
        'Against Eq. 21 and 23 written down directly: voxels × keys × classes in one float32 tensor, in log space. "Chosen" are '
        "the wrong voxels and those near a boundary, as in training, the choice counted in. The last tables are against the same with "
        "the sum over the classes as a matrix product, still voxels × keys at once in float32: nearer to ours in time, as inexact as "
        "the direct version.",
    )
    for device in options.devices:
        for shape in SHAPES[options.size]:
            for classes in CLASSES[options.size]:
                title = f"{' × '.join(map(str, shape))}, {classes} classes, {device}"
                lines, share = compared(options, shape, classes, device)
                note = errors(shape, classes, keys_of(options))
                part = (
                    f" The direct version was given {100 * share:.2g} % of the voxels, and scaled linearly."
                )
                row.tables.append(Table(title, lines, note + part * (share < 1)))
                ours, other = lines[OURS], lines[DIRECT]
                row.aims.append(Aim(f"{title}: direct time ÷ ours", other.median / ours.median, "≥", 8))
                if ours.mib and other.mib:
                    row.aims.append(Aim(f"{title}: memory ÷ direct", ours.mib / other.mib, "≤", 1 / 12))
        row.tables.extend(products(options, SHAPES[options.size][0], device))
    edges, size, device = EDGES[options.size], options.size, options.devices[0]
    middle, keys = edges[len(edges) // 2], keys_of(options)
    for name, sizes, points in (
        ("voxels", [n * n for n in edges], [([n, n], 3, keys) for n in edges]),
        ("keys", KEYS[size], [([middle, middle], 3, it) for it in KEYS[size]]),
        ("classes", CLASSES[size], [([middle, middle], it, keys) for it in CLASSES[size]]),
    ):
        at: list[Point] = [
            {"shape": s, "classes": c, "keys": k, "share": 1e-9, "device": device} for s, c, k in points
        ]
        curve = over(__name__, name, sizes, at, options, rounds=min(3, options.rounds))
        reason = REASONS.get(name, "")
        row.curves.append(
            type(curve)(name, sizes, {it: curve.lines[it] for it in (OURS, CHOSEN)}, reason=reason)
        )
    if "cuda" not in options.devices:
        row.missing.append("kernel calibration on a GPU")
    return row


REASONS = {
    "classes": "the softmax over the keys, which is most of the work, is done once for all classes; a class costs a column of "
    "two matrix products"
}
