"""Files and folders that are whole or not there, also when a process is killed or another one is at work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml._files import (
    atomic_file,
    atomic_files,
    atomic_folder,
    check_can_write,
    clear_leftovers,
    read_json,
    read_splits,
)

KILLED = """
import os, signal, sys
from pathlib import Path
from nnunet_dml._files import atomic_file, atomic_files, atomic_folder

folder, what = Path(sys.argv[1]), sys.argv[2]
kill = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
if what == "file":
    with atomic_file(folder / "map.b2nd") as path:
        path.write_text("half")
        kill()
if what == "files":
    with atomic_files(folder / "figures") as path:
        (path / "a").write_text("half")
        kill()
with atomic_folder(folder / "Dataset501_Test", replace=True) as path:
    (path / "new").touch()
    if what == "block":
        kill()
    rename = Path.rename
    Path.rename = lambda self, target: rename(self, target) if target.name.startswith(".old-") else kill()
"""


def killed(folder, what):
    """A process that is killed in the middle of writing to a folder; returns what it left behind."""
    before = set(folder.rglob(".*"))
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", KILLED, folder, what], cwd=root, check=False)
    left = set(folder.rglob(".*")) - before
    assert left
    return left


@pytest.fixture
def old(tmp_path):
    folder = tmp_path / "Dataset501_Test"
    folder.mkdir()
    (folder / "old").touch()
    return folder


def test_leftovers_of_a_killed_process_go(tmp_path, old):
    left = killed(tmp_path, "file") | killed(tmp_path, "block")
    assert len(left) == 2
    clear_leftovers(tmp_path, "Dataset501_Test")
    assert [path.name.endswith("-map.b2nd") for path in left if path.exists()] == [True]
    clear_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize("there", [False, True])
def test_leftovers_of_killed_files_go_with_the_next_ones(tmp_path, there):
    folder = tmp_path / "figures"
    if there:
        folder.mkdir()
    killed(tmp_path, "files")
    with atomic_files(folder) as new:
        (new / "a").touch()
    assert sorted(tmp_path.rglob("*")) == [folder, folder / "a"]


def test_a_pipe_or_folder_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    for name in ("pipe", "folder"):
        with (
            pytest.raises(InputError, match=f"{name}: expected a file, or nothing yet"),
            atomic_file(tmp_path / name) as new,
        ):
            new.write_text("never")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_put_aside_by_a_killed_process_comes_back(tmp_path, old):
    killed(tmp_path, "between the renames")
    assert not old.exists()
    clear_leftovers(tmp_path, old.name)
    assert list(tmp_path.iterdir()) == [old]
    assert [path.name for path in old.iterdir()] == ["old"]


def test_a_folder_put_aside_goes_where_there_is_a_new_one(tmp_path, old):
    killed(tmp_path, "between the renames")
    with atomic_folder(old) as new:
        (new / "newer").touch()
    clear_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [old]
    assert [path.name for path in old.iterdir()] == ["newer"]


def test_what_belongs_to_others_stays(tmp_path):
    with atomic_folder(tmp_path / "a") as folder, atomic_file(tmp_path / "b") as file:
        file.touch()
        parts = re.fullmatch(r"\.tmp-(\w{8})-(\d+)-\w{8}-b", file.name)
        assert parts[2] == str(os.getpid())
        elsewhere = tmp_path / f".tmp-{'0' * 8}-999999999-abcdefgh-c"  # another machine
        elsewhere.touch()
        clear_leftovers(tmp_path)
        assert folder.is_dir()
        assert file.is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [elsewhere.name, "a", "b"]


def test_no_folder_nothing_to_clear(tmp_path):
    clear_leftovers(tmp_path / "nowhere")


def test_a_folder_that_another_process_made_meanwhile_stays(tmp_path):
    path = tmp_path / "Dataset501_Test"
    theirs = path / "theirs"
    with pytest.raises(FileExistsError, match="Dataset501_Test exists already"), atomic_folder(path):
        theirs.mkdir(parents=True)
    assert [p.name for p in path.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_folder_comes_back_where_the_new_one_cannot_be_renamed(old, monkeypatch):
    rename = Path.rename

    def fails(self, target):
        if self.name.startswith(".tmp-"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Input/output"), atomic_folder(old, replace=True):
        pass
    assert [path.name for path in old.iterdir()] == ["old"]
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "expected a file, found none"), ("{", "expected JSON"), ("[]", "a JSON object, found list")],
)
def test_bad_json_is_named(tmp_path, text, words):
    path = tmp_path / "plans.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=rf"plans\.json: .*{words}.*\. Do this\.") as caught:
        read_json(path, todo="Do this.")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("there", [False, True])
def test_files_that_come_into_a_folder_come_together_or_not_at_all(tmp_path, there):
    folder = tmp_path / "figures"
    if there:
        folder.mkdir()
        for name in ("mine", "a"):
            (folder / name).write_text("old")
    before = sorted(tmp_path.rglob("*"))

    def on_a_full_disk():
        with atomic_files(folder) as new:
            (new / "a").write_text("new")
            with atomic_file(new / "b"):
                raise OSError(28, "No space left on device")  # as the system says of a write: without a name

    with pytest.raises(OSError, match="No space") as raised:
        on_a_full_disk()
    assert raised.value.filename == str(folder / "b")
    assert sorted(tmp_path.rglob("*")) == before
    with atomic_files(folder) as new:
        (new / "a").write_text("new")
    assert {it.name: it.read_text() for it in folder.iterdir()} == {"a": "new"} | (
        {"mine": "old"} if there else {}
    )


def test_no_file_comes_where_one_of_them_cannot(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_text("old")
    before = sorted(tmp_path.rglob("*"))

    def over_a_folder():
        with atomic_files(tmp_path) as new:
            for name in "abc":
                (new / name).write_text("new")

    with pytest.raises(InputError, match=rf"^{tmp_path}/b: expected a file, or nothing yet") as caught:
        over_a_folder()
    assert len(caught.value.problems) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "a").read_text() == "old"


def test_a_file_that_cannot_be_moved_is_named_as_the_user_knows_it(tmp_path, monkeypatch):
    def fails(self, target):
        raise PermissionError(13, "Permission denied", str(self), None, str(target))

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(PermissionError) as raised, atomic_files(tmp_path) as new:
        (new / "a").touch()
    assert raised.value.filename == str(tmp_path / "a")


@pytest.mark.parametrize(
    ("exists", "words"),
    [
        (lambda path: False, r"expected a folder, or a parent that is there .*, found none\. Give"),
        (Path.exists, r"expected a folder, found a file .*/file\. Give another path\."),
    ],
)
def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path, monkeypatch, exists, words):
    (tmp_path / "file").touch()
    monkeypatch.setattr(Path, "exists", exists)  # nowhere: a drive that is not there
    with pytest.raises(InputError, match=rf"^-o out: {words}"):
        check_can_write("-o out", tmp_path / "file" / "out")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    check_can_write("-o out", Path("new/out"))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_fold_without_training_cases_leaves_the_others_usable(tmp_path):
    folds = [{"train": ["a"], "val": ["b"]}, {"train": [], "val": ["a", "b"]}]
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps(folds))
    assert read_splits(path) == folds


def test_an_error_of_words_alone_keeps_them(tmp_path):
    with pytest.raises(OSError, match=r"^no room$"), atomic_file(tmp_path / "a"):
        raise OSError("no room")  # naming a file would take its words away
