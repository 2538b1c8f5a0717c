"""Users' own soft maps, read onto the grid of their consensus."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.user_maps import read_user_map
from tests.nnunet.mode_helpers import write_image

SHAPE = (3, 4, 5)


@pytest.fixture
def read(tmp_path):
    def read(array, *, shape=SHAPE, foreground=2, vector=False, reader=None, **moved):
        flat = shape[0] == 1
        write_image(tmp_path / "labelsTr" / "a.nii.gz", np.zeros(shape[1:] if flat else shape, np.uint8))
        if array is not None:
            image = sitk.GetImageFromArray(array, isVector=vector)
            for name, value in moved.items():
                getattr(image, f"Set{name.capitalize()}")(value)
            sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
        return read_user_map(
            tmp_path / "a.nii.gz",
            foreground=foreground,
            shape=shape,
            consensus=tmp_path / "labelsTr" / "a.nii.gz",
            reader=reader or SimpleITKIO(),
        )

    return read


def fractions(channels, shape=SHAPE):
    return np.random.default_rng(0).random((channels, *shape), dtype=np.float32) / channels


def test_a_volume_with_a_channel_per_class(read):
    expected = fractions(2)
    np.testing.assert_array_equal(read(expected), expected)
    np.testing.assert_array_equal(read(expected.astype(np.float64)), expected)


def test_a_volume_of_vectors(read):
    expected = fractions(2)
    np.testing.assert_array_equal(read(np.moveaxis(expected, 0, -1).copy(), vector=True), expected)


def test_a_volume_of_one_class(read):
    expected = fractions(1)
    np.testing.assert_array_equal(read(expected[0], foreground=1), expected)
    np.testing.assert_array_equal(read(expected, foreground=1), expected)


@pytest.mark.parametrize("classes", [1, 2])
def test_pictures(read, classes):
    shape = (1, 4, 5)
    expected = fractions(classes, shape)
    like = {"shape": shape, "foreground": classes}
    np.testing.assert_array_equal(read(expected[:, 0], **like), expected)
    if classes == 1:
        np.testing.assert_array_equal(read(expected[0, 0], **like), expected)
    else:
        np.testing.assert_array_equal(
            read(np.moveaxis(expected[:, 0], 0, -1).copy(), vector=True, **like), expected
        )


def test_rounding_errors_are_mended(read):
    array = np.full((2, *SHAPE), 0.5002, np.float32)
    array[0, 0] = -0.0005
    found = read(array)
    assert found.min() == 0
    np.testing.assert_allclose(found[:, 1:].sum(0), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((2, *SHAPE), 1.5, np.float32), r"expected fractions in \[0, 1\].*found 1.5 … 1.5\. Rescale"),
        (np.full((2, *SHAPE), -0.1, np.float32), r"expected fractions in \[0, 1\].*found -0.1"),
        (np.full((2, *SHAPE), 65535, np.uint16), r"found 6\.55.*\. Rescale"),
        (np.full((2, *SHAPE), 0.7, np.float32), "sum to at most 1 .*found a sum of 1.4. Give the fraction"),
        (np.full((2, *SHAPE), np.nan, np.float32), "found 120 that are NaN, infinite or beyond 32-bit floats. Replace"),
        (np.zeros((3, *SHAPE), np.float32), r"expected 2 channels of shape \(3, 4, 5\), .*found 3 of shape"),
        (np.zeros(SHAPE, np.float32), r"expected 2 channels .*found 1 of shape .*Write one channel"),
        (np.zeros((2, 3, 4, 6), np.float32), r"found 2 of shape \(3, 4, 6\)"),
        (None, "expected a readable nii.gz file, found no file. Restore it."),
    ],
)  # fmt: skip
def test_what_are_no_fractions(read, array, words):
    with pytest.raises(InputError, match=rf"a\.nii\.gz: .*{words}") as caught:
        read(array)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        ({"spacing": (1, 1, 2, 1)}, r"expected spacing \(1, 1, 1\) of .*labelsTr.* found \(1, 1, 2\)"),
        ({"origin": (0, 0, 3, 0)}, r"expected origin \(0, 0, 0\) of .*labelsTr.* found \(0, 0, 3\)"),
    ],
)
def test_another_grid(read, moved, words):
    with pytest.raises(InputError, match=words):
        read(fractions(2), **moved)
    only_channels = {name: (*[float(name == "spacing")] * 3, 7.0) for name in moved}
    read(fractions(2), **only_channels)  # whose axis lies nowhere


def test_a_reader_that_reorders_is_refused(read):
    with pytest.raises(InputError, match=r"NibabelIOWithReorient.*SimpleITKIO"):
        read(fractions(2), reader=NibabelIOWithReorient())
