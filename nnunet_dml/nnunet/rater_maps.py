"""The masks of one case, read safely and one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_dml._checks import InputError, problem
from nnunet_dml._images import (
    TOLERANCE,
    Grid,
    check_name,
    check_whole,
    mask_of,
    misfits,
    read,
    read_mask,
    whole_numbers,
)


class RaterMaps:
    """One case's masks, read anew from disk at every iteration, so that only one is in memory at a time.

    Iterating yields integer arrays in the axis order of the plans' reader. Call `check` first: iterating takes
    damaged files for whole ones, and any number for a label.
    """

    def __init__(self, files: Sequence[Path], reader: BaseReaderWriter, num_classes: int) -> None:
        """Remember the files; nothing is read yet."""
        self.files, self.reader, self.num_classes = files, reader, num_classes

    def __len__(self) -> int:
        """The number of raters."""
        return len(self.files)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read one mask after the other."""
        dtype = np.uint8 if self.num_classes <= 256 else np.uint16
        for path in self.files:
            plain = self._plain(path, checked=True)
            labels = self._read(path)[0] if plain is None else plain[0]
            if labels.dtype.kind == "f":  # rounded as `check` did
                yield np.rint(labels, out=np.empty(labels.shape, dtype), casting="unsafe")
            else:
                yield labels.astype(dtype, copy=False)

    def check(self, shape: tuple[int, ...] | None = None, consensus: Path | None = None) -> None:
        """Read every file once.

        Args:
            shape: That of the image, in the axis order of the reader; None takes any.
            consensus: The case's file in `labelsTr`, whose spacing, origin and direction the masks should have
                (with nnU-Net's nibabel readers: whose affine matrix).

        Raises:
            InputError: Files are damaged, hold other values than the labels, or lie on another grid; all are named.
        """
        reference = None if consensus is None else self._geometry(consensus)
        problems: list[str] = []
        for path in self.files:
            try:
                geometry = self._check(path, shape)
            except InputError as error:
                problems += error.problems
            else:
                if consensus is not None and reference is not None:
                    problems += _moved(path, geometry, consensus, reference)
        if problems:
            raise InputError(*problems)

    def _geometry(self, path: Path) -> Grid | np.ndarray:
        """Where a file's voxels lie: its grid, or its affine matrix with a reader of nibabel."""
        if not isinstance(self.reader, NibabelIO | NibabelIOWithReorient):
            return read_mask(path)[1]
        check_whole(path)  # nibabel hides no NaN, and reads directions that SimpleITK refuses
        affine: np.ndarray = self._read(path)[1]["nibabel_stuff"]["original_affine"]
        return affine

    def _check(self, path: Path, shape: tuple[int, ...] | None) -> Grid | np.ndarray:
        plain = self._plain(path)
        if plain is None:
            geometry = self._geometry(path)
            labels = whole_numbers(self._read(path)[0], path)
        else:
            labels, geometry = plain
        if shape not in (None, labels.shape):
            raise InputError(problem(path, expected=f"shape {shape} of the image", found=str(labels.shape)))
        low, high = labels.min(), labels.max()
        if low < 0 or high >= self.num_classes:
            expected = f"labels 0 … {self.num_classes - 1} as in dataset.json"
            raise InputError(problem(path, expected=expected, found=f"{low} … {high}"))
        return geometry

    def _plain(self, path: Path, *, checked: bool = False) -> tuple[np.ndarray, Grid | np.ndarray] | None:
        """The labels as they are in the file and their grid, where nnU-Net's reader changes them but to float32.

        Args:
            path: The file.
            checked: Whether `check` has accepted it. Then neither its length nor its numbers are looked at, for which a
                compressed file is unpacked once more each, and floats come as they are.

        Raises:
            InputError: See `check_name`, and unless it was checked `read_mask`.
        """
        check_name(path)
        if type(self.reader) is not SimpleITKIO:
            return None
        if not checked:
            image = read(path)
            labels = mask_of(image, path)
        else:
            try:
                image = sitk.ReadImage(str(path))
            except RuntimeError:  # changed since
                return self._plain(path)
            labels = sitk.GetArrayFromImage(image)
        labels = labels[None] if labels.ndim == 2 else labels
        return (labels, Grid.of(image)) if labels.ndim == 3 else None

    def _read(self, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
        try:
            masks, properties = self.reader.read_seg(str(path))
        except Exception as error:  # each reader raises its own kind
            expected = f"a mask that nnU-Net's {type(self.reader).__name__} reads"
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(problem(path, expected=expected, found=first)) from None
        return masks[0], properties


def _moved(
    path: Path, geometry: Grid | np.ndarray, consensus: Path, reference: Grid | np.ndarray
) -> list[str]:
    """One line for each way in which a mask lies elsewhere than the consensus."""
    if isinstance(geometry, Grid) and isinstance(reference, Grid):
        return misfits(path, geometry, consensus, reference)
    affine, wanted = np.asarray(geometry), np.asarray(reference)
    voxel = np.linalg.norm(wanted[:3, :3], axis=0).max()
    if np.allclose(affine, wanted, rtol=1e-5, atol=TOLERANCE * voxel):  # of numbers that are 32-bit floats
        return []
    expected, found = (np.array2string(m[:3], precision=6).replace("\n", "") for m in (wanted, affine))
    todo = "Resample it to that grid; where only the header is wrong, copy the other's."
    return [problem(path, expected=f"the affine {expected} of {consensus}", found=found, todo=todo)]
