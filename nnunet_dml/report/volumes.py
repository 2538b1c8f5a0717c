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
from nnunet_dml._files import read_json
from nnunet_dml._images import read, read_mask
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
    """`(K, z, y, x)`, fractions."""
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
    members = _members(Path(sources.reference), classes)
    overlap = any(len(values) > 1 for values in members)
    labels = _three_axes(read_mask(Path(sources.reference))[0])
    reference = _masks(labels, members)
    probs, prediction = _probabilities(Path(sources.prediction), reference.shape, overlap=overlap)
    raters = {}
    for name, path in sources.raters.items():
        try:
            mask = _three_axes(read_mask(Path(path))[0])
            _check_shape(Path(path), mask.shape, reference.shape[1:])
            raters[name] = _masks(mask, members)
        except InputError as error:
            notes.append(f"Rater {name}: {error.problems[0]}")
    soft: Array = reference
    if raters:
        soft = np.asarray(np.mean(list(raters.values()), axis=0, dtype=np.float32))
    if sources.soft:
        try:
            soft, _ = _probabilities(Path(sources.soft), reference.shape, overlap=overlap)
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


def _members(reference: Path, classes: Sequence[str]) -> list[list[int]]:
    """The label values of each class or region: those of dataset.json where it is there, else 1, 2, … in order."""
    path = reference.parent.parent / "dataset.json"
    labels = read_json(path).get("labels") if path.is_file() else None
    if isinstance(labels, dict) and set(classes) <= set(labels):
        values = [labels[name] for name in classes]
        return [it if isinstance(it, list) else [it] for it in values]
    return [[k] for k in range(1, len(classes) + 1)]


def _masks(labels: Array, members: Sequence[Sequence[int]]) -> Bools:
    return np.stack([np.isin(labels, list(values)) for values in members])


def _probabilities(path: Path, shape: tuple[int, ...], *, overlap: bool) -> tuple[Array, Bools]:
    """Probabilities of the foreground and the hard prediction, both of this shape `(K, z, y, x)`.

    Args:
        path: nnU-Net's `.npz`, with the background unless the classes are regions; or an image without it.
        shape: `(K, z, y, x)`.
        overlap: Whether the classes are regions, each for itself.
    """
    if path.suffix == ".npz":
        channels = _read_npz(path)
    else:
        image = read(path)
        channels = sitk.GetArrayFromImage(image)
        if image.GetNumberOfComponentsPerPixel() > 1:
            channels = np.moveaxis(channels, -1, 0)
        if channels.ndim == len(shape) - 1 or (channels.ndim == 2 and shape[1] == 1):
            channels = channels[None]
    if channels.ndim == 3 and shape[1] == 1:
        channels = channels[:, None]
    whole = channels.shape == (shape[0] + 1, *shape[1:])  # with the background
    if not whole:
        _check_shape(path, channels.shape, shape)
    if not whole and shape[0] > 1 and not overlap:  # classes without their background, which is the rest
        channels, whole = np.concatenate([1 - channels.sum(axis=0, keepdims=True), channels]), True
    if whole:
        greatest = channels.argmax(axis=0)
        return channels[1:], np.stack([greatest == c for c in range(1, len(channels))])
    return channels, channels > 0.5


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
