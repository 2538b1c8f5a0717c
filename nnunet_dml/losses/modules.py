"""The overlap losses as Modules: options at construction, checked there; `forward` calls the function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor, nn

from nnunet_dml.losses._averaging import Active, Reduction, class_weight_tensor
from nnunet_dml.losses.lovasz import lovasz_softmax_loss
from nnunet_dml.losses.overlap import (
    compatible_tversky_loss,
    dice_semimetric_loss,
    jaccard_metric_loss,
    soft_dice_loss,
    soft_jaccard_loss,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LovaszOptions(TypedDict, total=False):
    """Options that every loss has; defaults and meaning are those of `dice_semimetric_loss`."""

    log: bool
    reduction: Reduction
    active: Active
    threshold: float
    class_weights: Sequence[float] | None


class OverlapOptions(LovaszOptions, total=False):
    """Options of every loss but Lovász's."""

    smooth: float
    gather: bool


class _OverlapLoss(nn.Module):
    """Keeps the options of `function`; class weights as a buffer, which moves with the Module but is not saved."""

    function: ClassVar[Callable[..., Tensor]]
    class_weights: Tensor | None

    def __init__(self, **options: Any) -> None:
        super().__init__()
        parameters = signature(self.function).parameters.values()
        self.options = {p.name: p.default for p in parameters if p.kind is Parameter.KEYWORD_ONLY} | options
        self.options.pop("mask")
        weights = self.options.pop("class_weights")
        channels = 1 if weights is None else len(weights)
        buffer = class_weight_tensor(weights, channels, "target")
        self.register_buffer("class_weights", buffer, persistent=False)
        # the function knows its options' ranges: one voxel makes it look, here and without other ranks
        voxel = torch.zeros(1, channels, 1)
        alone = {"gather": False} if "gather" in self.options else {}
        self.function(voxel, voxel, **{**self.options, **alone})

    def forward(self, probs: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of `probs` against `target`, both (B, C, *spatial); a scalar."""
        return self.function(probs, target, mask=mask, class_weights=self.class_weights, **self.options)

    def extra_repr(self) -> str:
        """The options, as `print(module)` shows them."""
        weights = {} if self.class_weights is None else {"class_weights": self.class_weights.tolist()}
        return ", ".join(f"{name}={value!r}" for name, value in {**self.options, **weights}.items())


class DiceSemimetricLoss(_OverlapLoss):
    """`dice_semimetric_loss` as a Module: the same options, the same value.

    >>> import torch
    >>> half = torch.full((1, 1, 4), 0.5)
    >>> DiceSemimetricLoss(variant=2)(half, half).item()
    0.0
    """

    function = staticmethod(dice_semimetric_loss)

    def __init__(self, *, variant: Literal[1, 2] = 1, **options: Unpack[OverlapOptions]) -> None:
        super().__init__(variant=variant, **options)


class JaccardMetricLoss(_OverlapLoss):
    """`jaccard_metric_loss` as a Module: the same options, the same value.

    >>> import torch
    >>> half = torch.full((1, 1, 4), 0.5)
    >>> JaccardMetricLoss(active="label")(half, half).item()
    0.0
    """

    function = staticmethod(jaccard_metric_loss)

    def __init__(self, *, variant: Literal[1, 2] = 1, **options: Unpack[OverlapOptions]) -> None:
        super().__init__(variant=variant, **options)


class CompatibleTverskyLoss(_OverlapLoss):
    """`compatible_tversky_loss` as a Module: the same options, the same value.

    >>> import torch
    >>> half = torch.full((1, 1, 4), 0.5)
    >>> CompatibleTverskyLoss(alpha=0.3, beta=0.7, gamma=1.5)(half, half).item()
    0.0
    """

    function = staticmethod(compatible_tversky_loss)

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float = 1.0,
        power: float = 1.0,
        **options: Unpack[OverlapOptions],
    ) -> None:
        super().__init__(alpha=alpha, beta=beta, gamma=gamma, power=power, **options)


class SoftDiceLoss(_OverlapLoss):
    """`soft_dice_loss` as a Module: the same options, the same value.

    >>> import torch
    >>> hard = torch.tensor([[[1.0, 0.0]]])
    >>> SoftDiceLoss()(hard, hard).item()
    0.0
    """

    function = staticmethod(soft_dice_loss)

    def __init__(self, **options: Unpack[OverlapOptions]) -> None:
        super().__init__(**options)


class SoftJaccardLoss(_OverlapLoss):
    """`soft_jaccard_loss` as a Module: the same options, the same value.

    >>> import torch
    >>> hard = torch.tensor([[[1.0, 0.0]]])
    >>> SoftJaccardLoss(norm=2)(hard, hard).item()
    0.0
    """

    function = staticmethod(soft_jaccard_loss)

    def __init__(self, *, norm: Literal[1, 2] = 1, **options: Unpack[OverlapOptions]) -> None:
        super().__init__(norm=norm, **options)


class LovaszSoftmaxLoss(_OverlapLoss):
    """`lovasz_softmax_loss` as a Module: the same options, the same value.

    >>> import torch
    >>> hard = torch.tensor([[[1.0, 0.0]]])
    >>> LovaszSoftmaxLoss()(hard, hard).item()
    0.0
    """

    function = staticmethod(lovasz_softmax_loss)

    def __init__(self, **options: Unpack[LovaszOptions]) -> None:
        super().__init__(**options)
