"""40 times `kill -9` of a command's whole process group, at random moments: the next run ends with the same bytes.

32 of them hit convert, preprocess, evaluate and benchmark, four of these a command with two worker processes.
"""

from __future__ import annotations

import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.nnunet.convert_helpers import folders_source, tree
from tests.robustness.worlds import COMMANDS, copy_prepared
from tests.robustness.zygote import kill

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
KILLS = {
    "convert raters": 8,
    "convert raters -np 2": 4,
    "preprocess": 8,
    "evaluate": 8,
    "calibrate fit": 4,
    "calibrate apply --cross-fitted": 4,
    "benchmark run": 4,
}


def test_their_number():
    assert sum(KILLS.values()) == 40
    assert sum(n for name, n in KILLS.items() if not name.startswith("calibrate")) == 32


def larger(name: str, root: Path) -> None:
    """More work for the two commands whose worlds are smallest."""
    if name == "convert raters":
        folders_source(root / "src", shape=(4, 6, 5), cases="abcdefgh")
    if name == "preprocess":
        copy_prepared(root)
        shutil.rmtree(root / "preprocessed/Dataset501_Test/nnUNetPlans_2d_soft")


def restore(root: Path, before: dict[str, bytes], folders: set[Path]) -> None:
    """Remove what was made; inputs keep their times."""
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if path not in folders:
                path.rmdir()
        elif path.relative_to(root).as_posix() not in before:
            path.unlink()
    assert tree(root) == before


def results(root: Path) -> dict[str, bytes]:
    """All files but logs and locks."""
    return {
        name: content
        for name, content in tree(root).items()
        if not {"logs", "locks"} & set(Path(name).parts) and name != "calls.txt"
    }


@pytest.mark.parametrize("row", KILLS)
def test_killed(row, called, zygote, monkeypatch):
    monkeypatch.setenv("SLOW", "0.05")
    name, _, processes = row.partition(" -np ")
    call = called(name)
    larger(name, call.root)
    before, folders = tree(call.root), {it for it in call.root.rglob("*") if it.is_dir()}
    before.pop("calls.txt", None)
    arguments = [*COMMANDS[name].arguments, *(["-np", processes] if processes else [])]
    began = time.monotonic()
    ended = zygote.run(arguments, call.root)
    lasted = time.monotonic() - began
    assert ended.status == 0, ended.said
    expected = results(call.root)
    chance, kills = random.Random(row), 0
    for _ in range(10 * KILLS[row]):
        (call.root / "calls.txt").unlink(missing_ok=True)
        restore(call.root, before, folders)
        (call.root / "calls.txt").touch()
        pid = zygote.start(arguments, call.root)
        began = time.monotonic()
        time.sleep(chance.uniform(0, lasted))
        with suppress(ProcessLookupError):
            kill(pid)
        if zygote.wait(pid).status != -9:  # it was faster than the first time
            lasted = min(lasted, time.monotonic() - began)
            continue
        time.sleep(0.1)  # a training that outlives its runner ends
        if name == "convert raters" and results(call.root) == expected:
            continue  # it had done all and was about to end; it would refuse to write the data set again
        kills += 1
        ended = zygote.run(arguments, call.root)
        assert ended.status == 0, ended.said
        found = results(call.root)
        found.pop("calls.txt", None)
        assert found == expected
        assert not [it for it in call.root.rglob("*") if it.name.startswith((".tmp-", ".old-"))]
        if kills == KILLS[row]:
            break
    assert kills == KILLS[row]
