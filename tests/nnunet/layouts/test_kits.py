from functools import partial

import numpy as np
import pytest

from nnunet_dml.nnunet.layouts import kits
from tests.nnunet.convert_helpers import load, save

SHAPE = (2, 4, 6)


def image(case):
    return save(case / "imaging.nii.gz", np.arange(48, dtype=np.float32).reshape(SHAPE) - 20)


def box(*columns):
    """A mask of some columns."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[..., list(columns)] = 1
    return mask


@pytest.mark.parametrize("labels", [2, 3])
def test_2019_and_2023(src, converted, labels):
    """2019 has kidney and tumour and a test part without masks; 2023 has cysts, and instances beside."""
    mask = np.random.default_rng(0).integers(0, labels + 1, SHAPE).astype(np.uint8)
    image(src / "data/case_00000")
    save(src / "data/case_00000/segmentation.nii.gz", mask)
    image(src / "data/case_00210")
    save(src / "data/case_00000/instances/tumor_instance-1_annotation-2.nii.gz", box(1))
    (src / "data/kits.json").write_text("[]")
    out, content, text = converted(kits.find)
    names = ("kidney", "tumour", "cyst")[:labels]
    assert content["labels"] == {"background": 0} | {name: i for i, name in enumerate(names, start=1)}
    assert list(content["nnunet_dml"]["cases"]) == ["case_00000"]
    assert not (out / "ratersTr").exists()
    np.testing.assert_array_equal(load(out / "labelsTr/case_00000.nii.gz"), mask)
    assert "cases without segmentation.nii.gz, left out: 1 (case_00210)" in text


@pytest.fixture
def of_2021(src):
    """One case: two kidneys, a tumour and a cyst upon the first, each marked three times, but the cyst by 2 and 3 only."""
    case = src / "data/case_00003"
    image(case)
    for number, shift in ((1, 0), (2, 0), (3, 1)):
        for name, mask in {
            "kidney_instance-1": box(0, 1, 2),
            "kidney_instance-2": box(5),
            "tumor_instance-1": box(1 + shift),
            "cyst_instance-1": box(2),
            "ureter_instance-1": box(4),
        }.items():
            if name != "cyst_instance-1" or number > 1:
                save(case / "segmentations" / f"{name}_annotation-{number}.nii.gz", mask)
    save(case / "aggregated_MAJ_seg.nii.gz", box(0, 1, 2, 5))
    (case / "raw").mkdir()
    (case / "raw/x.json").write_text("{}")
    return case


def test_annotations_of_2021_are_raters(of_2021, converted):
    out, content, text = converted(kits.find)
    assert content["labels"] == {"background": 0, "kidney": 1, "tumour": 2, "cyst": 3}
    assert content["nnunet_dml"]["raters"] == ["annotation1", "annotation2", "annotation3"]
    rows = {n: load(out / f"ratersTr/case_00003/annotation{n}.nii.gz")[0, 0].tolist() for n in (1, 2, 3)}
    # the cyst of annotation 1 is one of the others'; at 3 the tumour lies upon the cyst
    assert rows == {1: [1, 2, 3, 0, 0, 1], 2: [1, 2, 3, 0, 0, 1], 3: [1, 1, 2, 0, 0, 1]}
    assert load(out / "labelsTr/case_00003.nii.gz")[0, 0].tolist() == [1, 2, 3, 0, 0, 1]
    assert (
        "cases in which instances lack an annotation, for which another one of theirs stands: 1 (case_00003)"
        in text
    )
    source = content["nnunet_dml"]["cases"]["case_00003"]["source"]["raters"]["annotation1"]
    assert source == [
        f"data/case_00003/segmentations/{name}.nii.gz"
        for name in (
            "kidney_instance-1_annotation-1",
            "kidney_instance-2_annotation-1",
            "cyst_instance-1_annotation-2",
            "tumor_instance-1_annotation-1",
        )
    ]


def test_the_majority_of_2021(of_2021, converted):
    out, content, _ = converted(partial(kits.find, masks="majority"))
    assert content["labels"] == {"background": 0, "kidney": 1}
    assert not (out / "ratersTr").exists()


def test_tumour_only(of_2021, converted):
    out, content, _ = converted(kits.find, labels={"tumour": None}, window=(-10, 15))
    assert content["labels"] == {"background": 0, "tumour": 1}
    assert load(out / "ratersTr/case_00003/annotation3.nii.gz")[0, 0].tolist() == [0, 0, 1, 0, 0, 0]
    assert load(out / "imagesTr/case_00003_0000.nii.gz").min() == -10
    assert load(out / "imagesTr/case_00003_0000.nii.gz").max() == 15


def test_bad_instances(of_2021, refused, converted):
    folder = of_2021 / "segmentations"
    save(folder / "kidney_instance-1_annotation-1.nii.gz", box(1), origin=(0.0, 0.0, 1.0))
    save(folder / "kidney_instance-2_annotation-2.nii.gz", 2 * box(5))
    save(folder / "tumor_instance-1_annotation-3.nii.gz", box(1)[:, :3])
    rows = refused(kits.find)
    assert len(rows) == 3
    assert rows[0].startswith(f"{folder}/kidney_instance-1_annotation-1.nii.gz: expected origin ")
    assert (
        "kidney_instance-2_annotation-2.nii.gz: expected an instance's mask of 0 and 1, found 2." in rows[1]
    )
    assert "tumor_instance-1_annotation-3.nii.gz: expected size (6, 4, 2) of" in rows[2]
    _, content, _ = converted(kits.find, leave_out_bad=True, repair_headers=True)
    case = content["nnunet_dml"]["cases"]["case_00003"]
    assert case["raters"] == ["annotation1"]
    assert list(case["repaired_headers"]) == [
        "data/case_00003/segmentations/kidney_instance-1_annotation-1.nii.gz"
    ]


def test_images_that_were_not_fetched(src, refused):
    save(src / "case_00001/segmentation.nii.gz", box(1))
    assert refused(kits.find) == [
        f"{src}/case_00001: expected imaging.nii.gz beside the masks, found no image. Add it, or take the case out."
    ]


def test_none_of_them(src, refused):
    (src / "notes.txt").write_text("")
    (line,) = refused(kits.find)
    assert (
        "expected case_00000/imaging.nii.gz, segmentation.nii.gz or segmentations/*_annotation-1.nii.gz"
        in line
    )
    assert "found notes.txt." in line


def test_the_same_case_in_two_folders(src, refused):
    for folder in ("kits19", "kits23"):
        image(src / folder / "case_00000")
        save(src / folder / "case_00000/segmentation.nii.gz", box(1))
    assert refused(kits.find) == [
        f"{src}: expected one folder of case_00000, found kits19/case_00000 and kits23/case_00000. "
        "Are there two editions of the archive? Convert one of them."
    ]


def test_masks_that_the_archive_does_not_have(src, refused):
    image(src / "case_00000")
    save(src / "case_00000/segmentation.nii.gz", box(1))
    assert refused(partial(kits.find, masks="annotations")) == [
        f"{src}: expected segmentations/*_annotation-N.nii.gz (--masks annotations) beside imaging.nii.gz, "
        "found none in 1 cases (case_00000). Choose other --masks, or copy them there."
    ]


def test_a_case_of_2021_without_annotations(of_2021, src, refused, converted):
    image(src / "data/case_00004")
    (line,) = refused(kits.find)
    assert line.startswith(
        f"{src}/data/case_00004: expected at least one rater's mask segmentations/*_annotation-N"
    )
    _, content, text = converted(kits.find, leave_out_bad=True)
    assert list(content["nnunet_dml"]["cases"]) == ["case_00003"]
    assert f"left out: {line}" in text


def test_a_folder_that_is_not_there(src, refused, converted):
    src.rmdir()
    expected = "a folder with case_00000/imaging.nii.gz and masks"
    assert refused(kits.find) == [f"{src}: expected {expected}, found nothing there."]
    src.write_text("")
    assert refused(kits.find) == [f"{src}: expected {expected}, found a file."]
