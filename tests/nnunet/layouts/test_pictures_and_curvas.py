"""CURVAS, CHASE, and the recognition of layouts."""

import numpy as np
import pytest

from tests.nnunet.convert_helpers import load, save


def curvas(src, names=("UKCHLL001", "UKCHLL002"), raters=3):
    rng = np.random.default_rng(0)
    for name in names:
        save(
            src / "training_set" / name / "image.nii.gz",
            rng.integers(-1000, 1000, (2, 4, 5)).astype(np.int16),
        )
        for rater in range(1, raters + 1):
            mask = rng.integers(0, 4, (2, 4, 5)).astype(np.uint8)
            save(src / "training_set" / name / f"annotation_{rater}.nii.gz", mask)


def chase(src, shape=(6, 5)):
    rng = np.random.default_rng(0)
    for name in ("Image_01L", "Image_01R"):
        picture = rng.integers(0, 255, (*shape, 3)).astype(np.uint8)
        save(src / f"{name}.jpg", picture, vector=True)
        for rater in ("1st", "2nd"):
            save(src / f"{name}_{rater}HO.png", rng.integers(0, 2, shape).astype(np.uint8) * 255)


def test_curvas(src, converted):
    curvas(src)
    out, content, text = converted(window=(-100, 300))
    assert content["labels"] == {"background": 0, "pancreas": 1, "kidney": 2, "liver": 3}
    assert content["channel_names"] == {"0": "CT"}
    assert content["nnunet_dml"]["layout"] == "curvas"
    assert "raters: 3 (annotation_1, annotation_2, annotation_3)" in text
    mask = load(src / "training_set/UKCHLL002/annotation_2.nii.gz")
    np.testing.assert_array_equal(load(out / "ratersTr/UKCHLL002/annotation_2.nii.gz"), mask)


def test_the_bad_geometry_of_a_case_of_curvas(src, refused, converted):
    curvas(src)
    path = src / "training_set/UKCHLL002/annotation_3.nii.gz"
    save(path, load(path), origin=(0.0, 0.0, 0.0))
    (line,) = refused()
    assert line.startswith(f"{path}: expected origin ")
    assert "headers of masks replaced by the image's: 1" in converted(repair_headers=True)[2]


def test_the_same_case_of_curvas_in_two_folders(src, refused):
    curvas(src)
    (src / "training_set/UKCHLL002").rename(src / "UKCHLL001")
    assert refused() == [
        f"{src}: expected one folder of UKCHLL001, found UKCHLL001 and training_set/UKCHLL001. "
        "Are there two editions of the archive? Convert one of them."
    ]


def test_chase(src, converted):
    chase(src)
    out, content, text = converted()
    assert content["labels"] == {"background": 0, "vessel": 1}
    assert content["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert content["file_ending"] == ".png"
    assert "raters: 2 (1stHO, 2ndHO)" in text
    np.testing.assert_array_equal(load(out / "imagesTr/Image_01L_0000.png"), load(src / "Image_01L.jpg"))
    mask = load(src / "Image_01R_2ndHO.png") > 0
    np.testing.assert_array_equal(load(out / "ratersTr/Image_01R/2ndHO.png"), mask)
    assert content["nnunet_dml"]["cases"]["Image_01L"]["source"]["images"] == ["Image_01L.jpg"]


def test_a_truncated_jpeg(src, refused):
    chase(src, (60, 50))
    path = src / "Image_01L.jpg"
    path.write_bytes(path.read_bytes()[:-1500])
    (line,) = refused()
    assert line == f"{path}: expected a whole JPEG, found a truncated one. Copy it again from its source."


def test_a_picture_without_masks_and_masks_without_a_picture(src, refused):
    chase(src)
    (src / "Image_01L.jpg").unlink()
    for path in src.glob("Image_01R_*"):
        path.unlink()
    rows = refused()
    assert "expected Image_01L.jpg beside its masks, found no image" in rows[0]
    assert "expected at least one rater's mask Image_01R_*HO.png for case Image_01R, found none" in rows[1]


def test_nothing_known(src, refused):
    (src / "a.txt").write_text("")
    (line,) = refused()
    assert line.startswith(f"{src}: expected CASE/task01_seg01.* (qubiq), images/ and raters/ (folders), ")
    assert "found a.txt. For other names use --layout flat" in line


def test_two_layouts(src, refused):
    chase(src)
    curvas(src)
    assert refused() == [f"{src}: expected one layout, found curvas and chase. Choose one with --layout."]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Training Batch 1/volume-0.nii", "convert lits"),
        ("case_00000/segmentation.nii.gz", "convert kits"),
        ("LIDC-IDRI-0001/1.2/1.3/000001.dcm", "convert lidc"),
        ("MESSIDOR/image1prime.tif", "RIGA's pictures with outlines drawn on them are no masks"),
    ],
)
def test_archives_of_other_commands(src, refused, name, words):
    (src / name).parent.mkdir(parents=True, exist_ok=True)
    (src / name).write_bytes(b"")
    (line,) = refused()
    assert words in line
