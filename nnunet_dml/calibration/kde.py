"""Kernel regression of the labels on the predicted probabilities: Dirichlet for softmax, Beta for regions."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nnunet_dml._checks import check_one_of, check_same_shape

KERNELS = ("dirichlet", "beta")
FLOOR = torch.finfo(torch.float32).tiny  # what an exact 0 is taken for in log f(x)
MEMORY_MIB = 8.0  # fits a processor's cache; more is slower there
MEMORY_MIB_ACCELERATOR = 256.0  # where many small steps cost more than memory

_BYTES_PER_PAIR = 24  # of a query and a key: the exponent in float64, before and after softmax in `dtype`
_BYTES_PER_VALUE = 80  # of a query and a class: its logarithm, the mean, what is known, and what these become
_NEVER = -1e300  # the exponent of a key that is left out


def kernel_calibrate(
    probs: Tensor,
    key_probs: Tensor,
    key_labels: Tensor,
    *,
    bandwidth: float,
    kernel: str = "dirichlet",
    own_key: Tensor | None = None,
    key_weights: Tensor | None = None,
    memory_mib: float | None = None,
) -> Tensor:
    r"""Calibrated probabilities: the estimate of E[y | f(x)] from key voxels.

    .. math:: \hat E[y | f(x)] = \frac{\sum_i w_i k(f(x), f(x_i)) y_i}{\sum_i w_i k(f(x), f(x_i))}, \qquad
              \log k = \log \Gamma(\sum_c \alpha_{ic}) + \sum_c (\alpha_{ic} - 1) \log f(x)_c - \log \Gamma(\alpha_{ic}),
              \quad \alpha_i = f(x_i) / h + 1

    Exponents reach 1e7 at h = 1e-5 and what counts is their differences, so they are made in float64, one
    matrix product per chunk, and only what is left after the greatest is taken away goes through a float32 softmax: rows
    sum to one at every bandwidth. In log f(x) a zero counts as 1.2e-38, so that a saturated
    voxel is a very sure one, not an impossible one.

    A class that no key has a share of (other than the row's own key) keeps the value it had; the rest of the
    mass is spread by the estimate. Without any key all keep theirs.

    Args:
        probs: f(x), (N, C), floating, in [0, 1], rows summing to one (with `"beta"` each column for itself).
        key_probs: f(x_i), (M, C).
        key_labels: y_i, (M, C), floating: one-hot or fractions, rows summing to one (with `"beta"` not so).
        bandwidth: h > 0; the greater, the smoother.
        kernel: `"dirichlet"`: the columns are the classes of one softmax. `"beta"`: each column is a
            probability of its own against the rest (a region); on two softmax classes both are the same.
        own_key: (N,), integer: which key the row itself is, and is left out of its estimate; -1 for none.
        key_weights: w_i > 0, (M,); all the same by default. Where keys were drawn more often from one class
            than from another, the inverse of the share drawn gives back the true frequencies.
        memory_mib: Bound on the working memory in MiB, beside the inputs and the result (at least a row of
            24 · M + 80 · C bytes). By default 8 on the CPU, 256 elsewhere.

    Returns:
        (N, C), a new tensor, float32 (float64 if `probs` is); rows sum to one. No gradient flows.

    Raises:
        ValueError: A wrong shape, unknown kernel, bandwidth or memory not above 0.
        TypeError: A dtype that is not floating (`own_key`: not integer).

    Source: Wang et al., Dice Semimetric Losses, MICCAI 2023, appendix D, Eq. 21 to 23; Popordanoska et al., A
    Consistent and Differentiable Lp Canonical Calibration Error Estimator, NeurIPS 2022.

    >>> keys, labels = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.6, 0.4], [0.0, 1.0]])
    >>> kernel_calibrate(torch.tensor([[0.9, 0.1]]), keys, labels, bandwidth=0.01)
    tensor([[0.6000, 0.4000]])
    """
    check_kernel_arguments(probs, key_probs, key_labels, bandwidth, kernel, own_key, key_weights, memory_mib)
    with torch.no_grad():
        dtype = working_dtype(probs)
        result = probs.to(dtype, copy=True)
        if not len(probs) or not len(key_probs):
            return result
        more = dtype, bandwidth, own_key, key_weights, memory_mib
        if kernel == "dirichlet":
            for here, means, known in _chunks(probs, key_probs, key_labels, *more):
                result[here] = _spread(result[here], means, known)
            return result
        for column in range(probs.shape[1]):
            keys, labels = (two_columns(it[:, column]) for it in (key_probs, key_labels))
            for here, means, known in _chunks(probs[:, column], keys, labels, *more):
                estimate = means[:, 1].to(dtype)
                result[here, column] = torch.where(known.all(1), estimate, result[here, column])
        return result


def kernel_means(
    probs: Tensor,
    key_probs: Tensor,
    key_labels: Tensor,
    dtype: torch.dtype,
    bandwidth: float,
    own_key: Tensor | None,
    key_weights: Tensor | None,
    memory_mib: float | None,
) -> Tensor:
    """The estimate itself, float64 (N, C): the weighted mean of the key labels; arguments as of `_chunks`."""
    chunks = _chunks(probs, key_probs, key_labels, dtype, bandwidth, own_key, key_weights, memory_mib)
    return torch.cat([means for _, means, _ in chunks])


def _chunks(
    probs: Tensor,
    key_probs: Tensor,
    key_labels: Tensor,
    dtype: torch.dtype,
    bandwidth: float,
    own_key: Tensor | None,
    key_weights: Tensor | None,
    memory_mib: float | None,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The estimate for some rows after the others, and which classes a key other than the row's own has a share of.

    Args:
        probs: (N, C) with N and C at least 1, or (N,), which stands for (1 − p, p); the rest as in `kernel_calibrate`, with
            M at least 1.
        key_probs: (M, C).
        key_labels: (M, C).
        dtype: Precision of the softmax over the keys.
        bandwidth: h.
        own_key: (N,) or None.
        key_weights: (M,) or None.
        memory_mib: Bound on the working memory, None for the device's.

    Yields:
        The rows; float64 (rows, C), the weighted mean of the key labels; bool (rows, C).
    """
    keys = key_probs.double() / bandwidth  # α − 1
    # the sum of the α keeps rounding from counting: a row that sums to 1 + 1e-7 is 0.01 too long at h = 1e-5
    constants = torch.lgamma((keys + 1).sum(1)) - torch.lgamma(keys + 1).sum(1)
    if key_weights is not None:
        constants += key_weights.double().log()
    factors = torch.cat([keys, constants[:, None]], 1).T.contiguous()  # (C + 1, M)
    labels = key_labels.double().T.contiguous()  # (C, M): a product with a narrow matrix is faster this way
    has = key_labels > 0
    shares = has.sum(0, dtype=torch.int32)

    (n, m), classes = (len(probs), len(keys)), len(labels)
    if memory_mib is None:
        memory_mib = MEMORY_MIB if probs.device.type == "cpu" else MEMORY_MIB_ACCELERATOR
    per_row = _BYTES_PER_PAIR * m + _BYTES_PER_VALUE * classes
    rows = min(n, max(1, int(memory_mib * 2**20 / per_row)))
    exponents = torch.empty(rows, m, dtype=torch.float64, device=probs.device)
    narrow = torch.empty(rows, m, dtype=dtype, device=probs.device)
    for start in range(0, n, rows):
        here = slice(start, min(start + rows, n))
        x = two_columns(probs[here]) if probs.ndim == 1 else probs[here].double()
        logs = x.clamp(min=FLOOR).log_()
        e = exponents[: len(logs)]
        torch.mm(torch.cat([logs, logs.new_ones(len(logs), 1)], 1), factors, out=e)
        known = shares.expand(len(logs), -1)
        if own_key is not None:
            own = own_key[here].long()[:, None]
            place = own.clamp(min=0)
            e.scatter_(1, place, torch.where(own >= 0, _NEVER, e.gather(1, place)))
            known = known - (has[place[:, 0]] & (own >= 0)).int()
        e.sub_(e.amax(1, keepdim=True))  # what is left may be rounded to float32
        weights = narrow[: len(logs)].copy_(e).softmax(1)
        # in float64 the product with the labels knows neither TF32 nor autocast
        yield here, torch.nn.functional.linear(e.copy_(weights), labels), known > 0


