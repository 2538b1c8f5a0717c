"""Deep supervision: the weights of the outputs, and targets for the coarse ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_dml.losses._cardinalities import ONE_HOT_HINT, working_dtype


def deep_supervision_weights(num_outputs: int, *, keep_last: bool = False) -> tuple[float, ...]:
    """Weights 1, 1/2, 1/4, …, the last one 0, normalised to sum one; the same numbers as nnU-Net's.

    Args:
        num_outputs: How many outputs the network has, finest first; at least 1. A single one gets weight 1.
        keep_last: Give the last one 1e-6 before the normalisation. DDP without `torch.compile` needs it: it
            stops where a parameter gets no gradient at all.

    Returns:
        One weight per output.

    Raises:
        ValueError: `num_outputs` is below 1.

    >>> deep_supervision_weights(3)
    (0.6666666666666666, 0.3333333333333333, 0.0)
    """
    if num_outputs < 1:
        raise ValueError(f"Expected argument `num_outputs` to be at least 1, got {num_outputs}.")
    if num_outputs == 1:
        return (1.0,)
    weights = [0.5**i for i in range(num_outputs - 1)] + [1e-6 if keep_last else 0.0]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def average_down(target: Tensor, size: Sequence[int]) -> Tensor:
    """Average a target over the voxels that fall into each coarse one, so that fractions survive.

    Args:
        target: (B, C, *spatial) with one to three spatial axes, floating.
        size: The coarse spatial shape, on no axis larger than the target's.

    Returns:
        (B, C, *size); `target` itself where the size matches. Channels that sum to one go on doing so. Half
        precision comes back as float32.

    Raises:
        TypeError: `target` is not floating.
        ValueError: The number of axes does not match, or `size` is larger than the target.

    >>> import torch
    >>> average_down(torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), (2,)).tolist()
    [[[0.5, 0.0]]]
    """
    size = tuple(size)
    if not target.is_floating_point():
        raise TypeError(f"Expected `target` of a floating dtype, got {target.dtype}. {ONE_HOT_HINT}")
    if target.ndim - 2 != len(size) or not 1 <= len(size) <= 3:
        raise ValueError(
            f"Expected `target` of shape (B, C, *spatial) with {len(size)} spatial axes (1 to 3), "
            f"got {tuple(target.shape)}."
        )
    full = tuple(target.shape[2:])
    if size == full:
        return target
    if any(small < 1 or small > large for small, large in zip(size, full, strict=True)):
        raise ValueError(f"Expected argument `size` at most {full}, the shape of `target`, got {size}.")
    pools: tuple[Callable[..., Tensor], ...] = (
        functional.adaptive_avg_pool1d,
        functional.adaptive_avg_pool2d,
        functional.adaptive_avg_pool3d,
    )
    return pools[len(size) - 1](target.to(working_dtype(target)), size)


class DeepSupervisionLoss(nn.Module):
    """The weighted sum of a loss over a network's outputs.

    Args:
        loss: Called as `loss(output, target)`, or `loss(output, target, mask)` where there is a mask.
        weights: One per output, finite and at least 0, one of them above 0; see `deep_supervision_weights`.
            An output of weight 0 is skipped.
        targets_per_output: False: `forward` takes one target in full resolution and averages it down. True:
            it takes a target per output.

    Raises:
        ValueError: The weights are not as above.

    >>> import torch
    >>> from nnunet_dml.losses import CrossEntropyOverlapLoss
    >>> loss = DeepSupervisionLoss(CrossEntropyOverlapLoss(), deep_supervision_weights(3))
    >>> outputs = [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)]
    >>> loss(outputs, torch.full((1, 2, 8, 8), 0.5)).shape
    torch.Size([])
    """

    def __init__(
        self, loss: nn.Module, weights: Sequence[float], *, targets_per_output: bool = False
    ) -> None:
        super().__init__()
        self.weights = tuple(float(weight) for weight in weights)
        if not all(0 <= weight < math.inf for weight in self.weights) or not any(self.weights):
            raise ValueError(
                f"Expected argument `weights` to be at least 0 and one of them above 0, got {self.weights}."
            )
        self.loss = loss
        self.targets_per_output = targets_per_output

    def forward(
        self,
        outputs: Sequence[Tensor],
        targets: Tensor | Sequence[Tensor],
        mask: Tensor | Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            outputs: One (B, C, *spatial) per weight, finest first.
            targets: One (B, C, *spatial) in full resolution, averaged down to each output's shape; with
                `targets_per_output` a sequence, one per output in its shape.
            mask: Like `targets` with one channel, 0 where a voxel is ignored. Averaged down, a coarse voxel's
                target is the mean over its valid voxels, and it is valid where any of them is.

        Returns:
            A scalar.

        Raises:
            TypeError: A tensor where a sequence is expected, or the other way round.
            ValueError: The numbers of outputs, weights, targets and masks differ.
        """
        if isinstance(outputs, Tensor):
            raise TypeError("Expected `outputs` to be a sequence of tensors, one per weight, got one tensor.")
        self._check_count("outputs", outputs)
        if self.targets_per_output:
            self._check_sequence("targets", targets)
            if mask is not None:
                self._check_sequence("mask", mask)
        else:
            self._check_tensor("targets", targets)
            if mask is not None:
                self._check_tensor("mask", mask)

        total: Tensor | None = None
        for i, (weight, output) in enumerate(zip(self.weights, outputs, strict=True)):
            if weight == 0:
                continue
            if self.targets_per_output:
                target, valid = targets[i], None if mask is None else mask[i]
            else:
                assert isinstance(targets, Tensor)
                assert mask is None or isinstance(mask, Tensor)
                target, valid = _average_down_valid(targets, mask, output.shape[2:])
            value = self.loss(output, target) if valid is None else self.loss(output, target, valid)
            total = weight * value if total is None else total + weight * value
        assert total is not None
        return total

    def extra_repr(self) -> str:
        """The options, as `print(module)` shows them."""
        return f"weights={self.weights}, targets_per_output={self.targets_per_output}"

    def _check_count(self, name: str, value: Sequence[Tensor]) -> None:
        if len(value) != len(self.weights):
            raise ValueError(
                f"Expected `{name}` to be {len(self.weights)} tensors, one per weight, got {len(value)}."
            )

    def _check_sequence(self, name: str, value: Tensor | Sequence[Tensor]) -> None:
        if isinstance(value, Tensor):
            raise TypeError(
                f"Expected `{name}` to be a sequence, one per output, got a tensor (targets_per_output=True)."
            )
        self._check_count(name, value)

    def _check_tensor(self, name: str, value: Tensor | Sequence[Tensor]) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"Expected `{name}` to be one tensor in full resolution, got {type(value).__name__}. "
                "For one per output set `targets_per_output=True`."
            )


def _average_down_valid(
    target: Tensor, mask: Tensor | None, size: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """Target and mask at a coarse size; the target is the mean over its valid voxels, 0 where none is."""
    if mask is None or tuple(size) == tuple(target.shape[2:]):
        return average_down(target, size), mask
    valid = mask.bool()
    share = average_down(valid.to(working_dtype(target)), size)
    known = average_down(target.masked_fill(~valid, 0), size)
    any_valid = share > 0
    return known / torch.where(any_valid, share, 1.0), any_valid
