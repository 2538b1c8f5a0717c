"""What `convert raters` refuses: each problem in one line, all of a run together, nothing written."""

import gzip
import os
import shutil
from itertools import chain

import numpy as np
import pytest
import SimpleITK as sitk

from tests.nnunet.convert_helpers import convert, folders_source, load, only, problems, save
from tests.robustness import damage as by

GEOMETRY = [(by.voxel_size(0.0), "(0, 0.75, 2)"), (by.voxel_size(float("nan")), "(nan, 0.75, 2)")]
GEOMETRY += [(by.voxel_size(-1e30), "(-1e+30, 0.75, 2)"), (by.origin_nan, "(nan, ")]


@pytest.fixture
def src(tmp_path):
    folders_source(tmp_path / "src", shape=(4, 6, 5))
    return tmp_path / "src"


def truncate(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


class TestFiles:
    """Each spoils one mask (or the image) of case a; the line names that file."""

    mask = "raters/r2/a.nii.gz"

    def check(self, raw, src, *words, where=mask):
        line = only(src)
        assert line.startswith(f"{src / where}: expected ")
        for word in words:
            assert word in line
        assert not list(raw.iterdir())

    @pytest.mark.parametrize("where", [mask, "images/a.nii.gz"])
    def test_empty_file(self, raw, src, where):
        (src / where).write_bytes(b"")
        self.check(raw, src, "found an empty file", where=where)

    @pytest.mark.parametrize("where", [mask, "images/a.nii.gz"])
    @pytest.mark.parametrize("share", [0.5, 0.97])
    def test_truncated_gzip(self, raw, src, where, share):
        truncate(src / where, share)
        self.check(raw, src, "found a truncated gzip stream", where=where)

    def test_damaged_gzip(self, raw, src):
        data = bytearray((src / self.mask).read_bytes())
        data[-6] ^= 0xFF  # the checksum
        (src / self.mask).write_bytes(data)
        self.check(raw, src, "found a damaged gzip stream (CRC check failed")

    def test_whole_gzip_around_a_truncated_nifti(self, raw, src):
        data = gzip.decompress((src / self.mask).read_bytes())
        (src / self.mask).write_bytes(gzip.compress(data[:-7]))
        self.check(raw, src, f"found {len(data) - 7} of {len(data)} bytes")

    @pytest.mark.parametrize(("how", "found"), GEOMETRY)
    def test_an_image_that_lies_nowhere(self, raw, src, how, found):
        how(src / "images/a.nii.gz")
        what = "origin" if how is by.origin_nan else "spacing"
        self.check(raw, src, f"found {what} {found}", "Set it in the header.", where="images/a.nii.gz")

    @pytest.mark.parametrize(("how", "found"), GEOMETRY[:3])
    def test_a_mask_without_a_voxel_size(self, raw, src, how, found):
        how(src / self.mask)
        self.check(raw, src, f"found spacing {found}", "--repair-headers")
        facts = convert(src, repair_headers=True).facts
        assert [path for path, _ in chain(*(it.repaired for it in facts))] == [src / self.mask]

    @pytest.mark.parametrize("repair", [False, True])
    @pytest.mark.parametrize(("how", "found"), GEOMETRY)
    def test_a_case_that_lies_nowhere(self, raw, src, how, found, repair):
        for path in [src / "images/a.nii.gz", *src.glob("raters/*/a.nii.gz")]:
            how(path)
        assert problems(src, repair_headers=repair)[0].startswith(f"{src}/images/a.nii.gz: expected ")
        assert not any("of " + str(src) in it for it in problems(src, repair_headers=repair))

    def test_text_file(self, raw, src, capfd):
        (src / self.mask).write_text("not an image\n" * 100)
        self.check(raw, src, "expected a readable nii.gz file, found something else under that name")
        assert "ITK" not in capfd.readouterr().err

    def test_gzipped_text_file(self, raw, src):
        (src / self.mask).write_bytes(gzip.compress(b"not an image\n" * 100))
        self.check(raw, src, "found something else under that name")

    def test_size(self, raw, src):
        save(src / self.mask, np.zeros((4, 7, 5), np.uint8))
        self.check(raw, src, "expected size (5, 6, 4) of", "found (5, 7, 4)", "images/a.nii.gz")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                {"spacing": (0.5, 0.75, 2.1)},
                ("spacing (0.5, 0.75, 2)", "found (0.5, 0.75, 2.0", "1e-06 of the voxel"),
            ),
            ({"origin": (-10.0, 20.5, 3.5)}, ("origin (-10, 20.5, 3.25)", "found (-10, 20.5, 3.5)")),
            (
                {"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)},
                ("direction (1, 0, 0, 0", "found (-1, 0, 0, 0, -1", "1e-06"),
            ),
        ],
    )
    def test_geometry(self, raw, src, change, words):
        save(src / self.mask, load(src / self.mask), **change)
        self.check(raw, src, *words, "Resample it")

    @pytest.mark.parametrize(("shift", "refused"), [(0.4e-6, False), (0.6e-6, True)])
    def test_tolerance_is_that_of_simpleitk(self, raw, tmp_path, shift, refused):
        """1e-6 of the first voxel size, 0.5: half a micrometre. NRRD keeps doubles."""
        src = tmp_path / "fine"
        save(src / "images/a.nrrd", np.zeros((4, 6, 5), np.uint8), origin=(1.0, 2.0, 3.0))
        path = save(src / "raters/r/a.nrrd", np.ones((4, 6, 5), np.uint8), origin=(1.0, 2.0, 3.0 + shift))
        image, mask = sitk.ReadImage(str(src / "images/a.nrrd")), sitk.ReadImage(str(path))
        if refused:
            assert "origin" in only(src)
            with pytest.raises(RuntimeError, match="same physical space"):
                sitk.Add(image, mask)
        else:
            convert(src)
            sitk.Add(image, mask)

    def test_fractions(self, raw, src):
        soft = load(src / self.mask).astype(np.float32)
        soft[0, 0, :2] = 0.25
        save(src / self.mask, soft)
        self.check(raw, src, "expected whole numbers as labels, found 2 voxels with others, such as 0.25")

    def test_nan(self, raw, src):
        soft = load(src / self.mask).astype(np.float32)
        soft[0, 0, 0] = np.nan
        save(src / self.mask, soft)
        self.check(raw, src, "found 1 voxels that are NaN, infinite or beyond 32-bit floats")

    def test_nan_in_the_image(self, raw, src):
        image = load(src / "images/a.nii.gz").astype(np.float32)
        image[0, 0, 0] = np.nan
        save(src / "images/a.nii.gz", image)
        self.check(raw, src, "expected finite intensities, found 1", where="images/a.nii.gz")

    def test_negative(self, raw, src):
        save(src / self.mask, load(src / self.mask).astype(np.int16) - 1)
        self.check(raw, src, "expected labels of at least 0, found -1")

    def test_rgb_mask(self, raw, src):
        (src / self.mask).unlink()
        save(src / "raters/r2/a.png", np.zeros((6, 5, 3), np.uint8), vector=True)
        rows = problems(src)  # of another size as well
        assert all(row.startswith(f"{src / 'raters/r2/a.png'}: expected ") for row in rows)
        assert "found (5, 6)" in rows[0]
        assert "one value per pixel, found 3 (RGB" in rows[1]

    def test_missing_image(self, raw, src):
        (src / "images/a.nii.gz").unlink()
        rows = problems(src)
        assert len(rows) == 3  # one for each rater's mask
        assert f"{src / self.mask}: expected an image images/a.* in {src}, found none." in rows[1]

    def test_image_of_a_format_that_nnunet_does_not_read(self, raw, src):
        (src / "images/a.nii.gz").rename(src / "images/a.jpg")
        assert "found only a.jpg, which nnU-Net does not read" in problems(src)[0]

    def test_missing_masks(self, raw, src):
        for rater in ("r1", "r2", "r3"):
            (src / f"raters/{rater}/b.nii.gz").unlink()
        assert (
            f"{src / 'raters'}: expected at least one rater's mask <rater>/b.* for case b, found none"
            in only(src)
        )

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_unreadable_file(self, raw, src):
        (src / self.mask).chmod(0)
        self.check(raw, src, "found no permission to read it")

    def test_duplicate_image(self, raw, src):
        save(src / "images/a.png", np.zeros((6, 5), np.uint8))
        rows = problems(src)
        assert any(
            "expected one image for each case" in row and "found a.nii.gz, a.png" in row for row in rows
        )

    def test_duplicate_mask(self, raw, src):
        shutil.copy(src / self.mask, src / "raters/r2/a.nrrd")
        rows = problems(src)
        assert any(
            "expected one mask of case a by rater r2, found a.nii.gz and a.nrrd" in row for row in rows
        )

    def test_mixed_endings(self, raw, src):
        image = sitk.ReadImage(str(src / "images/a.nii.gz"))
        sitk.WriteImage(image, str(src / "images/a.nrrd"))
        (src / "images/a.nii.gz").unlink()
        line = only(src)
        assert (
            "one file ending for all images, found .nrrd (1: images/a.nrrd) and .nii.gz (1: images/b.nii.gz)"
            in line
        )

    def test_other_number_of_channels(self, raw, src):
        save(src / "images/b.nii.gz", np.zeros((2, 4, 6, 5), np.uint8))
        shutil.copytree(src / "raters/r1", src / "raters/r4")
        save(src / "images/c.nii.gz", np.zeros((4, 6, 5), np.uint8))
        save(src / "raters/r1/c.nii.gz", np.ones((4, 6, 5), np.uint8))
        line = only(src)
        assert (
            "images/b.nii.gz: expected a 3D image with 1 channels, as most cases have, found 3D with 2"
            in line
        )

    def test_channels_on_other_grids(self, raw, src):
        (src / "images/a.nii.gz").rename(src / "images/a_0000.nii.gz")
        save(src / "images/a_0001.nii.gz", np.zeros((4, 6, 6), np.uint8))
        assert "images/a_0001.nii.gz: expected size (5, 6, 4) of" in problems(src)[0]

    def test_channel_gap(self, raw, src):
        (src / "images/a.nii.gz").rename(src / "images/a_0001.nii.gz")
        assert "channels _0000, _0001, … without gaps, found a_0001.nii.gz" in problems(src)[0]

    def test_all_problems_at_once(self, raw, src):
        (src / "raters/r1/a.nii.gz").write_bytes(b"")
        truncate(src / "raters/r2/a.nii.gz", 0.5)
        save(src / "raters/r3/a.nii.gz", np.full((4, 6, 5), 0.5, np.float32))
        save(src / "raters/r1/b.nii.gz", np.full((4, 6, 6), 7, np.uint8))
        rows = problems(src)
        for name in ("r1/a", "r2/a", "r3/a", "r1/b"):
            assert sum(row.startswith(f"{src / 'raters' / name}.nii.gz:") for row in rows) == 1
        assert any("without gaps" in row and "7 in 1 masks" in row for row in rows)
        assert len(rows) == 5


@pytest.mark.parametrize("ending", [".nii", ".gipl", ".mha", ".nrrd", ".tif"])
def test_truncated_volumes(raw, tmp_path, ending, capfd):
    """SimpleITK reads some of these as if they were whole."""
    folders_source(tmp_path / "src", ending=ending, shape=(9, 40, 30))
    path = tmp_path / "src" / "raters/r1" / f"a{ending}"
    truncate(path, 0.7)
    line = only(tmp_path / "src")
    assert line.startswith(f"{path}: expected ")
    assert "Traceback" not in (err := capfd.readouterr().err)
    assert "ITK" not in err


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_truncated_pictures(raw, tmp_path, ending):
    folders_source(tmp_path / "src", ending=ending, shape=(40, 30))
    path = tmp_path / "src" / "raters/r1" / f"a{ending}"
    truncate(path, 0.7)
    assert only(tmp_path / "src").startswith(f"{path}: expected ")
