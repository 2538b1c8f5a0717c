"""A training step of nnU-Net's network on a CPU that computes in bfloat16, `training.bfloat16`, against float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from benchmarks._timing import Aim, Options, Row, Table, compare
from nnunet_dml.losses import CrossEntropyOverlapLoss
from nnunet_dml.nnunet.bfloat16 import compute_in_bfloat16, is_wanted

PLAIN, HALF = "float32", "bfloat16"
SHAPES: dict[str, list[tuple[list[int], list[int]]]] = {
    "full": [([8, 1, 112, 96], [16, 32, 64, 128, 128]), ([2, 1, 40, 56, 40], [16, 32, 64, 128])],
    "quick": [([8, 1, 112, 96], [16, 32, 64, 128, 128]), ([2, 1, 40, 56, 40], [16, 32, 64, 128])],
    "minute": [([2, 1, 16, 16], [4, 8])],
}
SMALLEST = {"shape": [2, 1, 16, 16], "features": [4, 8]}


def network(dimensions: int, features: list[int]) -> nn.Module:
    """As nnU-Net's plans have it, without deep supervision."""
    conv, norm = (
        (nn.Conv2d, nn.InstanceNorm2d),
        (nn.Conv3d, nn.InstanceNorm3d),
    )[dimensions - 2]
    stages = len(features)
    return PlainConvUNet(
        input_channels=1,
        n_stages=stages,
        features_per_stage=features,
        conv_op=conv,
        kernel_sizes=3,
        strides=[1] + [2] * (stages - 1),
        n_conv_per_stage=2,
        num_classes=2,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=norm,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )


def candidates(shape: list[int], features: list[int]) -> dict[str, Callable[[], Any]]:
    """A step of each: forward, loss, backward, optimizer."""
    images = torch.randn(shape)
    target = torch.randn(shape[0], 2, *shape[2:]).mul_(3).softmax(1)
    loss = CrossEntropyOverlapLoss("dml")

    def step(half: bool) -> Callable[[], None]:
        net = network(len(shape) - 2, features).train()
        if half:
            compute_in_bfloat16(net, only_training=True)
        optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.99, nesterov=True)

        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss(net(images), target).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 12)
            optimizer.step()

        return run

    return {HALF: step(True), PLAIN: step(False)}


def measure(options: Options) -> Row:
    """A 2D and a 3D network."""
    auto = is_wanted("auto", torch.device("cpu"))
    row = Row(
        "bfloat16",
        "A training step in bfloat16 on a CPU",
        f"nnU-Net's network, the soft loss, backward pass and optimizer. This CPU has {'' if auto else 'no '}instructions for bfloat16, "
        f"so `training.bfloat16=auto` switches it {'on' if auto else 'off'}.",
    )
    if not auto and options.size == "full":  # emulated, a step takes minutes
        row.missing.append("training steps in bfloat16, for which this processor has no instructions")
        return row
    for shape, features in SHAPES[options.size]:
        title = f"{' × '.join(map(str, shape))}, features {', '.join(map(str, features))}"
        lines = compare(__name__, {"shape": shape, "features": features}, options)
        row.tables.append(Table(title, lines))
        if auto:  # what is off by default need not be fast
            found = lines[HALF].median / lines[PLAIN].median
            row.aims.append(Aim(f"{title}: time ÷ {PLAIN}", found, "≤", 1.0))
    return row