def two_columns(values: Tensor) -> Tensor:
    """(N,) probabilities as (N, 2): against and for; in float64, which 1 - p needs near 1."""
    values = values.double()
    return torch.stack([1 - values, values], 1)


def working_dtype(probs: Tensor) -> torch.dtype:
    """float64 stays, all else becomes float32."""
    return torch.float64 if probs.dtype == torch.float64 else torch.float32


def check_kernel_arguments(
    probs: Tensor,
    key_probs: Tensor,
    key_labels: Tensor,
    bandwidth: float,
    kernel: str,
    own_key: Tensor | None,
    key_weights: Tensor | None,
    memory_mib: float | None,
) -> None:
    """Raise `ValueError` or `TypeError` as `kernel_calibrate` says; looks at no values."""
    for name, tensor in (("probs", probs), ("key_probs", key_probs), ("key_labels", key_labels)):
        if not tensor.is_floating_point():
            raise TypeError(f"Expected `{name}` of a floating dtype, got {tensor.dtype}.")
        if tensor.ndim != 2:
            raise ValueError(f"Expected `{name}` of two axes, voxels and classes, got {tuple(tensor.shape)}.")
    check_same_shape("key_labels", key_labels.shape, "key_probs", key_probs.shape)
    if probs.shape[1] != key_probs.shape[1] or not probs.shape[1]:
        raise ValueError(
            f"Expected `probs` and `key_probs` of the same classes, at least one, got {probs.shape[1]} and "
            f"{key_probs.shape[1]}."
        )
    check_bandwidth(bandwidth)
    check_one_of("kernel", kernel, KERNELS)
    if memory_mib is not None and not memory_mib > 0:
        raise ValueError(f"Expected argument `memory_mib` above 0, got {memory_mib}.")
    if own_key is not None:
        if own_key.is_floating_point() or own_key.dtype == torch.bool:
            raise TypeError(f"Expected `own_key` of an integer dtype, got {own_key.dtype}.")
        if tuple(own_key.shape) != (len(probs),):
            raise ValueError(f"Expected `own_key` of shape ({len(probs)},), got {tuple(own_key.shape)}.")
    if key_weights is not None and tuple(key_weights.shape) != (len(key_probs),):
        raise ValueError(
            f"Expected `key_weights` of shape ({len(key_probs)},), got {tuple(key_weights.shape)}."
        )


def check_bandwidth(bandwidth: float) -> None:
    """Raise `ValueError` unless h is above 0 and finite."""
    if not 0 < bandwidth < float("inf"):
        raise ValueError(f"Expected argument `bandwidth` above 0 and finite, got {bandwidth}.")


def _spread(values: Tensor, means: Tensor, known: Tensor) -> Tensor:
    """Classes without a key keep their value, the others share what is left as the kernel says."""
    means = means * known
    kept = values.double() * ~known
    share = means / means.sum(1, keepdim=True).clamp_(min=FLOOR)
    result = kept + share * (1 - kept.sum(1, keepdim=True)).clamp_(min=0)
    return result.to(values.dtype)
