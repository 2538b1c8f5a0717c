import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml._checks import InputError
from nnunet_dml._files import atomic_folder
from nnunet_dml.labels import majority_vote
from tests.nnunet.convert_helpers import (
    NAME,
    ORIGIN,
    SPACING,
    convert,
    dataset_json,
    folders_source,
    load,
    masks,
    save,
    tree,
)


@pytest.fixture
def src(tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    return folder


class TestWritten:
    @pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
    def test_3d(self, raw, src, ending):
        made = folders_source(src, ending=ending, shape=(4, 6, 5), labels=3)
        result = convert(src)
        out = raw / NAME
        ties = {}
        for case, each in made.items():
            image = out / "imagesTr" / f"{case}_0000{ending}"
            assert image.read_bytes() == (src / "images" / f"{case}{ending}").read_bytes()
            vote, ties[case] = majority_vote(each, num_classes=3)
            np.testing.assert_array_equal(load(out / "labelsTr" / f"{case}{ending}"), vote)
            reference = sitk.ReadImage(str(image))
            for rater, mask in zip(("r1", "r2", "r3"), each, strict=True):
                path = out / "ratersTr" / case / f"{rater}{ending}"
                np.testing.assert_array_equal(load(path), mask)
                written = sitk.ReadImage(str(path))
                assert written.GetPixelID() == sitk.sitkUInt8
                assert written.GetSpacing() == reference.GetSpacing()
                assert written.GetOrigin() == reference.GetOrigin()
                assert written.GetDirection() == reference.GetDirection()
        assert all(ties.values())
        assert result.tied_voxels == [ties["a"], ties["b"]]
        block = dataset_json(raw)
        assert block["labels"] == {"background": 0, "label1": 1, "label2": 2}
        assert block["channel_names"] == {"0": "image"}
        assert (block["numTraining"], block["file_ending"]) == (2, ending)
        assert block["nnunet_dml"]["raters"] == ["r1", "r2", "r3"]
        assert block["nnunet_dml"]["format"] == 1
        assert block["nnunet_dml"]["cases"]["a"] == {
            "raters": ["r1", "r2", "r3"],
            "source": {
                "images": [f"images/a{ending}"],
                "raters": {r: f"raters/{r}/a{ending}" for r in ("r1", "r2", "r3")},
            },
            "tied_voxels": ties["a"],
        }
        assert str(src) not in (raw / NAME / "dataset.json").read_text()
        assert [p.name for p in raw.iterdir()] == [NAME]

    def test_a_rater_abstains_where_he_marks_ignore(self, raw, src):
        save(src / "images/a.nii.gz", np.zeros((1, 5), np.int16))
        for rater, row in {"r1": [0, 1, 7, 7, 1], "r2": [0, 1, 1, 7, 0], "r3": [1, 0, 7, 7, 7]}.items():
            save(src / f"raters/{rater}/a.nii.gz", np.array([row], np.uint8))
        convert(src, labels={"ignore": 7, "lesion": 1})
        assert dataset_json(raw)["labels"] == {"background": 0, "lesion": 1, "ignore": 2}
        assert load(raw / NAME / "labelsTr/a.nii.gz").tolist() == [[0, 1, 1, 2, 0]]
        assert load(raw / NAME / "ratersTr/a/r3.nii.gz").tolist() == [[1, 0, 2, 2, 2]]
        assert dataset_json(raw)["nnunet_dml"]["cases"]["a"]["tied_voxels"] == 1

    def test_oblique_direction_survives(self, raw, src):
        c, s = np.cos(0.3), np.sin(0.3)
        direction = (c, -s, 0, s, c, 0, 0, 0, 1)
        save(src / "images/a.nii.gz", np.zeros((3, 4, 5), np.int16), direction=direction)
        save(src / "raters/r/a.nii.gz", np.ones((3, 4, 5), np.uint8), direction=direction)
        convert(src)
        image = sitk.ReadImage(str(raw / NAME / "imagesTr/a_0000.nii.gz"))
        mask = sitk.ReadImage(str(raw / NAME / "labelsTr/a.nii.gz"))
        np.testing.assert_allclose(image.GetDirection(), direction, atol=1e-6)
        np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-7)

    def test_4d_is_split_into_channels(self, raw, src):
        image = np.random.default_rng(0).normal(size=(2, 4, 6, 5)).astype(np.float32)
        save(src / "images/a.nii.gz", image)
        save(src / "raters/r1/a.nii.gz", masks(1, (4, 6, 5))[0])
        convert(src, channel_names=["T1", "T2"])
        for c in range(2):
            path = raw / NAME / "imagesTr" / f"a_{c:04d}.nii.gz"
            np.testing.assert_array_equal(load(path), image[c])
            assert sitk.ReadImage(str(path)).GetSpacing() == SPACING
            assert sitk.ReadImage(str(path)).GetOrigin() == ORIGIN
        assert dataset_json(raw)["channel_names"] == {"0": "T1", "1": "T2"}

    def test_vector_image_is_split(self, raw, src):
        image = np.random.default_rng(0).integers(0, 99, (4, 6, 5, 3)).astype(np.int16)
        save(src / "images/a.nrrd", image, vector=True)
        save(src / "raters/r1/a.nrrd", masks(1, (4, 6, 5))[0])
        convert(src)
        for c in range(3):
            np.testing.assert_array_equal(load(raw / NAME / "imagesTr" / f"a_{c:04d}.nrrd"), image[..., c])

    def test_channels_last(self, raw, src):
        image = np.random.default_rng(0).integers(0, 99, (2, 6, 5)).astype(np.int16)
        save(src / "images/a.nii.gz", image)
        save(src / "raters/r1/a.nii.gz", masks(1, (6, 5))[0])
        with pytest.raises(InputError, match="use --channels-last"):
            convert(src)
        convert(src, channels_last=True)
        for c in range(2):
            np.testing.assert_array_equal(load(raw / NAME / "imagesTr" / f"a_{c:04d}.nii.gz"), image[c])

    @pytest.mark.parametrize("raters_marked_numbers", [False, True])
    def test_numbered_images(self, raw, src, raters_marked_numbers):
        """`a_0000` is a channel, unless the raters marked `a_0000` itself."""
        for c in range(2):
            save(src / "images" / f"a_{c:04d}.nii.gz", np.full((6, 5), c, np.uint8))
        for name in ("a_0000", "a_0001") if raters_marked_numbers else ("a",):
            save(src / "raters/r1" / f"{name}.nii.gz", np.eye(6, 5, dtype=np.uint8))
        result = convert(src)
        if raters_marked_numbers:
            assert [case.name for case in result.cases] == ["a_0000", "a_0001"]
            assert (load(raw / NAME / "imagesTr/a_0001_0000.nii.gz") == 1).all()
        else:
            assert [case.name for case in result.cases] == ["a"]
            assert (load(raw / NAME / "imagesTr/a_0001.nii.gz") == 1).all()
            assert dataset_json(raw)["channel_names"] == {"0": "channel0", "1": "channel1"}

    def test_rgb_png_stays_one_file(self, raw, src):
        image = np.random.default_rng(0).integers(0, 255, (6, 5, 3)).astype(np.uint8)
        save(src / "images/a.png", image, vector=True)
        save(src / "raters/r1/a.png", masks(1, (6, 5))[0] * 255)
        convert(src)
        assert sorted(p.name for p in (raw / NAME / "imagesTr").iterdir()) == ["a_0000.png"]
        assert dataset_json(raw)["channel_names"] == {"0": "R", "1": "G", "2": "B"}

    def test_masks_of_another_format(self, raw, src):
        mask = masks(1, (6, 5))[0]
        save(src / "images/a.nii.gz", np.zeros((6, 5), np.uint8))
        save(src / "raters/r1/a.png", mask)
        save(src / "raters/r2/a.mha", mask.astype(np.float64))
        convert(src)
        for rater in ("r1", "r2"):
            path = raw / NAME / "ratersTr/a" / f"{rater}.nii.gz"
            np.testing.assert_array_equal(load(path), mask)
            assert sitk.ReadImage(str(path)).GetSpacing() == SPACING[:2]

    def test_2d_nii_becomes_nii_gz(self, raw, src):
        """nnU-Net reads .nii with nibabel, in 3D only."""
        made = folders_source(src, ending=".nii", cases=("a",))
        convert(src)
        assert dataset_json(raw)["file_ending"] == ".nii.gz"
        assert (raw / NAME / "imagesTr/a_0000.nii.gz").read_bytes()[:2] == b"\x1f\x8b"
        np.testing.assert_array_equal(load(raw / NAME / "ratersTr/a/r1.nii.gz"), made["a"][0])

    def test_3d_tiff_with_spacing(self, raw, src):
        made = folders_source(src, ending=".tif", cases=("a",), shape=(4, 6, 5))
        (src / "images/a.json").write_text('{"spacing": [3, 0.5, 0.5]}')
        convert(src)
        np.testing.assert_array_equal(load(raw / NAME / "ratersTr/a/r2.tif"), made["a"][1])
        for name in ("imagesTr/a.json", "labelsTr/a.json", "ratersTr/a/r1.json"):
            assert json.loads((raw / NAME / name).read_text()) == {"spacing": [3, 0.5, 0.5]}

    def test_missing_raters_single_rater_and_empty_case_are_named(self, raw, src):
        for case in ("full", "lone", "void"):
            save(src / "images" / f"{case}.png", np.zeros((6, 5), np.uint8))
        for rater in ("r1", "r2"):
            save(src / "raters" / rater / "full.png", np.eye(6, 5, dtype=np.uint8))
            save(src / "raters" / rater / "void.png", np.zeros((6, 5), np.uint8))
        save(src / "raters/r2/lone.png", np.eye(6, 5, dtype=np.uint8))
        text = "\n".join(convert(src).summary())
        assert "cases with a single rater: 1 (lone)" in text
        assert "cases left empty by all raters: 1 (void)" in text
        assert "raters per case: 1 (1 cases), 2 (2 cases)" in text
        assert sorted(p.name for p in (raw / NAME / "ratersTr/lone").iterdir()) == ["r2.png"]
        np.testing.assert_array_equal(load(raw / NAME / "labelsTr/lone.png"), np.eye(6, 5))
        assert not load(raw / NAME / "labelsTr/void.png").any()

    def test_same_bytes_again_and_with_workers(self, raw, src):
        folders_source(src, shape=(4, 6, 5))
        convert(src)
        first = tree(raw)
        assert len(first) == 2 * 5 + 1
        convert(src, overwrite=True, processes=2)
        assert tree(raw) == first

    def test_dry_run_writes_nothing(self, raw, src):
        folders_source(src)
        raw.rmdir()
        result = convert(src, dry_run=True)
        assert not raw.exists()
        assert result.tied_voxels is None
        assert f"{NAME}: 2 cases, 2D, .nii.gz" in result.summary()
        assert "raters: 3 (r1, r2, r3)" in result.summary()

    def test_what_another_run_is_writing_stays_and_a_dataset_put_aside_comes_back(self, raw, src):
        folders_source(src)
        with atomic_folder(raw / NAME) as running:
            (running / "imagesTr").mkdir()
            convert(src)
            assert (running / "imagesTr").is_dir()
            shutil.rmtree(raw / NAME)
        before = tree(raw / NAME)
        dead = subprocess.Popen(["true"])
        dead.wait()
        name = running.name.replace(".tmp-", ".old-").replace(f"-{os.getpid()}-", f"-{dead.pid}-")
        aside = raw / name
        (raw / NAME).rename(aside)
        with pytest.raises(InputError, match=r"expected no dataset there yet, found one\. Add --overwrite"):
            convert(src)
        assert tree(raw / NAME) == before
        assert [path.name for path in raw.iterdir()] == [NAME]


