"""Networks that compute in bfloat16, which takes half the time on CPUs that have instructions for it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import autocast, nn

Mode = Literal["off", "auto", "on"]


def is_wanted(mode: Mode, device: torch.device) -> bool:
    """Whether networks on a device shall compute in bfloat16.

    Args:
        mode: `auto` is on where the CPU has instructions for it (AVX-512 BF16, AMX); elsewhere it is slower.
        device: Any but a CPU keeps what nnU-Net does there, float16 on CUDA.
    """
    return device.type == "cpu" and (mode == "on" or (mode == "auto" and _is_native()))


def compute_in_bfloat16(network: nn.Module, *, only_training: bool) -> None:
    """Let a network's convolutions and products compute in bfloat16 from now on.

    Its weights, what it is given and what it returns stay float32, and so do loss, gradients of the weights and optimizer.

    Args:
        network: Changed in place: it gets hooks, which its copies have, too. Its outputs are a tensor or a sequence of some.
        only_training: Leave evaluation mode in float32.
    """
    scope = _Scope(only_training)
    network.register_forward_pre_hook(scope.enter)
    network.register_forward_hook(scope.leave, always_call=True)


class _Scope:
    """Autocast from a forward pass's begin to its end."""

    def __init__(self, only_training: bool) -> None:
        self._only_training = only_training
        self._open: list[Any] = []

    def enter(self, network: nn.Module, inputs: Any) -> None:
        if network.training or not self._only_training:
            self._open.append(autocast("cpu", torch.bfloat16).__enter__())

    def leave(self, network: nn.Module, inputs: Any, outputs: Any) -> Any:
        if not self._open:
            return outputs
        self._open.pop().__exit__(None, None, None)
        if outputs is None:  # it raised
            return None
        return outputs.float() if isinstance(outputs, torch.Tensor) else [it.float() for it in outputs]


def _is_native() -> bool:
    known = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # PyTorch's own questions, not public
    return any(getattr(torch.cpu, it, lambda: False)() for it in known)
