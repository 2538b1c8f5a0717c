"""`--window`: Hounsfield units only, and as stored."""

import numpy as np
import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.convert import convert_raters
from tests.nnunet.convert_helpers import load, save


@pytest.fixture
def src(tmp_path):
    for name in ("a_0000", "a_0001"):
        save(tmp_path / f"src/images/{name}.nii.gz", np.arange(-500, 500, 50, dtype=np.int16).reshape(4, 5))
    save(tmp_path / "src/raters/r/a.nii.gz", np.eye(4, 5, dtype=np.uint8))
    return tmp_path / "src"


def convert(src, **options):
    return convert_raters(src, **{"dataset": "501_Test", "processes": 1, "window": (-60, 140)} | options)


@pytest.mark.parametrize("names", [None, ["CT", "MR"]])
def test_other_channels_are_refused(raw, src, names):
    with pytest.raises(
        InputError, match=r"--window: expected channels named CT, found .*--channel-names CT,CT$"
    ):
        convert(src, channel_names=names)


def test_each_channel_is_clipped_where_each_is_meant(raw, src):
    convert(src, channel_names=["CT", "ct"])
    for c in range(2):
        image = load(raw / f"Dataset501_Test/imagesTr/a_{c:04d}.nii.gz")
        assert image.dtype == np.int16
        assert (image.min(), image.max()) == (-60, 140)


def test_wrong_way_round(raw, src):
    with pytest.raises(InputError, match="--window: expected a lower and a higher number, found 140 -60"):
        convert(src, channel_names=["CT", "CT"], window=(140, -60))


def test_nothing_in_the_window(raw, src):
    path = save(src / "images/a_0001.nii.gz", np.full((4, 5), 1000, np.int16))
    with pytest.raises(InputError) as caught:
        convert(src, channel_names=["CT", "CT"])
    expected = (
        "expected intensities between -60 and 140 (--window), found 1000 … 1000. Are they Hounsfield units?"
    )
    assert caught.value.problems == (f"{path}: {expected}",)


def test_a_dtype_that_ends_before_the_window(raw, src):
    for c in range(2):
        save(src / f"images/a_{c:04d}.nii.gz", np.arange(20, dtype=np.uint8).reshape(4, 5) * 10)
    convert(src, channel_names=["CT", "CT"])
    assert load(raw / "Dataset501_Test/imagesTr/a_0000.nii.gz").max() == 140