class TestLabels:
    def source(self, src, *values, dtype=np.uint8):
        for rater, value in enumerate(values):
            mask = np.zeros((6, 5), dtype)
            mask[rater] = value
            save(src / f"raters/r{rater}/a.nii.gz", mask)
        save(src / "images/a.nii.gz", np.zeros((6, 5), np.uint8))

    def test_named_values_are_renumbered_in_their_order(self, raw, src):
        self.source(src, 7, 3)
        convert(src, labels={"edema": 7, "tumour": 3})
        assert dataset_json(raw)["labels"] == {"background": 0, "edema": 1, "tumour": 2}
        assert dataset_json(raw)["nnunet_dml"]["source_values"] == {"edema": 7, "tumour": 3}
        assert load(raw / NAME / "ratersTr/a/r0.nii.gz").max() == 1
        assert load(raw / NAME / "ratersTr/a/r1.nii.gz").max() == 2

    def test_0_and_255(self, raw, src):
        self.source(src, 255, 0)
        assert "values 0 and 255 in 8-bit files read as 0 and 1" in convert(src).summary()
        assert load(raw / NAME / "ratersTr/a/r0.nii.gz").max() == 1

    def test_255_in_16_bit_files_needs_a_name(self, raw, src):
        self.source(src, 255, dtype=np.int16)
        with pytest.raises(InputError, match=r"found 0, 255 .*a.nii.gz.* --labels name1=255"):
            convert(src)
        convert(src, labels={"cell": 255})
        assert load(raw / NAME / "labelsTr/a.nii.gz").max() == 1

    def test_gaps(self, raw, src):
        self.source(src, 1, 3)
        with pytest.raises(InputError, match=r"without gaps.*found 0, 1, 3 .*--labels name1=1 name2=3"):
            convert(src)

    def test_mixed_0_1_and_0_255(self, raw, src):
        self.source(src, 1, 255)
        with pytest.raises(
            InputError, match=r"found 0, 1, 255 \(1 in 1 masks, e.g. .*r0/a.nii.gz; 255 in 1 masks"
        ):
            convert(src)

    def test_nothing_marked_anywhere(self, raw, src):
        self.source(src, 0, 0)
        with pytest.raises(InputError, match="found 0 only"):
            convert(src)
        text = convert(src, labels={"tumour": 1}).summary()
        assert "note: no mask has label tumour (1)" in text

    def test_value_that_was_not_named(self, raw, src):
        self.source(src, 1, 2, 2)
        with pytest.raises(InputError) as caught:
            convert(src, labels={"tumour": 1})
        assert len(caught.value.problems) == 2
        assert "r1/a.nii.gz: expected the values 0, 1 of --labels, found 0, 2." in caught.value.problems[0]

    def test_more_labels_than_8_bits(self, raw, src):
        mask = np.arange(300, dtype=np.int32).reshape(15, 20)
        save(src / "raters/r/a.nii.gz", mask)
        save(src / "images/a.nii.gz", np.zeros((15, 20), np.uint8))
        convert(src)
        np.testing.assert_array_equal(load(raw / NAME / "labelsTr/a.nii.gz"), mask)
        assert sitk.ReadImage(str(raw / NAME / "labelsTr/a.nii.gz")).GetPixelID() == sitk.sitkUInt16
