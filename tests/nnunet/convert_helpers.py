"""Small sources for `convert raters`, made on the spot."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.convert import convert_raters

NAME = "Dataset501_Test"
SPACING, ORIGIN = (0.5, 0.75, 2.0), (-10.0, 20.5, 3.25)


def save(path, array, *, spacing=None, origin=None, direction=None, vector=False):
    """Write an array in (z,) y, x order; returns the path."""
    image = sitk.GetImageFromArray(array, isVector=vector)
    if path.suffix in (".gz", ".nii", ".nrrd", ".mha"):
        n = image.GetDimension()
        image.SetSpacing(spacing or (*SPACING, 1.0)[:n])
        image.SetOrigin(origin or (*ORIGIN, 0.0)[:n])
        if direction:
            image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def load(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def masks(count, shape, labels=2, seed=0):
    return np.random.default_rng(seed).integers(0, labels, (count, *shape)).astype(np.uint8)


def folders_source(
    src, *, ending=".nii.gz", cases=("a", "b"), raters=("r1", "r2", "r3"), shape=(6, 5), labels=2
):
    """Layout folders with random images and masks; returns {case: masks}."""
    made = {}
    for i, case in enumerate(cases):
        made[case] = masks(len(raters), shape, labels, seed=i)
        intensities = np.random.default_rng(100 + i).integers(0, 200, shape).astype(np.uint8)
        save(src / "images" / f"{case}{ending}", intensities)
        for rater, mask in zip(raters, made[case], strict=True):
            save(src / "raters" / rater / f"{case}{ending}", mask)
    return made


def tree(folder):
    """Every file below a folder with its bytes."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file()
    }


def convert(src, **options):
    return convert_raters(src, **{"dataset": "501_Test", "layout": "folders", "processes": 1} | options)


def problems(src, **options):
    with pytest.raises(InputError) as caught:
        convert(src, **options)
    assert not any("\n" in line for line in caught.value.problems)
    return list(caught.value.problems)


def only(src, **options):
    rows = problems(src, **options)
    assert len(rows) == 1, rows
    return rows[0]


def dataset_json(raw):
    return json.loads((raw / NAME / "dataset.json").read_text())
