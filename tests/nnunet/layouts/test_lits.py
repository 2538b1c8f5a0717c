import numpy as np
import pytest

from nnunet_dml.nnunet.layouts import lits
from tests.nnunet.convert_helpers import load, save

SHAPE = (3, 6, 5)


def mask(seed):
    return np.random.default_rng(seed).integers(0, 3, SHAPE).astype(np.uint8)


@pytest.fixture
def archive(src):
    """Two batches, one of them packed, with 16-bit and float files, and a volume of the test part."""
    hu = np.random.default_rng(0).integers(-1000, 1000, SHAPE)
    save(src / "Training Batch 1/volume-2.nii", hu.astype(np.int16))
    save(src / "Training Batch 1/segmentation-2.nii", mask(2))
    save(src / "Training Batch 2/volume-10.nii.gz", hu.astype(np.float32))
    save(src / "Training Batch 2/segmentation-10.nii.gz", mask(10).astype(np.float64))
    save(src / "Test/test-volume-2.nii", hu.astype(np.int16))
    return src


def test_an_ordinary_data_set(archive, converted):
    out, content, text = converted(lits.find)
    assert content["labels"] == {"background": 0, "liver": 1, "tumour": 2}
    assert content["channel_names"] == {"0": "CT"}
    assert content["file_ending"] == ".nii.gz"
    assert not (out / "ratersTr").exists()
    assert content["nnunet_dml"]["raters"] == []
    case = content["nnunet_dml"]["cases"]["LiTS_010"]
    assert case == {
        "raters": [],
        "source": {
            "images": ["Training Batch 2/volume-10.nii.gz"],
            "labels": "Training Batch 2/segmentation-10.nii.gz",
        },
    }
    assert "one annotation per case: an ordinary data set, without ratersTr" in text
    assert "ignored: 1 (test-volume-2.nii)" in text
    for number in (2, 10):
        np.testing.assert_array_equal(load(out / "labelsTr" / f"LiTS_{number:03d}.nii.gz"), mask(number))
    assert load(out / "imagesTr/LiTS_002_0000.nii.gz").dtype == np.int16
    assert load(out / "imagesTr/LiTS_010_0000.nii.gz").dtype == np.float32


def test_tumour_only_in_the_papers_window(archive, converted):
    out, content, text = converted(lits.find, labels={"tumour": None}, window=(-60, 140))
    assert content["labels"] == {"background": 0, "tumour": 1}
    assert content["nnunet_dml"]["source_values"] == {"tumour": 2}
    assert content["nnunet_dml"]["window"] == [-60, 140]
    assert "made background: liver" in text
    assert "intensities clipped to -60 … 140" in text
    for name, number, ending in (("LiTS_002", 2, ".nii"), ("LiTS_010", 10, ".nii.gz")):
        np.testing.assert_array_equal(load(out / "labelsTr" / f"{name}.nii.gz"), mask(number) == 2)
        (volume,) = archive.rglob(f"volume-{number}{ending}")
        image = load(out / "imagesTr" / f"{name}_0000.nii.gz")
        np.testing.assert_array_equal(image, np.clip(load(volume), -60, 140))
        assert image.dtype == load(volume).dtype


def test_other_values_are_refused(archive, refused):
    odd = mask(2)
    odd[0, 0, 0] = 7
    path = save(archive / "Training Batch 1/segmentation-2.nii", odd)
    assert refused(lits.find) == [
        f"{path}: expected the values 0, 1, 2 of lits, found 0, 1, 2, 7. Name the others too, or mend the mask."
    ]
    (line,) = refused(lits.find, labels={"tumour": None})
    assert "expected the values 0, 2, 1 (liver) of --labels, found 0, 1, 2, 7." in line
    (line,) = refused(lits.find, labels={"tumor": None})
    assert line == "--labels: expected NAME=VALUE, or one of liver, tumour, found 'tumor'."


