"""The calibration error estimated with the kernels of `kde`, without bins."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_dml._checks import check_one_of, check_same_shape
from nnunet_dml.calibration.kde import (
    check_kernel_arguments,
    kernel_means,
    two_columns,
    working_dtype,
)

KINDS = ("canonical", "top_label", "marginal")


def kernel_calibration_error(
    probs: Tensor,
    labels: Tensor,
    *,
    bandwidth: float,
    kind: str = "canonical",
    norm: int = 1,
    memory_mib: float | None = None,
) -> Tensor:
    r"""The L_p calibration error: how far f(x) lies from what the labels of the others say about it.

    .. math:: CE_p = \Big( \frac{1}{N} \sum_j \big\| \hat E_{-j}[y | f(x_j)] - f(x_j) \big\|_p^p \Big)^{1/p}

    `"canonical"` compares the whole vector (Dirichlet kernel). `"top_label"` compares the greatest probability with the
    share of the label that its class has; `"marginal"` each class's probability with its share, and takes the
    mean over the classes instead of the sum (both: Beta kernel). All pairs of voxels are looked at: time
    grows with N², so give some thousands of voxels, drawn at random.

    Args:
        probs: f(x), (N, C), floating, in [0, 1], rows summing to one (`"marginal"`: each column for itself).
        labels: y, (N, C), floating: one-hot or fractions.
        bandwidth: h > 0; too small a one takes noise for error, too great a one hides error.
        kind: `"canonical"`, `"top_label"` or `"marginal"`.
        norm: p, 1 or 2.
        memory_mib: Bound on the working memory in MiB, see `kernel_calibrate`.

    Returns:
        A scalar float64 tensor, at least 0, lower is better; NaN for fewer than two rows.

    Raises:
        ValueError: A wrong shape, unknown kind or norm, bandwidth or memory not above 0.
        TypeError: `probs` or `labels` is not floating.

    Source: Popordanoska et al., A Consistent and Differentiable Lp Canonical Calibration Error Estimator,
    NeurIPS 2022, Eq. 6 to 9.
    """
    check_one_of("kind", kind, KINDS)
    check_one_of("norm", norm, (1, 2))
    check_same_shape(
        "labels", labels.shape, "probs", probs.shape, hint="For hard labels call `one_hot` first."
    )
    if not labels.is_floating_point():
        raise TypeError(f"Expected `labels` of a floating dtype, got {labels.dtype}.")
    check_kernel_arguments(probs, probs, labels, bandwidth, "dirichlet", None, None, memory_mib)
    if len(probs) < 2:
        return torch.tensor(torch.nan, dtype=torch.float64, device=probs.device)
    dtype = working_dtype(probs)
    own = torch.arange(len(probs), device=probs.device)

    def gaps(x: Tensor, y: Tensor) -> Tensor:
        means = kernel_means(x, x, y, dtype, bandwidth, own, None, memory_mib)
        return (means - x.double()).abs() ** norm

    with torch.no_grad():
        if kind == "canonical":
            mean = gaps(probs, labels).sum(1).mean()
        elif kind == "top_label":
            top = probs.argmax(1, keepdim=True)
            pair = (two_columns(it.gather(1, top)[:, 0]) for it in (probs, labels))
            mean = gaps(*pair)[:, 1].mean()
        else:
            columns = range(probs.shape[1])
            mean = torch.stack(
                [gaps(two_columns(probs[:, c]), two_columns(labels[:, c]))[:, 1].mean() for c in columns]
            ).mean()
        return mean ** (1 / norm)
