"""Soft maps on nnU-Net's grid."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_dml._checks import InputError
from nnunet_dml._files import _MACHINE
from nnunet_dml._image_bytes import open_unpacked
from nnunet_dml._images import masks
from nnunet_dml.labels.storage import open_soft_map, verify_soft_map
from nnunet_dml.nnunet.map_making import crop, to_grid
from nnunet_dml.nnunet.rater_maps import RaterMaps
from tests.conftest import DATASET, nnunet_dml


def linear(data, shape, current, new):
    """nnU-Net's linear resampling."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    return resample_data_or_seg_to_shape(data, shape, current, new, is_seg=False, order=1, order_z=0)


def grid_of_plans(transpose=(0, 1, 2), spacing=(1.0, 1.0, 1.0)):
    plans = SimpleNamespace(transpose_forward=list(transpose))
    return plans, SimpleNamespace(spacing=list(spacing), resampling_fn_probabilities=linear)


def test_transposed_cropped_and_left_alone_where_the_spacing_fits():
    soft = np.random.default_rng(0).random((1, 4, 5, 6)).astype(np.float32)
    plans, configuration = grid_of_plans(transpose=(2, 0, 1))
    properties = {"bbox_used_for_cropping": [[1, 6], [0, 4], [2, 4]], "spacing": [1.0, 1.0, 1.0]}
    found = to_grid(crop(soft, properties, plans), properties, (5, 4, 2), plans, configuration)
    np.testing.assert_array_equal(found, soft.transpose(0, 3, 1, 2)[:, 1:6, 0:4, 2:4])


def test_half_the_spacing_interpolates_linearly_between_fractions():
    soft = np.array([0.0, 0.25, 0.5, 1.0], np.float32).reshape(1, 1, 1, 4)
    plans, configuration = grid_of_plans(spacing=(1.0, 0.5))
    properties = {"bbox_used_for_cropping": [[0, 1], [0, 1], [0, 4]], "spacing": [1.0, 0.5, 1.0]}
    found = to_grid(soft, properties, (1, 1, 8), plans, configuration)
    # voxel centres of the fine grid lie a quarter and three quarters of the way between those of the coarse one
    expected = [0, 0.0625, 0.1875, 0.3125, 0.4375, 0.625, 0.875, 1.0]
    np.testing.assert_allclose(found[0, 0, 0], expected, atol=1e-6)


def test_sums_never_exceed_one_after_resampling():
    fractions = (
        np.random.default_rng(1)
        .dirichlet(np.ones(4), size=(5, 7, 9))
        .transpose(3, 0, 1, 2)[1:]
        .astype(np.float32)
    )
    plans, configuration = grid_of_plans(spacing=(0.7, 0.8, 0.9))
    properties = {"bbox_used_for_cropping": [[0, 5], [0, 7], [0, 9]], "spacing": [1.0, 1.0, 1.0]}
    found = to_grid(fractions, properties, (7, 9, 10), plans, configuration)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.sum(0).max() <= 1 + 1e-6


