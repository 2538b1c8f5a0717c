"""What `convert raters` refuses: each problem in one line, all of a run together, nothing written."""

import errno
import gzip
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml import _images
from nnunet_dml._checks import InputError
from nnunet_dml.nnunet import rater_writing
from nnunet_dml.nnunet.convert import convert_raters
from tests.nnunet.convert_helpers import folders_source, load, save, tree

NAME = "Dataset501_Test"


@pytest.fixture
def src(tmp_path):
    folders_source(tmp_path / "src", shape=(4, 6, 5))
    return tmp_path / "src"


def convert(src, **options):
    return convert_raters(src, **{"dataset": "501_Test", "layout": "folders", "processes": 1} | options)


def problems(src, **options):
    with pytest.raises(InputError) as caught:
        convert(src, **options)
    assert not any("\n" in line for line in caught.value.problems)
    return list(caught.value.problems)


def only(src, **options):
    rows = problems(src, **options)
    assert len(rows) == 1, rows
    return rows[0]


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
        self.check(raw, src, "found 1 voxels that are NaN or infinite")

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


class TestOptions:
    @pytest.mark.parametrize(
        "dataset", ["501", "Brain", "5_Brain", "Dataset501", "501_", "501_a/b", "../501_x"]
    )
    def test_dataset_name(self, raw, src, dataset):
        assert "--dataset: expected three digits and a name of ASCII letters" in only(src, dataset=dataset)

    def test_full_name(self, raw, src):
        assert convert(src, dataset="Dataset501_Test", dry_run=True).folder == raw / NAME

    @pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_results"])
    def test_id_taken(self, raw, src, tmp_path, monkeypatch, variable):
        monkeypatch.setenv(variable, str(tmp_path / "there"))
        (tmp_path / "there/Dataset501_Other").mkdir(parents=True)
        assert "taken by" in (line := only(src))
        assert "Dataset501_Other" in line

    def test_unset_variable(self, raw, src, monkeypatch):
        monkeypatch.delenv("nnUNet_raw")
        assert "export nnUNet_raw=" in only(src)

    def test_existing_dataset(self, raw, src):
        convert(src)
        before = tree(raw)
        assert "Add --overwrite" in only(src)
        assert tree(raw) == before

    def test_source_inside_the_dataset_to_be_replaced(self, raw, src):
        shutil.copytree(src, raw / NAME / "source")
        assert "outside the dataset" in only(raw / NAME / "source", overwrite=True)
        assert (raw / NAME / "source").is_dir()

    def test_failed_check_keeps_the_old_dataset(self, raw, src):
        convert(src)
        before = tree(raw)
        (src / "raters/r1/a.nii.gz").write_bytes(b"")
        only(src, overwrite=True)
        assert tree(raw) == before

    def test_channel_names(self, raw, src):
        assert "--channel-names: expected 1 names" in only(src, channel_names=["MR", "T2"])

    @pytest.mark.parametrize("labels", [{"a": 1, "b": 1}, {"background": 1}, {"ignore": 1}, {"a": 0}])
    def test_labels(self, raw, src, labels):
        assert only(src, labels=labels).startswith("--labels: expected ")

    def test_processes(self, raw, src):
        assert "-np: expected at least 1 process, found 0" in only(src, processes=0)

    def test_missing_source(self, raw, tmp_path):
        assert "nowhere: expected a folder with images and raters' masks, found nothing" in only(
            tmp_path / "nowhere"
        )

    def test_other_layout(self, raw, src, tmp_path):
        line = only(src, layout="qubiq")
        assert "task01_seg01.*" in line
        assert "found images/, raters/. This looks like --layout folders." in line
        (tmp_path / "empty").mkdir()
        line = only(tmp_path / "empty")
        assert (
            "expected the folders images/ and raters/<rater>/ (layout folders), found an empty folder" in line
        )

    def test_options_of_another_layout(self, raw, src):
        assert "--task: expected only with --layout qubiq" in only(src, task=1)
        assert "expected only with --layout flat" in only(src, images="{case}.png")

    def test_no_permission(self, raw, src, monkeypatch):
        access = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: False if mode & os.W_OK else access(path, mode))
        assert f"{raw}: expected a folder to write to, found no permission" in only(src)

    def test_raw_is_a_file(self, raw, src, monkeypatch):
        (raw / "file").write_text("")
        monkeypatch.setenv("nnUNet_raw", str(raw / "file"))
        assert "expected a folder to write to, found a file" in only(src)


class TestFullDisk:
    def test_simulated_while_copying(self, raw, src, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(rater_writing.shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space left on device"):
            convert(src)
        assert not list(raw.iterdir())

    def test_old_dataset_stays(self, raw, src, monkeypatch):
        convert(src)
        before = tree(raw)
        monkeypatch.setattr(
            _images.sitk, "WriteImage", lambda *_: (_ for _ in ()).throw(RuntimeError("ITK ERROR: no"))
        )
        with pytest.raises(OSError, match="is the disk full"):
            convert(src, overwrite=True)
        assert tree(raw) == before

    @pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".gipl", ".mha", ".nrrd", ".png", ".bmp", ".tif"])
    def test_real(self, tmp_path, ending):
        """SimpleITK reports no error for some formats on a device without space."""
        (tmp_path / f"full{ending}").symlink_to("/dev/full")
        array = np.arange(30, dtype=np.uint8).reshape(5, 6)
        grid = _images.Grid((6, 5), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
        with pytest.raises(OSError, match="is the disk full"):
            _images.write(array, grid, tmp_path / f"full{ending}")

    @pytest.mark.parametrize("processes", [1, 2])
    def test_limit_on_the_size_of_files(self, raw, tmp_path, processes):
        """As a full disk, in a process of its own: masks fit, the second case's image does not."""
        src = tmp_path / "large"
        folders_source(src, ending=".nii", shape=(4, 6, 5))
        save(src / "images/b.nii", np.zeros((4, 6, 5), np.float64))
        code = (
            "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
            "from nnunet_dml.cli.main import main; sys.exit(main(sys.argv[1:]))"
        )
        command = [
            "convert",
            "raters",
            src,
            "--dataset",
            "501_Test",
            "--layout",
            "folders",
            "-np",
            str(processes),
        ]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True
        )
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "b_0000.nii" in done.stderr
        assert not list(raw.iterdir())
