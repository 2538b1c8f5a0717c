"""Vector scaling: a scale and a bias for each class's log-probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from nnunet_dml.calibration.calibrators import Arrays, ClassCalibrator, Rows, check_rows, numbers, present
from nnunet_dml.calibration.temperature import BOUNDS, logits_of

LARGEST_BIAS = 20.0
RIDGE = 1e-6  # nats per squared unit: among equal fits the one next to no change at all


class VectorScaling(ClassCalibrator):
    r"""Multinomial logistic regression of the labels on the log-probabilities, with a diagonal matrix.

    .. math:: \hat p = \mathrm{softmax}(a \odot \log p + b)

    With two classes that is Beta calibration (Kull et al., 2017), for regions too. The greatest class of a voxel may
    change: a bias that makes a class more frequent moves its border.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """

    method = "vector"

    def __init__(self, scale: Tensor, bias: Tensor) -> None:
        """Take the parameters.

        Args:
            scale: a, (C,), above 0; 0 marks a class that keeps its value, and the rest is spread over the others.
            bias: b, (C,).
        """
        self.scale, self.bias = scale.double(), bias.double()
        if self.scale.ndim != 1 or self.scale.shape != self.bias.shape:
            raise ValueError(
                f"Expected `scale` and `bias` of one length, got {tuple(scale.shape)} and {tuple(bias.shape)}."
            )

    @property
    def channels(self) -> int:
        """C."""
        return len(self.scale)

    @classmethod
    def fit(cls, rows: Rows) -> VectorScaling:
        """The scale and bias of the greatest weighted likelihood (L-BFGS; the problem is convex).

        Scales are kept within 0.05 and 20, biases within ±20: a class that is always predicted right would have
        neither. A class that no row has a share of will keep its value.

        Args:
            rows: At least one.

        Raises:
            ValueError: A wrong shape, no row.
            TypeError: A dtype that is not floating.
        """
        check_rows(rows)
        known = present(rows)
        z = logits_of(rows.probs.double())[:, known].numpy()
        y, weights = rows.labels.double()[:, known].numpy(), rows.weights.double().numpy()
        weights = (weights / weights.sum())[:, None]
        classes = z.shape[1]
        start = np.concatenate([np.ones(classes), np.zeros(classes)])

        def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            logits = x[:classes] * z + x[classes:]
            logits -= logits.max(1, keepdims=True)
            exponentials = np.exp(logits)
            total = exponentials.sum(1, keepdims=True)
            away = x - start
            value = -(weights * y * (logits - np.log(total))).sum() + RIDGE * (away**2).sum()
            error = weights * (exponentials / total * y.sum(1, keepdims=True) - y)
            slope = np.concatenate([(error * z).sum(0), error.sum(0)]) + 2 * RIDGE * away
            return float(value), slope

        bounds = [BOUNDS] * classes + [(-LARGEST_BIAS, LARGEST_BIAS)] * classes
        found = minimize(
            loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500, "ftol": 1e-12}
        )
        scale, bias = torch.zeros(2, len(known), dtype=torch.float64)
        scale[known], bias[known] = torch.from_numpy(found.x).view(2, classes)
        return cls(scale, bias)

    def of_rows(self, probs: Tensor) -> Tensor:
        """The softmax of the scaled log-probabilities."""
        scale, bias = self.scale.to(probs.device), self.bias.to(probs.device)
        known = scale > 0
        logits = (logits_of(probs) * scale + bias).masked_fill(~known, -torch.inf)
        kept = probs * ~known
        return kept + logits.softmax(1) * (1 - kept.sum(1, keepdim=True)).clamp_(min=0)

    def to_arrays(self) -> Arrays:
        """Scale and bias."""
        return {"scale": self.scale.numpy(), "bias": self.bias.numpy()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> VectorScaling:
        """See `ClassCalibrator.from_arrays`."""
        return cls(*(torch.from_numpy(numbers(arrays, name, axes=1)) for name in ("scale", "bias")))
