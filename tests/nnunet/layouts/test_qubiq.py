import numpy as np
import pytest

from tests.nnunet.convert_helpers import load, masks, save


def case(folder, *, raters, tasks=1, shape=(6, 5), channels=0, seed=0):
    """A case as in QUBIQ's archives: 2D NIfTI; with channels the image has a third axis."""
    image = np.random.default_rng(seed).normal(size=(channels, *shape) if channels else shape)
    save(folder / "image.nii.gz", image.astype(np.float32))
    for task in range(1, tasks + 1):
        for rater, mask in enumerate(masks(raters, shape, seed=10 * seed + task), start=1):
            save(folder / f"task{task:02d}_seg{rater:02d}.nii.gz", mask)


@pytest.fixture
def archives(src):
    """QUBIQ 2020: two archives; the validation part goes on counting."""
    for part, name, numbers in (
        ("training_data_v2", "Training", (1, 2)),
        ("validation_data_v2", "Validation", (3,)),
    ):
        for i in numbers:
            case(src / part / "brain-growth" / name / f"case{i:02d}", raters=7, seed=i)
            case(src / part / "brain-tumor" / name / f"case{i:02d}", raters=3, tasks=3, channels=4, seed=i)
            case(src / part / "kidney" / name / f"case{i:02d}", raters=3, shape=(5, 6), seed=i)
            case(src / part / "prostate" / name / f"case{i:02d}", raters=6, tasks=2, seed=i)
    (src / "training_data_v2/brain-growth/._case").write_text("macOS")
    return src


def test_parts_are_pooled(archives, converted):
    out, content, text = converted(subset="brain-growth", channel_names=["MR"])
    assert sorted(content["nnunet_dml"]["cases"]) == ["case01", "case02", "case03"]
    assert content["labels"] == {"background": 0, "task01": 1}
    assert "parts pooled: Training 2, Validation 1 cases" in text
    assert "raters per case: 7 (3 cases)" in text
    source = content["nnunet_dml"]["cases"]["case03"]["source"]["images"]
    assert source == ["validation_data_v2/brain-growth/Validation/case03/image.nii.gz"]
    expected = masks(7, (6, 5), seed=31)
    np.testing.assert_array_equal(load(out / "ratersTr/case03/seg05.nii.gz"), expected[4])
    np.testing.assert_array_equal(load(out / "labelsTr/case03.nii.gz"), expected.sum(axis=0) > 3)


def test_the_four_channels_of_brain_tumor(archives, converted):
    out, content, _ = converted(subset="brain-tumor", task=3, channel_names=["FLAIR", "T1", "T1ce", "T2"])
    assert len(content["channel_names"]) == 4
    image = load(archives / "training_data_v2/brain-tumor/Training/case02/image.nii.gz")
    for c in range(4):
        np.testing.assert_array_equal(load(out / "imagesTr" / f"case02_{c:04d}.nii.gz"), image[c])
    np.testing.assert_array_equal(load(out / "ratersTr/case02/seg03.nii.gz"), masks(3, (6, 5), seed=23)[2])


def test_choices_are_named(archives, refused):
    (line,) = refused()
    assert (
        "expected one subset, found brain-growth, brain-tumor, kidney, prostate. Choose one with --subset."
        in line
    )
    (line,) = refused(subset="pancreas")
    assert line.startswith("--subset: expected one of brain-growth, brain-tumor, kidney, prostate (in ")
    (line,) = refused(subset="prostate")
    assert "expected one task, found tasks 1, 2. Choose one with --task." in line


def test_a_case_that_lacks_a_rater(archives, converted):
    (archives / "training_data_v2/prostate/Training/case02/task02_seg06.nii.gz").unlink()
    _, content, text = converted(subset="prostate", task=2)
    assert "cases that lack a rater: 1 (case02: seg06)" in text
    assert len(content["nnunet_dml"]["cases"]["case02"]["raters"]) == 5


def test_a_case_that_lacks_a_task(archives, refused, converted):
    for path in (archives / "validation_data_v2/prostate/Validation/case03").glob("task02_*"):
        path.unlink()
    (line,) = refused(subset="prostate", task=2)
    assert "case03: expected at least one rater's mask task02_segNN.* for case case03, found task01." in line
    _, content, text = converted(subset="prostate", task=2, leave_out_bad=True)
    assert list(content["nnunet_dml"]["cases"]) == ["case01", "case02"]
    assert f"left out: {line}" in text


def test_a_mask_of_another_shape(archives, refused, converted):
    path = archives / "training_data_v2/kidney/Training/case02/task01_seg03.nii.gz"
    save(path, np.zeros((6, 5), np.uint8))
    (line,) = refused(subset="kidney")
    assert line.startswith(f"{path}: expected size (6, 5) of ")
    _, content, text = converted(subset="kidney", leave_out_bad=True)
    assert "cases that lack a rater: 1 (case02: seg03)" in text
    assert content["nnunet_dml"]["cases"]["case02"]["raters"] == ["seg01", "seg02"]
    (left,) = content["nnunet_dml"]["left_out"]
    assert left.startswith("training_data_v2/kidney/Training/case02/task01_seg03.nii.gz: expected size")
    assert str(archives) not in left


