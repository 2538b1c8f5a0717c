"""The overlap losses as Modules: options at construction, checked there; `forward` calls the function."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from nnunet_dml._checks import check_one_of
from nnunet_dml.losses._cardinalities import check_options
from nnunet_dml.losses.overlap import (
    Reduction,
    compatible_tversky_loss,
    dice_semimetric_loss,
    jaccard_metric_loss,
    soft_dice_loss,
    soft_jaccard_loss,
)


class _OverlapLoss(nn.Module):
    """Keeps the options of a loss; `options` is what its function is called with."""

    def __init__(self, *, reduction: Reduction, smooth: float, gather: bool, **options: Any) -> None:
        super().__init__()
        tversky = {name: options[name] for name in ("alpha", "beta", "gamma") if name in options}
        check_options(reduction=reduction, smooth=smooth, **tversky)
        self.options: dict[str, Any] = {**options, "reduction": reduction, "smooth": smooth, "gather": gather}

    def extra_repr(self) -> str:
        """The options, as `print(module)` shows them."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class DiceSemimetricLoss(_OverlapLoss):
    """`dice_semimetric_loss` as a Module: the same options, the same value.

    >>> import torch
    >>> half = torch.full((1, 1, 4), 0.5)
    >>> DiceSemimetricLoss(variant=2)(half, half).item()
    0.0
    """

    def __init__(
        self,
        *,
        variant: Literal[1, 2] = 1,
        reduction: Reduction = "batch",
        smooth: float = 1e-5,
        gather: bool = False,
    ) -> None:
        check_one_of("variant", variant, (1, 2))
        super().__init__(variant=variant, reduction=reduction, smooth=smooth, gather=gather)

    def forward(self, probs: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of `probs` against `target`, both (B, C, *spatial); a scalar."""
        return dice_semimetric_loss(probs, target, mask=mask, **self.options)


class JaccardMetricLoss(_OverlapLoss):
    """`jaccard_metric_loss` as a Module: the same options, the same value.

    >>> import torch
    >>> half = torch.full((1, 1, 4), 0.5)
    >>> JaccardMetricLoss()(half, half).item()
    0.0
    """

    def __init__(
        self,
        *,
        variant: Literal[1, 2] = 1,
        reduction: Reduction = "batch",
        smooth: float = 1e-5,
        gather: bool = False,
    ) -> None:
        check_one_of("variant", variant, (1, 2))
        super().__init__(variant=variant, reduction=reduction, smooth=smooth, gather=gather)

    def forward(self, probs: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of `probs` against `target`, both (B, C, *spatial); a scalar."""
        return jaccard_metric_loss(probs, target, mask=mask, **self.options)


class CompatibleTverskyLoss(_OverlapLoss):
    """`compatible_tversky_loss` as a Module: the same options, the same value.

    >>> import torch
    >>> half = torch.full((1, 1, 4), 0.5)
    >>> CompatibleTverskyLoss(alpha=0.3, beta=0.7, gamma=1.5)(half, half).item()
    0.0
    """

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        beta: float = 0.5,
        gamma: float = 1.0,
        reduction: Reduction = "batch",
        smooth: float = 1e-5,
        gather: bool = False,
    ) -> None:
        super().__init__(
            alpha=alpha, beta=beta, gamma=gamma, reduction=reduction, smooth=smooth, gather=gather
        )

    def forward(self, probs: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of `probs` against `target`, both (B, C, *spatial); a scalar."""
        return compatible_tversky_loss(probs, target, mask=mask, **self.options)


class SoftDiceLoss(_OverlapLoss):
    """`soft_dice_loss` as a Module: the same options, the same value.

    >>> import torch
    >>> hard = torch.tensor([[[1.0, 0.0]]])
    >>> SoftDiceLoss()(hard, hard).item()
    0.0
    """

    def __init__(self, *, reduction: Reduction = "batch", smooth: float = 1e-5, gather: bool = False) -> None:
        super().__init__(reduction=reduction, smooth=smooth, gather=gather)

    def forward(self, probs: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of `probs` against `target`, both (B, C, *spatial); a scalar."""
        return soft_dice_loss(probs, target, mask=mask, **self.options)


class SoftJaccardLoss(_OverlapLoss):
    """`soft_jaccard_loss` as a Module: the same options, the same value.

    >>> import torch
    >>> hard = torch.tensor([[[1.0, 0.0]]])
    >>> SoftJaccardLoss(norm=2)(hard, hard).item()
    0.0
    """

    def __init__(
        self,
        *,
        norm: Literal[1, 2] = 1,
        reduction: Reduction = "batch",
        smooth: float = 1e-5,
        gather: bool = False,
    ) -> None:
        check_one_of("norm", norm, (1, 2))
        super().__init__(norm=norm, reduction=reduction, smooth=smooth, gather=gather)

    def forward(self, probs: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of `probs` against `target`, both (B, C, *spatial); a scalar."""
        return soft_jaccard_loss(probs, target, mask=mask, **self.options)
