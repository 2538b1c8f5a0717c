"""What is found out about outputs before the work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.cli._outputs import check_apart, check_folder
from nnunet_dml.evaluation import rater_summary, summary

CHECKS = {
    "report, benchmark": lambda folder: check_folder("-o", folder),
    "raters": rater_summary.check_output,
    "evaluate": summary.check_writable,
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_where_no_parent_is_there_no_folder_can_be_made(tmp_path, monkeypatch, check):
    monkeypatch.setattr(Path, "exists", lambda path: False)  # as on a drive that is not there
    with pytest.raises(
        InputError, match=r"^-o .*/out: expected a folder, or a parent that is there .*, found none\."
    ):
        check(tmp_path / "out")


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_file_in_the_way_is_named(tmp_path, check):
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=rf"^-o .*/out: expected a folder, found a file {tmp_path}/file\. Give"
    ):
        check(tmp_path / "file" / "out")
    check(tmp_path / "new" / "out")
    assert [it.name for it in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("names", [(), ("summary.json", "cases")])
def test_another_spelling_of_what_is_read_is_refused(tmp_path, names):
    """As on a file system that takes `Summary.json` for `summary.json`; a hard link stands for it."""
    read = tmp_path / "read"
    (read / "cases").mkdir(parents=True)
    (read / "summary.json").touch()
    os.link(read / "summary.json", read / "Summary.json")
    (tmp_path / "Read").symlink_to(read)
    for path in ("read/Summary.json", "Read/summary.json", "Read/cases/a.json", "read/summary.json", "read"):
        with pytest.raises(
            InputError, match=r"^-o .*: expected another place than what is read in .*/read, found"
        ):
            check_apart("-o", tmp_path / path, read, *names)
    (tmp_path / "other").touch()
    for path in ("other", "new", "reader/summary.json"):
        check_apart("-o", tmp_path / path, read, *names)
    if names:
        check_apart("-o", read / "new.json", read, *names)
