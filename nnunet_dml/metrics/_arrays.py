"""What every metric does with its arguments: arrays and tensors become tensors, shapes are checked."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

Array: TypeAlias = npt.NDArray[Any] | torch.Tensor

SUM_TOLERANCE = 1e-3  # nnU-Net's probabilities may have been stored in half precision


def as_tensor(array: Array, name: str) -> torch.Tensor:
    """A tensor over the same memory where PyTorch can share it, else over a copy. It is only read.

    Args:
        array: A NumPy array or a tensor on any device. Tensors on Apple's GPU come back on the CPU, because
            float64, in which sums are kept, does not exist there.
        name: The argument's name, for the message.

    Raises:
        TypeError: If it is neither, or is not numeric.
    """
    if isinstance(array, torch.Tensor):
        array = array.detach()
        return array.cpu() if array.device.type == "mps" else array
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"Expected argument `{name}` to be a NumPy array or a tensor, got {type(array).__name__}."
        )
    if array.dtype.kind not in "biuf":
        raise TypeError(f"Expected argument `{name}` to hold numbers, got dtype {array.dtype}.")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return torch.as_tensor(array.astype(np.int64))
    native = array.dtype.newbyteorder("=")
    if array.dtype != native or not array.flags.writeable or any(step < 0 for step in array.strides):
        array = np.array(array, dtype=native, order="C")
    return torch.as_tensor(array)


def is_label_dtype(tensor: torch.Tensor) -> bool:
    """Whether values of this type can be labels: integers or booleans."""
    return not tensor.dtype.is_floating_point and not tensor.dtype.is_complex


def check_shapes(probs: torch.Tensor, *, leading: str) -> None:
    """Raise `ValueError` unless `probs` is floating and has `leading` axes, two classes or more, and a space.

    Args:
        probs: The probabilities.
        leading: `"C"` for one case, `"BC"` for a batch.
    """
    axes = ", ".join(leading)
    if not probs.dtype.is_floating_point:
        raise TypeError(f"Expected `probs` to hold floating point probabilities, got dtype {probs.dtype}.")
    if probs.ndim <= len(leading) or probs.shape[len(leading) - 1] < 2:
        raise ValueError(
            f"Expected `probs` of shape ({axes}, *spatial) with the background and at least one more class, "
            f"got {tuple(probs.shape)}."
        )


def check_mask(mask: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The mask as it came, if it is boolean and has the given shape.

    Raises:
        TypeError: If it is not boolean.
        ValueError: If its shape differs.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"Expected `mask` to be boolean (True: the voxel counts), got dtype {mask.dtype}.")
    if tuple(mask.shape) != shape:
        raise ValueError(f"Expected `mask` of shape {shape}, got {tuple(mask.shape)}.")
    return mask


def check_distribution(values: torch.Tensor, name: str, *, axis: int = 0) -> None:
    """Raise `ValueError` unless the values are in [0, 1] and sum to one along an axis, both within 1e-3.

    This reads every value: it belongs where data enters, not into a training step.

    Args:
        values: Probabilities or soft labels.
        name: The argument's name, for the message.
        axis: The axis of the classes.

    >>> check_distribution(torch.tensor([[2.0], [-1.0]]), "probs")
    Traceback (most recent call last):
    ...
    ValueError: Expected `probs` in [0, 1], got values from -1 to 2. Logits need a softmax first.
    """
    if values.numel() == 0:
        return
    low, high = (float(v) for v in torch.aminmax(values))
    if low != low or high != high:  # NaN, which aminmax passes on
        raise ValueError(f"Expected `{name}` in [0, 1], got NaN in {int(values.isnan().sum())} values.")
    if low < -SUM_TOLERANCE or high > 1 + SUM_TOLERANCE:
        raise ValueError(
            f"Expected `{name}` in [0, 1], got values from {low:g} to {high:g}. Logits need a softmax first."
        )
    total = values.sum(axis, dtype=torch.float32 if values.dtype.itemsize < 4 else values.dtype)
    worst = float((total - 1).abs().max())
    if worst > SUM_TOLERANCE:
        raise ValueError(
            f"Expected `{name}` to sum to one over the classes, background included, "
            f"got sums up to {worst:.3g} off."
        )
