"""STAPLE: the raters' accuracy and the true labels estimated together, by SimpleITK's filters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import SimpleITK

MAX_ITERATIONS = 200  # of expectation-maximisation; real cases need ten to fifty
UNDECIDED = 1e-6  # probabilities that differ by less are equal: the filters' sums are rounded

itk: Any = SimpleITK  # its functions carry no types
Floats: TypeAlias = npt.NDArray[np.float64]


def staple(
    masks: Iterable[npt.NDArray[np.integer[Any]]], mean: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """STAPLE's posterior where the raters disagree and the fit is sound, the raters' mean elsewhere.

        p_c(i) ∝ π_c Π_r θ_r(m_r(i), c),   θ_r(l, c) = P(rater r says l | the truth is c)

    θ_r is fitted to the whole image by expectation-maximisation, π_c is the share of the label in all masks.
    Voxels are independent of their neighbours, so any dimension will do. Of the posterior only the labels that
    a rater gave at the voxel are kept, divided by their sum. Two labels go through SimpleITK's
    `STAPLEImageFilter`, which returns p; more through `MultiLabelSTAPLEImageFilter`, which returns the most
    likely labels and θ, from which p is computed. Labels that nobody gave in the image do not count.

    The mean stays where all raters agree, and where the fit is undecided or speaks against itself: where p is NaN,
    where two labels share the greatest p, and where everybody who gave the likeliest label gives it less often
    where it is true than where it is not (of two labels: sensitivity + specificity < 1).

    Where raters contradict each other in equal halves over the whole image, as two against two may, the fit is at a
    saddle, from which only rounding leads it to one side. The raters' order has no part in that: their masks are sorted.

    Args:
        masks: R label maps (*spatial), all of which are kept in memory, as uint8 (uint16 from 255 labels on).
        mean: (C, *spatial), the share of the raters that gave each label; overwritten.

    Returns:
        `mean`, summing to one over the classes.

    Sources: Warfield et al., IEEE TMI 23(7), 2004; Rohlfing et al., IEEE TMI 23(8), 2004 (more than two labels).
    """
    disputed = mean.max(axis=0) < 1
    if not disputed.any():
        return mean
    present = np.flatnonzero(mean.reshape(len(mean), -1).any(axis=1))
    dtype = np.min_scalar_type(
        len(present) + 1
    )  # the filter has a label more, "undecided", and counts past it
    number = np.zeros(len(mean), dtype=dtype)
    number[present] = np.arange(len(present))
    raters = []
    for mask in masks:
        numbered = np.ascontiguousarray(number[mask])
        image = itk.GetImageFromArray(numbered.reshape(1, -1))
        raters.append((hashlib.sha256(numbered.data).digest(), image, numbered[disputed]))
    raters.sort(key=lambda it: it[0])
    images, votes_at = [image for _, image, _ in raters], np.stack([votes for _, _, votes in raters])
    shares = mean[present][:, disputed]
    if len(present) == 2:
        posterior, informative = _fit_two(images, disputed)
    else:
        prior = mean[present].reshape(len(present), -1).mean(axis=1, dtype=np.float64)
        posterior, informative = _fit_more(images, votes_at, prior)
    posterior = np.where(shares > 0, posterior, 0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, and so not sound
        posterior /= posterior.sum(axis=0, keepdims=True)
    best = posterior.argmax(axis=0)
    supported = ((votes_at == best) & informative[:, best]).any(axis=0)
    low, high = np.sort(posterior, axis=0)[-2:]
    shares = np.where(supported & (high - low > UNDECIDED), posterior, shares)
    for c, share in zip(present, shares, strict=True):
        mean[c][disputed] = share
    return mean


def _fit_two(images: list[Any], disputed: npt.NDArray[np.bool_]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The posterior of labels 0 and 1 at the disputed voxels, (2, N), and whose label is informative, (R, 2)."""
    fit = itk.STAPLEImageFilter()
    fit.SetForegroundValue(1)
    fit.SetMaximumIterations(MAX_ITERATIONS)
    one = itk.GetArrayFromImage(fit.Execute(images)).reshape(disputed.shape)[disputed]
    youden = np.array(fit.GetSensitivity()) + np.array(fit.GetSpecificity()) - 1
    return np.stack([1 - one, one]), np.stack([youden >= -UNDECIDED] * 2, axis=1)


def _fit_more(
    images: list[Any], votes: npt.NDArray[np.unsignedinteger[Any]], prior: Floats
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The posterior of C labels at the disputed voxels, (C, N), and whose label is informative, (R, C)."""
    labels = len(prior)
    fit = itk.MultiLabelSTAPLEImageFilter()
    fit.SetMaximumNumberOfIterations(MAX_ITERATIONS)
    fit.SetPriorProbabilities(prior.tolist())
    fit.Execute(images)
    posterior = np.broadcast_to(np.log(prior)[:, None], (labels, votes.shape[1])).copy()
    informative = np.empty((len(votes), labels), dtype=bool)
    for r, vote in enumerate(votes):
        # rows: what he says, and a last one for "undecided", which nobody says; columns: the truth
        theta = np.reshape(fit.GetConfusionMatrix(r), (labels + 1, labels))[:labels]
        with np.errstate(divide="ignore"):  # log 0 is -inf: impossible
            posterior += np.log(theta)[vote].T
        informative[r] = theta.diagonal() >= theta @ prior - UNDECIDED  # at least as often as on the whole
    with np.errstate(invalid="ignore"):  # nothing is possible: NaN
        posterior -= posterior.max(axis=0, keepdims=True)
    return np.exp(posterior), informative
