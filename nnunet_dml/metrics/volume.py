"""Bias of the volume that a model predicts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nnunet_dml._checks import check_same_shape
from nnunet_dml.metrics._arrays import Array, as_tensor, check_distribution, check_mask, check_shapes
from nnunet_dml.metrics.empty_cases import relative_difference


def volume_bias(probs: Array, soft_reference: Array, *, mask: Array | None = None) -> npt.NDArray[np.float64]:
    r"""Relative error of the expected volume of each foreground class, signed.

    .. math:: \frac{\sum p_c - \sum y_c}{\sum y_c}

    `Σp` is the volume that the model expects, `Σy` the mean of the raters' volumes when `soft_reference` is
    the mean of their masks. Both sides may be one-hot maps: then it is the usual volume error of two
    segmentations.

    Args:
        probs: `(C, *spatial)`, in [0, 1] and summing to one, background first.
        soft_reference: The same shape.
        mask: `(*spatial)`, boolean: the voxels that count. All by default.

    Returns:
        `(C − 1,)`, each −1 or more; 0 is unbiased, 0.05 is 5 % too much. NaN where the reference is empty.

    Raises:
        TypeError: If `probs` is not floating.
        ValueError: If shapes differ, or values are outside [0, 1], NaN, or do not sum to one.

    References:
        Popordanoska et al., On the relationship between calibrated predictors and unbiased volume estimation
        (MICCAI 2021); here relative to the reference's volume.

    >>> p, y = np.array([0.9, 0.6, 0.0]), np.array([1.0, 0.5, 0.0])  # 1.5 against 1.5
    >>> abs(volume_bias(np.stack([1 - p, p]), np.stack([1 - y, y])).round(6))
    array([0.])
    """
    p, y = as_tensor(probs, "probs"), as_tensor(soft_reference, "soft_reference")
    check_shapes(p, leading="C")
    check_same_shape(
        "soft_reference", y.shape, "probs", p.shape, hint="For hard labels make a one-hot map first."
    )
    check_distribution(p, "probs")
    check_distribution(y, "soft_reference")
    p, y = p.reshape(p.shape[0], -1), y.to(p.device).reshape(p.shape[0], -1)
    if mask is not None:
        keep = check_mask(as_tensor(mask, "mask").to(p.device), tuple(probs.shape[1:])).reshape(-1)
        p, y = p[:, keep], y[:, keep]
    difference = relative_difference(p[1:].double().sum(1), y[1:].double().sum(1))
    values: npt.NDArray[np.float64] = difference.cpu().numpy()
    return values