def test_the_same_name_in_both_parts(src, converted):
    for name in ("Training", "Validation"):
        case(src / "kidney" / name / "case01", raters=2)
    case(src / "kidney/Training/case02", raters=2)
    _, content, _ = converted()
    assert sorted(content["nnunet_dml"]["cases"]) == ["Training_case01", "Validation_case01", "case02"]


def test_two_editions_are_not_pooled(src, refused):
    for name in ("training_data_v2", "training_data_v3_QC"):
        case(src / name / "kidney/Training/case01", raters=2)
    assert refused() == [
        f"{src}: expected one folder of Training_case01, found training_data_v2/kidney/Training/case01 and "
        "training_data_v3_QC/kidney/Training/case01. Are there two editions of the archive? Convert one of them."
    ]


def test_a_test_part_without_masks_is_left_out(src, converted):
    case(src / "Training/case01", raters=2)
    save(src / "Test/case02/image.nii.gz", np.zeros((6, 5), np.float32))
    _, content, text = converted()
    assert list(content["nnunet_dml"]["cases"]) == ["case01"]
    assert "test cases without masks, left out: 1 (case02)" in text
    assert "parts pooled" not in text


def test_images_without_any_masks(src, refused):
    save(src / "Training/case01/image.nii.gz", np.zeros((6, 5), np.float32))
    assert refused(layout="qubiq") == [
        f"{src}: expected task01_seg01.*, task01_seg02.*, … beside the images, found images of 1 cases "
        "(Training/case01) and no masks. Unpack the masks there, too."
    ]


@pytest.mark.parametrize("flat_images", [False, True])
def test_a_last_axis_of_one_is_none(src, converted, flat_images):
    """(H, W, 1) images with (H, W) masks, the other way round, and both within a case and within the archive."""
    case(src / "case01", raters=3, seed=1)
    case(src / "case02", raters=3, seed=2)
    thick = [src / "case01/task01_seg02.nii.gz", src / "case02/task01_seg01.nii.gz"]
    for path in thick if flat_images else [*thick, src / "case01/image.nii.gz"]:
        save(path, load(path)[None])
    out, _, text = converted()
    assert "2 cases, 2D" in text
    assert load(out / "imagesTr/case01_0000.nii.gz").shape == (6, 5)
    np.testing.assert_array_equal(load(out / "ratersTr/case01/seg02.nii.gz"), masks(3, (6, 5), seed=11)[1])
    np.testing.assert_array_equal(load(out / "ratersTr/case02/seg01.nii.gz"), masks(3, (6, 5), seed=21)[0])
    assert load(out / "labelsTr/case01.nii.gz").shape == (6, 5)


@pytest.mark.parametrize(("thick_image", "thick_masks"), [(False, True), (True, False), (True, True)])
def test_the_channels_of_brain_tumor_beside_a_last_axis_of_one(src, converted, thick_image, thick_masks):
    case(src / "case01", raters=2, channels=4)
    image = load(src / "case01/image.nii.gz")
    if thick_image:  # (H, W, 1, 4)
        save(src / "case01/image.nii.gz", image[:, None])
    for path in (src / "case01").glob("task*") if thick_masks else ():
        save(path, load(path)[None])
    out, content, _ = converted()
    assert len(content["channel_names"]) == 4
    np.testing.assert_array_equal(load(out / "imagesTr/case01_0002.nii.gz"), image[2])
    assert load(out / "labelsTr/case01.nii.gz").shape == (6, 5)


def test_3d_of_2021_without_a_folder_of_the_part(src, converted):
    for part, name in (("training_data_v3_QC", "case1-1"), ("validation_data_qubiq2021_QC", "case13-1")):
        case(src / part / "pancreas" / name, raters=2, shape=(3, 6, 5))
    out, content, _ = converted(subset="pancreas")
    assert sorted(content["nnunet_dml"]["cases"]) == ["case1-1", "case13-1"]
    assert load(out / "labelsTr/case13-1.nii.gz").shape == (3, 6, 5)


def test_a_three_dimensional_image_is_no_stack_of_channels(src, refused):
    case(src / "case01", raters=2, channels=4)
    save(src / "case01/task01_seg01.nii.gz", np.zeros((7, 5), np.uint8))
    assert all("expected size (5, 6, 4)" in line for line in refused())


def test_the_values_of_a_mask_that_is_left_out_do_not_count(src, converted):
    case(src / "case01", raters=2)
    save(src / "case01/task01_seg03.nii.gz", np.full((7, 5), 9, np.uint8))
    _, content, _ = converted(leave_out_bad=True)
    assert content["labels"] == {"background": 0, "task01": 1}
