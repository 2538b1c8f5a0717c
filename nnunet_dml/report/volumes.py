"""The arrays of a case that pictures are drawn from: image, raters, soft reference, probabilities. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from nnunet_dml._checks import InputError, problem
from nnunet_dml._images import read, read_mask
from nnunet_dml.evaluation.dataset import RawDataset, read_dataset
from nnunet_dml.evaluation.records import CaseRecord

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]


@dataclass
class Volumes:
    """A case. K are the foreground classes or regions; the arrays' axes are (z, y, x), z is 1 in 2D."""

    image: Array | None
    """`(z, y, x)` or `(z, y, x, 3)`; None where there is none."""
    raters: dict[str, Bools]
    """`(K, z, y, x)` each."""
    reference: Bools
    """`(K, z, y, x)`, the hard one."""
    soft: Array
    """`(K, z, y, x)`, fractions; of the raters those who did not abstain at the voxel."""
    probs: Array
    """`(K, z, y, x)`."""
    prediction: Bools
    """`(K, z, y, x)`, the hard one."""
    notes: list[str]
    """What is missing."""


def read_volumes(record: CaseRecord, classes: Sequence[str]) -> Volumes:
    """Read the files of a case.

    Args:
        record: Of the case.
        classes: The foreground classes or regions.

    Returns:
        The arrays. What else than prediction and reference is missing or damaged is left out and noted.

    Raises:
        InputError: The prediction or the reference is missing, damaged or of another shape than the other.
    """
    sources = record.sources
    notes: list[str] = []
    dataset = _dataset(Path(sources.reference), classes)
    members = dataset.members
    labels = _three_axes(read_mask(Path(sources.reference))[0])
    reference = _masks(labels, members)
    probs, prediction = _probabilities(Path(sources.prediction), reference.shape, dataset)
    raters = {}
    voted = np.zeros(reference.shape[1:], np.float32)
    for name, path in sources.raters.items():
        try:
            mask = _three_axes(read_mask(Path(path))[0])
            _check_shape(Path(path), mask.shape, reference.shape[1:])
            raters[name] = _masks(mask, members)
            voted += mask != (-1 if dataset.ignore_label is None else dataset.ignore_label)
        except InputError as error:
            notes.append(f"Rater {name}: {error.problems[0]}")
    soft: Array = reference
    if raters:
        soft = np.sum(list(raters.values()), axis=0, dtype=np.float32) / np.maximum(voted, 1)
    if sources.soft:
        try:
            soft = _soft(Path(sources.soft), reference.shape, dataset)
        except InputError as error:
            notes.append(f"Soft reference: {error.problems[0]}")
    image = None
    if sources.images:
        try:
            image = _image(Path(sources.images[0]), reference.shape[1:])
        except InputError as error:
            notes.append(f"Image: {error.problems[0]}")
    else:
        notes.append("The data set has no image of this case.")
    return Volumes(image, raters, reference, soft.astype(np.float32), probs, prediction, notes)


def _dataset(reference: Path, classes: Sequence[str]) -> RawDataset:
    """What the labels mean: as dataset.json says where it is there, else 1, 2, … in order."""
    folder = reference.parent.parent
    if (folder / "dataset.json").is_file():
        found = read_dataset(folder)
        if found.foreground == tuple(classes):
            return found
    return RawDataset(folder, ("background", *classes), None, "")


def _masks(labels: Array, members: Sequence[Sequence[int]]) -> Bools:
    return np.stack([np.isin(labels, list(values)) for values in members])


def _probabilities(path: Path, shape: tuple[int, ...], dataset: RawDataset) -> tuple[Array, Bools]:
    """Probabilities of the foreground and the hard prediction as it was measured, both of this shape `(K, z, y, x)`."""
    if not dataset.regions:
        channels = _classes(path, shape)
        greatest = channels.argmax(axis=0)
        return channels[1:], np.stack([greatest == c for c in range(1, len(channels))])
    channels = _channels(path, shape)
    _check_shape(path, channels.shape, shape)
    labels = np.zeros(shape[1:], np.int64)
    for label, region in zip(dataset.regions_class_order, channels, strict=True):
        labels[region > 0.5] = label
    return channels, _masks(labels, dataset.members)


def _soft(path: Path, shape: tuple[int, ...], dataset: RawDataset) -> Array:
    """The shares of classes or regions, `(K, z, y, x)`, from a map of the labels' shares."""
    labels = _classes(path, (dataset.labels - 1, *shape[1:]))
    return np.stack([labels[list(own)].sum(0) for own in dataset.members])


def _classes(path: Path, shape: tuple[int, ...]) -> Array:
    """Shares of classes, `(1 + K, z, y, x)`; the background is the rest where the file lacks it.

    Args:
        path: nnU-Net's `.npz`, with the background, or an image without it.
        shape: `(K, z, y, x)`.
    """
    channels = _channels(path, shape)
    if channels.shape == (shape[0] + 1, *shape[1:]):
        return channels
    _check_shape(path, channels.shape, shape)
    return np.concatenate([1 - channels.sum(axis=0, keepdims=True), channels])


def _channels(path: Path, shape: tuple[int, ...]) -> Array:
    """`(channels, z, y, x)`, z is 1 in 2D."""
    if path.suffix == ".npz":
        channels = _read_npz(path)
    else:
        image = read(path)
        channels = sitk.GetArrayFromImage(image)
        if image.GetNumberOfComponentsPerPixel() > 1:
            channels = np.moveaxis(channels, -1, 0)
        if channels.ndim == len(shape) - 1 or (channels.ndim == 2 and shape[1] == 1):
            channels = channels[None]
    return channels[:, None] if channels.ndim == 3 and shape[1] == 1 else channels


def _read_npz(path: Path) -> Array:
    """The array `probabilities` of nnU-Net's file."""
    if not path.is_file():
        raise InputError(problem(path, expected="a file of probabilities", found="none"))
    try:
        with np.load(path, allow_pickle=False) as content:
            array: Array = content["probabilities"]
            if not isinstance(array, np.ndarray):  # whose bytes NumPy hands on where they are no array
                raise ValueError("no array")
            return array
    except Exception as error:  # zipfile and NumPy raise whatever they say
        raise InputError(problem(path, expected="nnU-Net's probabilities", found=str(error))) from None


def _image(path: Path, shape: tuple[int, ...]) -> Array:
    image = read(path)
    array = sitk.GetArrayFromImage(image)
    colours = image.GetNumberOfComponentsPerPixel()
    if colours == 3:
        array = array[None] if array.ndim == 3 else array
        _check_shape(path, array.shape[:-1], shape)
        return array
    array = _three_axes(array[..., 0] if colours > 1 else array)
    _check_shape(path, array.shape, shape)
    return array


def _three_axes(array: Array) -> Array:
    if array.ndim == 4 and array.shape[0] == 1:
        return array[0]
    return array[None] if array.ndim == 2 else array


def _check_shape(path: Path, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise InputError(problem(path, expected=f"shape {expected} of the reference", found=str(found)))
