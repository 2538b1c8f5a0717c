"""Reading masks: what SimpleITK would pass over in silence is refused."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml._checks import InputError
from nnunet_dml._images import Grid, misfits, read_mask


def save(path, array, spacing=None, vector=False):
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing(spacing or [1.0] * image.GetDimension())
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_integers_come_back_in_z_y_x_order(tmp_path, ending, dtype):
    array = np.arange(24).reshape(2, 3, 4)
    labels, grid = read_mask(save(tmp_path / f"m{ending}", array.astype(dtype), (0.5, 0.75, 2.0)))
    assert labels.dtype.kind in "iu"
    np.testing.assert_array_equal(labels, array)
    assert grid.size == (4, 3, 2)
    if ending != ".tif":  # which keeps no distance between slices
        assert grid.spacing == pytest.approx((0.5, 0.75, 2.0))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity(tmp_path, ending, value):
    array = np.zeros((2, 3, 4), np.float32)
    array[1, 2, :2] = value
    path = save(tmp_path / f"m{ending}", array)
    with pytest.raises(
        InputError, match=r"labels, found 2 voxels that are NaN, infinite or beyond 32-bit floats"
    ):
        read_mask(path)


def test_what_no_32_bit_float_holds_is_named_for_what_it_is(tmp_path):
    path = save(tmp_path / "m.nii.gz", np.full((2, 3, 4), 1e300))
    with pytest.raises(InputError, match=r"found 24 voxels that are NaN, infinite or beyond 32-bit floats"):
        read_mask(path)


@pytest.mark.parametrize("value", [0.5, 1e30])
def test_values_that_are_no_labels(tmp_path, value):
    array = np.ones((3, 4), np.float64)
    array[0, 0] = value
    with pytest.raises(InputError, match=r"found 1 voxels with others, such as (0\.5|1e\+30)\. A rater's"):
        read_mask(save(tmp_path / "m.nii.gz", array))


def test_several_values_per_pixel(tmp_path):
    with pytest.raises(InputError, match=r"expected a mask with one value per pixel, found 3 \(RGB"):
        read_mask(save(tmp_path / "m.png", np.zeros((4, 5, 3), np.uint8), vector=True))


def test_truncated_missing_and_other_files(tmp_path):
    path = save(tmp_path / "m.nii.gz", np.random.default_rng(0).integers(0, 2, (9, 8, 7)).astype(np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        InputError, match=r"m\.nii\.gz: expected a whole nii\.gz file, found a truncated gzip"
    ):
        read_mask(path)
    path.write_bytes(gzip.compress(gzip.decompress(data)[:-1]))
    with pytest.raises(InputError, match=r"expected a whole nii\.gz file, found 855 of 856 bytes"):
        read_mask(path)
    path.write_text("hello")
    with pytest.raises(InputError, match=r"expected a readable nii\.gz file, found something else"):
        read_mask(path)
    path.unlink()
    with pytest.raises(InputError, match=r"expected a readable nii\.gz file, found no file"):
        read_mask(path)


def test_pictures_are_compared_by_size_only(tmp_path):
    one, other = (
        Grid((4, 3), spacing, (0.0, 0.0), (1.0, 0.0, 0.0, 1.0)) for spacing in ((1.0, 1.0), (2.0, 1.0))
    )
    png, nifti = tmp_path / "a.png", tmp_path / "b.nii.gz"
    assert misfits(png, one, png, other) == []
    (line,) = misfits(nifti, one, nifti.with_name("reference.nii.gz"), other)
    assert line.startswith(
        f"{nifti}: expected spacing (2, 1) of {nifti.with_name('reference.nii.gz')}, tolerance"
    )
    assert "found (1, 1)" in line
