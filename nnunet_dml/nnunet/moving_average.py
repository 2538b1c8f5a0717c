"""The exponential moving average of a network's weights: the mean teacher, and the model that is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage:
    """A network's moving average, d · average + (1 − d) · weights with d = min(1 − 1 / (n + 1), decay).

    n counts the updates before, so that the first weights do not linger: the first update copies, and as long as
    1 − 1 / (n + 1) is below the decay the average is the plain mean of all updates. Buffers are copied.

    The average is a network of its own, frozen and in eval mode; it is not part of the network's state.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with the network's weights.

        Args:
            network: The one that is trained, without wrappers of DDP or torch.compile.
            decay: The greatest d, in [0, 1).
        """
        self._network, self._decay = network, decay
        self._average = AveragedModel(network, multi_avg_fn=self._step).requires_grad_(False).eval()
        self._swapped = False

    @property
    def module(self) -> nn.Module:
        """The averaged network."""
        module: nn.Module = self._average.module
        return module

    @property
    def updates(self) -> int:
        """How many there were."""
        return int(self._average.n_averaged)  # kept on the CPU

    @property
    def decay(self) -> float:
        """The d of the next update."""
        return min(1 - 1 / (self.updates + 1), self._decay)

    def _step(self, average: Any, weights: Any, updates: Any) -> None:
        get_ema_multi_avg_fn(self.decay)(average, weights, updates)

    def update(self) -> None:
        """Take in the network's weights."""
        with torch.no_grad():
            self._average.update_parameters(self._network)

    def begin(self) -> None:
        """Copy the network's weights where nothing has been averaged yet, as weights may have been loaded since."""
        if self.updates == 0:
            self.module.load_state_dict(self._network.state_dict())

    def swap(self) -> None:
        """Exchange the network's weights and the average, exactly; a second call undoes it."""
        with torch.no_grad():
            for weight, average in zip(_tensors(self._network), _tensors(self.module), strict=True):
                kept = weight.clone()
                weight.copy_(average)
                average.copy_(kept)
        self._swapped = not self._swapped

    @contextmanager
    def in_network(self) -> Iterator[None]:
        """Let the network have the averaged weights inside the block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def training_state(self) -> dict[str, Any]:
        """What a checkpoint that holds the average as the network's weights needs besides, to go on training."""
        trained = self.module if self._swapped else self._network
        return {"weights": trained.state_dict(), "updates": self.updates}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take the network's weights for the average, and give the network those of `training_state`."""
        self.module.load_state_dict(self._network.state_dict())
        weights: Mapping[str, Tensor] = state["weights"]
        self._network.load_state_dict(weights)
        self._average.n_averaged.fill_(state["updates"])


def _tensors(network: nn.Module) -> list[Tensor]:
    """Every weight and buffer once: in a state_dict those that several modules share, as in nnU-Net's, come again."""
    return [*network.parameters(), *network.buffers()]