@pytest.mark.parametrize(
    "change",
    [{"origin": (1.0, 2.0, 3.0)}, {"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, {"spacing": (1.0, 1.0, 1.0)}],
)
def test_wrong_headers(archive, refused, converted, change):
    path = save(archive / "Training Batch 1/segmentation-2.nii", mask(2), **change)
    (line,) = refused(lits.find)
    (name,) = change
    assert line.startswith(f"{path}: expected {name} ")
    assert "--repair-headers" in line
    out, content, text = converted(lits.find, repair_headers=True)
    np.testing.assert_array_equal(load(out / "labelsTr/LiTS_002.nii.gz"), mask(2))
    assert "headers of masks replaced by the image's: 1 (segmentation-2.nii: " in text
    (what,) = content["nnunet_dml"]["cases"]["LiTS_002"]["repaired_headers"].items()
    assert what[0] == "Training Batch 1/segmentation-2.nii"
    assert what[1].startswith(f"{name} (")
    import SimpleITK as sitk

    image, labels = (
        sitk.ReadImage(str(out / it)) for it in ("imagesTr/LiTS_002_0000.nii.gz", "labelsTr/LiTS_002.nii.gz")
    )
    assert image.GetDirection() == labels.GetDirection()
    assert image.GetOrigin() == labels.GetOrigin()
    assert image.GetSpacing() == labels.GetSpacing()


def test_another_size_is_never_repaired(archive, refused):
    save(archive / "Training Batch 1/segmentation-2.nii", np.zeros((3, 5, 6), np.uint8))
    (line,) = refused(lits.find, repair_headers=True)
    assert "expected size (5, 6, 3) of" in line


def test_volumes_without_a_header_are_named(archive, converted):
    """As in volumes 28 to 47 of the archive."""
    for kind, array in (("volume", np.arange(90, dtype=np.int16).reshape(SHAPE)), ("segmentation", mask(3))):
        save(archive / f"Training Batch 1/{kind}-28.nii", array, spacing=(1.0,) * 3, origin=(0.0,) * 3)
    assert "cases of 1 × 1 × 1 mm, perhaps for want of a true header: 1 (LiTS_028)" in converted(lits.find)[2]


def test_what_is_missing_or_double(archive, refused, converted):
    (archive / "Training Batch 2/segmentation-10.nii.gz").unlink()
    save(archive / "Training Batch 2/segmentation-11.nii", mask(1))
    rows = refused(lits.find)
    assert "expected at least one rater's mask segmentation-10.nii for case LiTS_010, found none" in rows[0]
    assert "expected volume-11.nii for segmentation-11.nii, found no image" in rows[1]
    _, content, _ = converted(lits.find, leave_out_bad=True)
    assert list(content["nnunet_dml"]["cases"]) == ["LiTS_002"]


def test_the_same_number_twice(archive, refused):
    save(archive / "volume-2.nii", np.zeros(SHAPE, np.int16))
    assert any(
        "expected one volume of number 2, found Training Batch 1/volume-2.nii and volume-2.nii" in it
        for it in refused(lits.find)
    )


def test_a_damaged_volume(archive, refused, converted):
    path = archive / "Training Batch 2/volume-10.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    (line,) = refused(lits.find)
    assert line.startswith(f"{path}: expected a whole nii.gz file, found a truncated gzip stream")
    _, content, text = converted(lits.find, leave_out_bad=True)
    assert list(content["nnunet_dml"]["cases"]) == ["LiTS_002"]
    assert "left out: case LiTS_010, as its image is bad." in text


def test_another_folder(src, refused):
    save(src / "case_00000/imaging.nii.gz", np.zeros(SHAPE, np.int16))
    (line,) = refused(lits.find)
    assert line == (
        f"{src}: expected volume-0.nii, segmentation-0.nii, … or .nii.gz, here or in folders below (layout lits), "
        "found case_00000/. This looks like `nnunet-dml convert kits`."
    )


def test_floats_that_are_nearly_whole_are_labels(archive, converted, refused):
    path = archive / "Training Batch 2/segmentation-10.nii.gz"
    save(path, (mask(10) * 1.0000001 + 0.0009).astype(np.float32))
    out, _, _ = converted(lits.find)
    np.testing.assert_array_equal(load(out / "labelsTr/LiTS_010.nii.gz"), mask(10))


def test_other_floats_are_refused_as_they_are(archive, refused):
    odd = mask(10).astype(np.float32)
    odd[0, 0, 0] = 1.0012345
    save(archive / "Training Batch 2/segmentation-10.nii.gz", odd)
    (line,) = refused(lits.find)
    assert "expected whole numbers as labels, found 1 voxels with others, such as 1.0012345." in line


def test_a_folder_that_is_not_there(src, refused):
    src.rmdir()
    assert refused(lits.find) == [
        f"{src}: expected a folder with volume-0.nii and segmentation-0.nii, found nothing there."
    ]