class TestRaterMaps:
    """The masks of one case, with the readers of nnU-Net."""

    @pytest.fixture(params=["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
    def reader(self, request):
        from nnunetv2.imageio import nibabel_reader_writer, simpleitk_reader_writer

        modules = (nibabel_reader_writer, simpleitk_reader_writer)
        return next(getattr(m, request.param) for m in modules if hasattr(m, request.param))()

    def maps(self, folder, reader, array, name="r1.nii.gz"):
        image = sitk.GetImageFromArray(array)
        image.SetDirection([0, 1, 0, 1, 0, 0, 0, 0, -1])
        sitk.WriteImage(image, str(folder / name))
        return RaterMaps([folder / name], reader, num_classes=3)

    def test_whole_masks_come_in_the_axis_order_of_the_reader(self, tmp_path, reader):
        array = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)
        maps = self.maps(tmp_path, reader, array)
        expected = reader.read_seg(str(tmp_path / "r1.nii.gz"))[0][0]
        maps.check(expected.shape)
        (found,) = maps
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.uint8

    @pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6), (1, 4, 5, 6)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
    def test_simpleitk_files_are_read_as_nnunet_reads_them(self, tmp_path, shape, dtype):
        path, array = tmp_path / "r1.nii.gz", np.random.default_rng(0).integers(0, 3, shape).astype(dtype)
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(path))
        expected = SimpleITKIO().read_seg(str(path))[0][0]
        maps = RaterMaps([path], SimpleITKIO(), num_classes=3)
        maps.check(expected.shape)
        (found,) = maps
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.uint8

    @pytest.mark.parametrize("share", [0.5, 0.99])
    def test_truncated(self, tmp_path, reader, share):
        array = np.random.default_rng(0).integers(0, 3, (8, 9, 10)).astype(np.uint8)
        maps = self.maps(tmp_path, reader, array)
        data = maps.files[0].read_bytes()
        maps.files[0].write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match=r"r1\.nii\.gz: expected a whole nii\.gz file"):
            maps.check((8, 9, 10))

    def test_nan(self, tmp_path, reader):
        array = np.zeros((4, 4, 4), np.float32)
        array[1, 2, 3] = np.nan
        maps = self.maps(tmp_path, reader, array)
        with pytest.raises(InputError, match="found 1 voxels that are NaN, infinite or beyond 32-bit floats"):
            maps.check((4, 4, 4))

    def test_what_is_nearly_whole_is_rounded(self, tmp_path, reader):
        array = np.random.default_rng(0).integers(0, 3, (4, 5, 6))
        shape = reader.read_seg(str(self.maps(tmp_path, reader, array.astype(np.uint8)).files[0]))[0][0].shape
        (expected,) = self.maps(tmp_path, reader, array.astype(np.uint8))
        maps = self.maps(tmp_path, reader, (array - 0.0005).astype(np.float32), "r2.nii.gz")
        maps.check(shape)
        (found,) = maps
        np.testing.assert_array_equal(found, expected)

    def test_floats_that_were_checked_are_read_once(self, tmp_path, monkeypatch):
        unpacked = []
        monkeypatch.setattr(masks, "open_unpacked", lambda path: unpacked.append(path) or open_unpacked(path))
        maps = self.maps(tmp_path, SimpleITKIO(), np.ones((4, 4, 4), np.float32))
        maps.check((4, 4, 4))
        assert unpacked == maps.files
        assert [it.dtype for it in (*maps, *maps)] == [np.uint8] * 2
        assert unpacked == maps.files

    @pytest.mark.parametrize("kind", [SimpleITKIO, type("Derived", (SimpleITKIO,), {})])
    def test_a_name_that_is_no_utf8_ends_no_process(self, tmp_path, kind):
        maps = RaterMaps([tmp_path / os.fsdecode(b"case\xff.nii.gz")], kind(), num_classes=2)
        with pytest.raises(InputError, match=r"expected a path in UTF-8"):
            list(maps)

    @pytest.mark.parametrize("what", ["spacing", "origin", "direction"])
    def test_a_mask_on_another_grid_is_refused(self, tmp_path, what):
        image = sitk.GetImageFromArray(np.ones((4, 4, 4), np.uint8))
        sitk.WriteImage(image, str(tmp_path / "consensus.nii.gz"))
        values = {"spacing": [1, 1, 2], "origin": [0, 0, 3], "direction": [1, 0, 0, 0, 1, 0, 0, 0, -1]}
        getattr(image, f"Set{what.capitalize()}")([float(v) for v in values[what]])
        sitk.WriteImage(image, str(tmp_path / "r1.nii.gz"))
        maps = RaterMaps([tmp_path / "r1.nii.gz"], SimpleITKIO(), num_classes=2)
        maps.check((4, 4, 4), tmp_path / "r1.nii.gz")
        with pytest.raises(InputError, match=rf"r1\.nii\.gz: expected {what} .* of .*consensus\.nii\.gz"):
            maps.check((4, 4, 4), tmp_path / "consensus.nii.gz")

    @pytest.mark.parametrize("name", ["NibabelIO", "NibabelIOWithReorient"])
    @pytest.mark.parametrize("what", ["spacing", "origin", "direction"])
    def test_a_mask_with_another_affine_is_refused(self, tmp_path, name, what):
        from nnunetv2.imageio import nibabel_reader_writer

        image = sitk.GetImageFromArray(np.ones((4, 4, 4), np.uint8))
        sitk.WriteImage(image, str(tmp_path / "consensus.nii.gz"))
        values = {"spacing": [1, 1, 2], "origin": [0, 0, 3], "direction": [1, 0, 0, 0, -1, 0, 0, 0, 1]}
        getattr(image, f"Set{what.capitalize()}")([float(v) for v in values[what]])
        sitk.WriteImage(image, str(tmp_path / "r1.nii.gz"))
        reader = getattr(nibabel_reader_writer, name)()
        maps = RaterMaps([tmp_path / "r1.nii.gz"], reader, num_classes=2)
        maps.check((4, 4, 4), tmp_path / "r1.nii.gz")
        with pytest.raises(
            InputError, match=r"r1\.nii\.gz: expected the affine \[\[.* of .*consensus\.nii"
        ) as caught:
            maps.check((4, 4, 4), tmp_path / "consensus.nii.gz")
        assert "\n" not in caught.value.problems[0]

    def test_all_bad_files_are_named(self, tmp_path, reader):
        maps = [
            self.maps(tmp_path, reader, np.full((4, 4, 4), value, np.float32), f"r{i}.nii.gz")
            for i, value in enumerate((0.5, 3, 1))
        ]
        together = RaterMaps([m.files[0] for m in maps], reader, num_classes=3)
        with pytest.raises(InputError) as caught:
            together.check((4, 4, 4))
        fraction, label = caught.value.problems
        assert "r0.nii.gz: expected whole numbers" in fraction
        assert "r1.nii.gz: expected labels 0 … 2" in label


