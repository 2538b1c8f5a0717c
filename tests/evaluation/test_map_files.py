"""Probability maps as NIfTI: what SimpleITK and nnU-Net's users read is what was written."""

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml._images import Grid
from nnunet_dml.evaluation.map_files import write_maps
from nnunet_dml.evaluation.probability_files import is_fraction_image, read_fractions

A, B = np.deg2rad(20), np.deg2rad(-35)
OBLIQUE = np.array([[np.cos(A), -np.sin(A), 0], [np.sin(A), np.cos(A), 0], [0, 0, 1]]) @ np.array(
    [[1, 0, 0], [0, np.cos(B), -np.sin(B)], [0, np.sin(B), np.cos(B)]]
)
DIRECTIONS = {"identity": np.eye(3), "flipped": np.diag([-1.0, -1, 1]), "left-handed": np.diag([1.0, -1, 1]),
              "permuted": np.eye(3)[[1, 2, 0]], "oblique": OBLIQUE}  # fmt: skip


def maps(count, shape, seed=0):
    return (
        np.random.default_rng(seed)
        .dirichlet(np.ones(count + 1), shape)
        .astype(np.float32)
        .T[1:]
        .T.transpose(3, 0, 1, 2)
    )


def image_of(grid):
    image = sitk.Image([int(n) for n in grid.size], sitk.sitkUInt8)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


@pytest.mark.parametrize(("bits", "count", "name"), itertools.product((8, 16), (1, 3), DIRECTIONS))
def test_fractions_and_geometry_come_back(tmp_path, bits, count, name):
    grid = Grid((5, 4, 3), (0.7, 1.3, 2.9), (-11.5, 20.25, 3.125), tuple(DIRECTIONS[name].ravel()))
    given = maps(count, (3, 4, 5))
    path = tmp_path / "a.nii.gz"
    write_maps(path, given, grid, bits=bits)
    image = sitk.ReadImage(str(path))
    assert image.GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64)
    assert is_fraction_image(path)
    got = sitk.GetArrayFromImage(image)
    assert got.shape == ((3, 4, 5) if count == 1 else (count, 3, 4, 5))
    np.testing.assert_allclose(got.reshape(given.shape), given, atol=0.5001 / (2**bits - 1))
    assert not Grid.of(image, 3).differences(grid)
    own = sitk.ReadImage(str(_with_simpleitk(tmp_path, grid)))
    assert not Grid.of(image, 3).differences(Grid.of(own))
    again = read_fractions(path, channels=count)
    np.testing.assert_allclose(again[1:], given, atol=1.01 / (2**bits - 1))
    assert np.asanyarray(nibabel.load(path).dataobj.get_unscaled()).dtype == (
        np.uint8 if bits == 8 else np.uint16
    )


def _with_simpleitk(folder, grid):
    path = folder / "b.nii.gz"
    sitk.WriteImage(image_of(grid), str(path))
    return path


def test_0_and_1_are_exact_and_what_lies_outside_is_cut(tmp_path):
    given = np.array([0.0, 1.0, 1.0000001, -1e-9]).reshape(1, 1, 1, 4)
    write_maps(tmp_path / "a.nii.gz", given, Grid((4, 1, 1), (1,) * 3, (0,) * 3, tuple(np.eye(3).ravel())))
    got = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz"))).ravel()
    np.testing.assert_allclose(got, [0, 1, 1, 0], atol=1e-7)


@pytest.mark.parametrize("count", [1, 2])
def test_a_2d_image_is_a_volume_of_one_slice(tmp_path, count):
    grid = Grid((5, 4), (0.5, 0.25), (3.0, -7.0), (0.0, -1.0, 1.0, 0.0))
    write_maps(tmp_path / "a.nii.gz", maps(count, (1, 4, 5)), grid)
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert image.GetSize() == ((5, 4, 1) if count == 1 else (5, 4, 1, 2))
    assert not Grid.of(image, 2).differences(grid)


def test_maps_that_do_not_fit_are_refused(tmp_path):
    grid = Grid((5, 4, 3), (1,) * 3, (0,) * 3, tuple(np.eye(3).ravel()))
    for bad in (maps(1, (3, 5, 4)), maps(1, (3, 4, 5))[0]):
        with pytest.raises(ValueError, match="on a grid of"):
            write_maps(tmp_path / "a.nii.gz", bad, grid)
    with pytest.raises(ValueError, match="`bits` to be one of"):
        write_maps(tmp_path / "a.nii.gz", maps(1, (3, 4, 5)), grid, bits=12)
    assert not list(tmp_path.iterdir())
