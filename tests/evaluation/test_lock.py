"""Two processes at once on one folder of an evaluation."""

import multiprocessing
import os
import signal

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.cli.main import main
from nnunet_dml.evaluation import lock, run
from nnunet_dml.evaluation.lock import LOCK, only_writer
from tests.evaluation.evaluation_world import MODEL


def _hold(folder, pipe):
    with only_writer(folder):
        pipe.send("held")
        pipe.recv()


@pytest.fixture
def other(tmp_path):
    """Another process that writes into `tmp_path/out`."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path / "out", there))
    process.start()
    assert here.recv() == "held"
    yield process
    here.send("end")
    process.join()


def test_the_second_is_refused(other, tmp_path):
    out = tmp_path / "out"
    with (
        pytest.raises(
            InputError, match=r"-o .*out: expected no other process that writes there, found one\. Wait"
        ),
        only_writer(out),
    ):
        pass
    assert [it.name for it in out.iterdir()] == [LOCK]


def test_a_killed_process_holds_nothing(other, tmp_path):
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    out = tmp_path / "out"
    assert (out / LOCK).is_file()
    with only_writer(out):
        assert (out / LOCK).is_file()
    assert list(out.iterdir()) == []  # the folder is not of this process's making


def test_the_file_and_an_empty_folder_are_removed(tmp_path):
    out = tmp_path / "new" / "out"
    with only_writer(out):
        assert [it.name for it in out.iterdir()] == [LOCK]
    assert list(tmp_path.iterdir()) == []
    with only_writer(out):
        (out / "summary.json").touch()
    assert [it.name for it in out.iterdir()] == ["summary.json"]


def test_a_lock_that_is_removed_while_it_is_taken_is_taken_anew(tmp_path, monkeypatch):
    original, taken = lock._lock, []

    def slow(file):
        taken.append(file)
        if len(taken) == 1:
            (tmp_path / LOCK).unlink()  # by its last holder
        original(file)

    monkeypatch.setattr(lock, "_lock", slow)
    with only_writer(tmp_path), pytest.raises(InputError), only_writer(tmp_path):
        pass
    assert len(taken) == 3


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def no_locks(file, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with only_writer(tmp_path):
        pass


def test_an_evaluation_is_alone_from_its_first_record_to_its_summary(eval_world, monkeypatch, capsys):
    command = ["evaluate", "-d", "7", "--model", MODEL, "-o", str(eval_world.out), "-np", "1", "-f"]
    original, said = run.evaluate_case, []

    def meanwhile(*args, **options):
        said.append((main([*command, "1"]), capsys.readouterr().err))
        return original(*args, **options)

    monkeypatch.setattr(run, "evaluate_case", meanwhile)
    assert main([*command, "0"]) == 0
    line = (
        f"nnunet-dml evaluate: -o {eval_world.out}: expected no other process that writes there, found one. "
    )
    assert said == [(2, f"{line}Wait until it has ended, or give another -o.\n")] * 2
    assert eval_world.summary()["cases"] == 2
    assert sorted(it.name for it in eval_world.out.rglob("*.*")) == [
        "a.json", "b.json", "cases.csv", "summary.json",
    ]  # fmt: skip
