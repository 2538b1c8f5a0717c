"""nnU-Net's dataset with soft labels, read lazily.

nnU-Net's loader crops a case's segmentation to integers and hands it to the transforms. Quantised soft maps are
integers, too, so they ride along as further channels of the segmentation: `[labels, soft 1 … soft F]`, and where the
data set has an ignore label one more, the share of ignored voxels. Only the patch is read from disk, and no code of the loader is touched. The transforms (`transforms.py`) part them again.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from nnunet_dml.labels.storage import open_array


class StackedChannels:
    """Two lazily read arrays (C1, *spatial) and (C2, *spatial) seen as one (C1 + C2, *spatial) array of int16.

    It offers what nnU-Net's loader asks of an array: `shape`, `dtype` and slicing that leaves the channels whole.
    """

    dtype = np.dtype(np.int16)

    def __init__(self, first: Any, second: Any) -> None:
        """Keep both; nothing is read.

        Raises:
            ValueError: The spatial shapes differ.
        """
        if tuple(first.shape[1:]) != tuple(second.shape[1:]):
            raise ValueError(
                f"Expected spatial shape {tuple(first.shape[1:])}, got {tuple(second.shape[1:])}."
            )
        self._parts = (first, second)
        self.shape = (first.shape[0] + second.shape[0], *first.shape[1:])

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read a region of all channels."""
        channels = index[0] if isinstance(index, tuple) and index else index
        if channels != slice(None):
            raise IndexError("the channels cannot be sliced apart")
        return np.concatenate([np.asarray(part[index]).astype(np.int16, copy=False) for part in self._parts])


# kept open by each process: opening a file for every sample takes longer than reading a small patch
@lru_cache(maxsize=128)
def _array(path: Path) -> Any:
    return open_array(path)


class RaterInPlace:
    """Labels (1, *spatial) with those of one rater in their place, read lazily.

    As nnU-Net would have made them of his mask: background outside the image's mask is −1, which its augmentation
    reads, and what he has labelled there is kept.
    """

    dtype = np.dtype(np.int16)

    def __init__(self, labels: Any, raters: Any, rater: int) -> None:
        """Keep both; nothing is read.

        Args:
            labels: (1, *spatial).
            raters: (R, *spatial).
            rater: Which of them.
        """
        self._labels, self._raters, self._rater = labels, raters, rater
        self.shape = tuple(labels.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read a region."""
        labels = np.asarray(self._labels[index]).astype(np.int16, copy=False)
        region = index[1:] if isinstance(index, tuple) else ()
        of_one = (slice(self._rater, self._rater + 1), *region)
        one = np.asarray(self._raters[of_one]).astype(np.int16, copy=False)
        return np.where((labels < 0) & (one == 0), labels, one)


class RandomRaterDataset:
    """A dataset of nnU-Net whose cases carry the labels of another rater, drawn anew, each time they are loaded."""

    def __init__(self, dataset: nnUNetBaseDataset, folder: Path) -> None:
        """Wrap a dataset.

        Args:
            dataset: nnU-Net's own.
            folder: The raters' labels, `<case>.b2nd`.
        """
        self._dataset, self._folder = dataset, folder
        self.identifiers = dataset.identifiers

    def load_case(self, identifier: str) -> tuple[Any, RaterInPlace, Any, dict[str, Any]]:
        """As nnU-Net's, with the labels of one rater; nnU-Net's loader loads a case for every patch."""
        data, labels, previous, properties = self._dataset.load_case(identifier)
        raters = _array(self._folder / f"{identifier}.b2nd")
        drawn = int(
            np.random.randint(raters.shape[0])
        )  # the generator that nnU-Net's loader seeds and draws from
        return data, RaterInPlace(labels, raters, drawn), previous, properties


class SoftLabelDataset:
    """A dataset of nnU-Net whose cases carry soft labels behind their labels."""

    def __init__(self, dataset: nnUNetBaseDataset, folder: Path) -> None:
        """Wrap a dataset.

        Args:
            dataset: nnU-Net's own.
            folder: The soft maps, `<case>.b2nd`.
        """
        self._dataset, self._folder = dataset, folder
        self.identifiers = dataset.identifiers

    def load_case(self, identifier: str) -> tuple[Any, StackedChannels, Any, dict[str, Any]]:
        """As nnU-Net's, but the segmentation is `[labels, soft 1 … soft F]`, the soft ones quantised."""
        data, labels, previous, properties = self._dataset.load_case(identifier)
        return (
            data,
            StackedChannels(labels, _array(self._folder / f"{identifier}.b2nd")),
            previous,
            properties,
        )
