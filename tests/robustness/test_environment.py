"""Full disks, folders that cannot be written, two processes at once, and odd names."""

from __future__ import annotations

import ctypes
import json
import math
import resource
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from nnunet_dml.cli.main import main
from tests.evaluation.evaluation_world import write_image
from tests.nnunet.convert_helpers import folders_source, save, tree
from tests.robustness.worlds import COMMANDS

pytestmark = pytest.mark.filterwarnings("ignore")
DISK = 150  # bytes that fit on a full one
FULL = (
    "convert raters", "convert lits", "convert kits", "preprocess", "configure", "split", "teach", "raters", "evaluate",
    "compare", "calibrate fit", "calibrate apply", "calibrate apply --cross-fitted", "export", "benchmark tables",
    pytest.param("report", marks=pytest.mark.slow),
)  # fmt: skip
READ_ONLY = {
    "convert raters": "raw",
    "preprocess": "preprocessed/Dataset501_Test",
    "configure": "preprocessed/Dataset501_Test",
}
TWICE = ("convert raters", "preprocess", "evaluate", "calibrate fit", "calibrate apply --cross-fitted")
ODD = ("with spaces ", "Größe µ ", "x" * 180)


def convert(source, *more):
    """Raters' folders into Dataset501_New."""
    arguments = ("--dataset", "501_New", "--layout", "folders", "-np", "1", *more)
    return main(["convert", "raters", str(source), *arguments])


def test_their_number():
    tests = [it for name, it in globals().items() if name.startswith("test_") and it is not test_their_number]
    rows = [
        [len(mark.args[1]) for mark in getattr(it, "pytestmark", []) if mark.name == "parametrize"]
        for it in tests
    ]
    assert sum(map(math.prod, rows)) == 28


# -- a full disk


@contextmanager
def full_disk():
    """No file grows beyond `DISK` bytes, as if nothing more fitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, hard))  # Python ignores the signal: writing fails
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk(name, called, capsys):
    call = called(name)
    if name == "split":
        (call.root / "preprocessed/Dataset501_Test/splits_final.json").write_text("[]")
    before = call.files()
    with full_disk():
        status = call()
    said = capsys.readouterr()
    assert status == 2, said
    lines = [line for line in said.err.splitlines() if line and "%|" not in line]
    assert lines
    assert all(line.startswith(f"nnunet-dml {call.command.arguments[0]}: ") for line in lines)
    assert "Traceback" not in said.err
    assert call.files() == before
    assert not any(it.name.startswith(".tmp-") for it in call.root.rglob("*"))
    assert call() == 0


# -- folders that cannot be written


@pytest.mark.parametrize(
    ("name", "option", "file"),
    [("evaluate", "-o", "out"), ("compare", "-o", "table.csv"), ("export", "-o", "model.zip")],
)
def test_a_folder_that_cannot_be_written(name, option, file, called, capsys):
    call = called(name)
    before = tree(call.root)
    arguments = list(COMMANDS[name].arguments)
    arguments[arguments.index(option) + 1] = f"/proc/{file}"  # which even root cannot write to
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert f"/proc/{file}" in said
    assert "Traceback" not in said
    assert tree(call.root) == before


@contextmanager
def modes_count():
    """Root's right to write anywhere is put aside, so that modes of folders count for this process, too."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    effective = sets[0]
    sets[0] &= ~(1 << 1)  # CAP_DAC_OVERRIDE
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = effective
        assert libc.capset(header, sets) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="puts aside a right that Linux has")
@pytest.mark.parametrize("name", READ_ONLY)
def test_a_read_only_folder(name, called, capsys):
    call = called(name)
    folder = call.root / READ_ONLY[name]
    before = tree(call.root)
    folder.chmod(0o555)
    try:
        with modes_count():
            status = call()
    finally:
        folder.chmod(0o755)
    said = capsys.readouterr()
    assert status == 2, said
    last = said.err.splitlines()[-1]
    assert str(folder) in last
    assert "Permission denied" in last
    assert "Traceback" not in said.err
    assert tree(call.root) == before
    assert call() == 0


# -- two processes at once on one data set


@pytest.mark.slow
@pytest.mark.parametrize("name", TWICE)
def test_two_at_once(name, called, zygote):
    """Both end as one alone would, or one says that the other was there first; the files are those of one."""
    call = called(name)
    before = tree(call.root)
    arguments = COMMANDS[name].arguments
    assert zygote.run(arguments, call.root).status == 0
    expected = tree(call.root)
    for path in sorted(call.root.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(call.root).as_posix() not in before:
            path.unlink()
        elif (
            path.is_dir() and not any(path.iterdir()) and path.name not in ("raw", "preprocessed", "results")
        ):
            path.rmdir()
    both = [zygote.start(arguments, call.root) for _ in range(2)]
    ended = [zygote.wait(pid) for pid in both]
    assert 0 in [it.status for it in ended], ended
    assert all(it.status in (0, 2) and "Traceback" not in it.said for it in ended), ended
    assert tree(call.root) == expected


# -- names


def test_odd_names_all_the_way(tmp_path, monkeypatch):
    """Spaces, letters beyond ASCII, 200 characters: from the raters' files to the report."""
    name = "".join(ODD)
    assert len(name) >= 200
    base = tmp_path / name
    for variable in ("raw", "preprocessed", "results"):
        (base / variable).mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{variable}", str(base / variable))
    cases = ("Fall ä 1", "é" * 60, "y" * 150)
    folders_source(base / "src", cases=cases, raters=("Jörg B", "r 2"), shape=(6, 5))
    assert convert(base / "src") == 0
    for number, case in enumerate(cases):
        fractions = np.random.default_rng(number).random((6, 5)).astype(np.float32)
        write_image(base / "maps" / f"{case}.nii.gz", fractions, spacing=(0.5, 0.75))
        like = save(base / "like.nii.gz", np.zeros((6, 5), np.uint8))
        _copy_grid(like, base / "maps" / f"{case}.nii.gz")
    out, page = base / "évaluation 1", base / "Bericht für alle.html"
    assert (
        main(["evaluate", "-d", "501", "--predictions", str(base / "maps"), "-o", str(out), "-np", "1"]) == 0
    )
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["cases"] == 3
    assert {it.stem for it in (out / "cases").iterdir()} == set(cases)
    assert main(["report", str(out), "-o", str(page), "--resamples", "20"]) == 0
    assert "Fall ä 1" in page.read_text(encoding="utf-8")


def _copy_grid(source: Path, target: Path) -> None:
    import SimpleITK as sitk

    image = sitk.ReadImage(str(target))
    image.CopyInformation(sitk.ReadImage(str(source)))
    sitk.WriteImage(image, str(target))