@pytest.mark.slow
class TestPhantom:
    def maps(self, phantom, fusion="uniform"):
        return phantom.preprocessed / DATASET / "nnUNetPlans_2d_soft" / fusion

    def test_the_maps_are_the_raters_means_in_the_bounding_box(self, phantom):
        for path in sorted(self.maps(phantom).glob("*.b2nd")):
            case = path.stem
            masks = [
                sitk.GetArrayFromImage(sitk.ReadImage(str(f)))
                for f in sorted((phantom.source / case).glob("task*"))
            ]
            properties = load_pickle(str(phantom.preprocessed / DATASET / "nnUNetPlans_2d" / f"{case}.pkl"))
            box = tuple(slice(*bounds) for bounds in properties["bbox_used_for_cropping"][1:])
            expected = np.mean(masks, axis=0)[box]
            opened = verify_soft_map(path)
            np.testing.assert_allclose(opened.load()[0, 0], expected, atol=1 / 510 + 1e-6)
            share = ((expected > 0) & (expected < 1)).mean()
            assert share > 0
            assert opened.metadata["fractional"] == pytest.approx(share, abs=1e-9)
            assert opened.array.dtype == np.uint8

    def test_stock_nnunet_sees_nothing_unusual(self, phantom):
        from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

        folder = str(phantom.preprocessed / DATASET / "nnUNetPlans_2d")
        assert sorted(infer_dataset_class(folder).get_identifiers(folder)) == [
            f"case{i:02d}" for i in range(1, 11)
        ]

    def test_up_to_date_maps_are_kept_and_bad_ones_made_anew(self, phantom, tmp_path, monkeypatch):
        for name in ("raw", "preprocessed"):
            shutil.copytree(getattr(phantom, name) / DATASET, tmp_path / name / DATASET)
            monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        maps = tmp_path / "preprocessed" / DATASET / "nnUNetPlans_2d_soft" / "uniform"
        before = {path.name: path.read_bytes() for path in maps.iterdir()}
        modified = {path.name: path.stat().st_mtime_ns for path in maps.iterdir()}
        (maps / "case01.b2nd").unlink()
        (maps / "case02.b2nd").write_bytes(before["case02.b2nd"][:-20])
        (maps / f".tmp-{_MACHINE}-{2**22 + 1}-abcdefgh-case03.b2nd").write_bytes(b"half")
        rater = next((tmp_path / "raw" / DATASET / "ratersTr" / "case04").iterdir())
        mask = sitk.ReadImage(str(rater))
        sitk.WriteImage(1 - mask, str(rater))
        out = nnunet_dml("preprocess", "-d", "901", "-c", "2d", "--fusion", "uniform").stdout
        assert "3 made (1 damaged, 1 missing, 1 stale: sources changed), 7 kept" in out
        after = {path.name: path.read_bytes() for path in maps.iterdir()}
        assert after.keys() == before.keys()
        assert {name for name in before if after[name] != before[name]} == {"case04.b2nd"}
        kept = {name for name in modified if (maps / name).stat().st_mtime_ns == modified[name]}
        assert kept == {f"case{i:02d}.b2nd" for i in (3, 5, 6, 7, 8, 9, 10)}

    def test_a_case_without_raters_uses_the_consensus_and_is_named(self, phantom, tmp_path, monkeypatch):
        for name in ("raw", "preprocessed"):
            shutil.copytree(getattr(phantom, name) / DATASET, tmp_path / name / DATASET)
            monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        description = tmp_path / "raw" / DATASET / "dataset.json"
        content = json.loads(description.read_text())
        del content["nnunet_dml"]["cases"]["case01"]
        description.write_text(json.dumps(content))
        shutil.rmtree(tmp_path / "raw" / DATASET / "ratersTr" / "case01")
        out = nnunet_dml("preprocess", "-d", "901", "-c", "2d", "--fusion", "uniform").stdout
        assert "1 cases without raters (consensus used): case01" in out
        path = tmp_path / "preprocessed" / DATASET / "nnUNetPlans_2d_soft" / "uniform" / "case01.b2nd"
        assert set(np.unique(open_soft_map(path).load())) == {0.0, 1.0}

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            ("text", "expected a readable nii.gz file"),
            ("truncated", "expected a whole nii.gz file, found a truncated gzip stream"),
            ("nan", "found 1 voxels that are NaN, infinite or beyond 32-bit floats"),
            ("shape", "expected shape"),
            ("label", "expected labels 0 … 1"),
            ("float", "expected whole numbers as labels"),
        ],
    )
    def test_bad_raters_are_named_and_nothing_is_half_written(
        self, phantom, tmp_path, monkeypatch, damage, words
    ):
        for name in ("raw", "preprocessed"):
            shutil.copytree(getattr(phantom, name) / DATASET, tmp_path / name / DATASET)
            monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        maps = tmp_path / "preprocessed" / DATASET / "nnUNetPlans_2d_soft" / "uniform"
        before = {path.name: path.read_bytes() for path in maps.iterdir()}
        bad = []
        for case in ("case02", "case05"):
            rater = next((tmp_path / "raw" / DATASET / "ratersTr" / case).iterdir())
            array = sitk.GetArrayFromImage(sitk.ReadImage(str(rater))).astype(np.float32)
            if damage == "nan":
                array.flat[0] = np.nan
            array = {"shape": array[1:], "label": array * 2, "float": array / 2}.get(damage, array)
            sitk.WriteImage(sitk.GetImageFromArray(array), str(rater))
            if damage == "truncated":
                rater.write_bytes(rater.read_bytes()[: rater.stat().st_size * 9 // 10])
            if damage == "text":
                rater.write_text("not an image")
            bad.append(str(rater))
        done = nnunet_dml("preprocess", "-d", "901", "-c", "2d", "--fusion", "uniform", check=False)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if words in line]
        assert len(lines) == 2
        assert all(any(name in line for line in lines) for name in bad)
        assert {path.name: path.read_bytes() for path in maps.iterdir()} == before

    def test_what_is_not_there_is_said(self, phantom, tmp_path):
        for arguments, words in (
            (["-d", "902"], "expected a data set 902"),
            (["-d", "901", "-c", "3d_fullres"], "expected a configuration 3d_fullres"),
            (["-d", "901", "-p", "nnUNetPlansX"], "nnUNetv2_plan_and_preprocess"),
            (["-d", "901", "--fusion", "mean"], "expected one of"),
        ):
            done = nnunet_dml("preprocess", *arguments, check=False)
            assert done.returncode == 2
            assert words in done.stderr
            assert "Traceback" not in done.stderr
        done = nnunet_dml("preprocess", "-d", "901", check=False, nnUNet_raw="")
        assert done.returncode == 2
        assert "nnUNet_raw" in done.stderr
