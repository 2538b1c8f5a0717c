"""Options of the conversion that cannot be, and a full disk."""

import errno
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml import _images
from nnunet_dml.nnunet import rater_writing
from tests.nnunet.convert_helpers import NAME, convert, folders_source, only, save, tree


@pytest.fixture
def src(tmp_path):
    folders_source(tmp_path / "src", shape=(4, 6, 5))
    return tmp_path / "src"


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

    @pytest.mark.parametrize(
        "labels", [{"a": 1, "b": 1}, {"background": 1}, {"all": 1}, {"a\nb": 1}, {"ignore": 1}, {"a": 0}]
    )
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
            sitk, "WriteImage", lambda *_: (_ for _ in ()).throw(RuntimeError("ITK ERROR: no"))
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
            [sys.executable, "-B", "-c", code, *map(str, command)], capture_output=True, text=True
        )
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "b_0000.nii" in done.stderr
        assert not list(raw.iterdir())
