"""What is measured again, and what a run leaves behind."""

import json
import os

import numpy as np
import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.evaluation import run
from nnunet_dml.evaluation.folder import read_evaluation
from nnunet_dml.evaluation.records import read_records


@pytest.fixture
def measured(monkeypatch):
    """The cases that are measured, one after another."""
    names = []
    original = run.evaluate_case

    def noted(prediction, *args, **options):
        names.append(prediction.case)
        return original(prediction, *args, **options)

    monkeypatch.setattr(run, "evaluate_case", noted)
    return names


def later(path):
    """Give a file another time, as writing it anew does."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def test_only_what_changed_is_measured_again(eval_world, measured):
    def again(*more):
        measured.clear()
        eval_world.run(*more)
        return list(measured)

    assert again() == ["a", "b", "c", "d"]
    first = eval_world.rows()
    assert again() == []
    assert eval_world.rows() == first
    eval_world.write_npz("b", 0, eval_world.probs["c"])
    later(eval_world.npz("b", 0))
    assert again() == ["b"]
    assert [row["case"] for row, old in zip(eval_world.rows(), first, strict=True) if row != old] == ["b"] * 3
    later(eval_world.rater("c", 1))
    later(eval_world.label("d"))
    assert again() == ["c", "d"]
    assert again("--overwrite") == ["a", "b", "c", "d"]
    assert again("--bins", "5") == ["a", "b", "c", "d"]
    assert again("--bins", "5", "--tolerance", "3") == []  # no surfaces were asked for
    eval_world.rater("a", 2).unlink()
    assert again("--bins", "5") == ["a"]
    eval_world.save(labels={"background": 0, "rim": 1, "core": 2})
    assert again("--bins", "5") == ["a", "b", "c", "d"]


def test_a_damaged_record_is_made_anew(eval_world, measured):
    eval_world.run()
    measured.clear()
    path = eval_world.out / "cases" / "c.json"
    whole = json.loads(path.read_text())
    path.write_text("{")
    eval_world.run()
    assert measured == ["c"]
    assert json.loads(path.read_text()) == whole


def test_records_of_cases_that_are_gone_are_removed(eval_world):
    eval_world.run()
    eval_world.npz("b", 0).unlink()
    eval_world.run()
    assert [it.case for it in read_records(eval_world.out)] == ["a", "c", "d"]
    assert {row["case"] for row in eval_world.rows()} == {"a", "c", "d"}


def test_files_of_others_are_neither_removed_nor_written_over(eval_world, measured):
    mine = eval_world.out / "cases" / "mine.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    with pytest.raises(
        InputError, match=r"mine\.json: expected the record of a case, found .* or give another -o"
    ):
        eval_world.run()
    mine.rename(mine.with_name("a.json"))  # as a case is called
    with pytest.raises(InputError, match=r"a\.json: expected the record of a case"):
        eval_world.run()
    assert measured == []
    assert [it.read_text() for it in eval_world.out.rglob("*.json")] == ["{}"]
    (mine.parent / "a.json").unlink()
    eval_world.run()
    (mine.parent / "b.json").unlink()
    mine.write_text("{}")
    with pytest.raises(InputError, match=r"mine\.json: expected the record of a case"):
        eval_world.run()


def test_a_case_that_moved_to_another_fold(eval_world, measured):
    eval_world.run()
    measured.clear()
    eval_world.npz("b", 0).rename(eval_world.npz("b", 1))
    eval_world.run()
    assert measured == ["b"]
    assert [it.fold for it in read_records(eval_world.out)] == ["0", "1", "1", "1"]


def kill(world, monkeypatch, last, *more):
    """A run that is killed before the last case is measured."""
    original = run.evaluate_case

    def killed(prediction, *args, **options):
        if prediction.case == last:
            raise KeyboardInterrupt
        return original(prediction, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(run, "evaluate_case", killed)
        with pytest.raises(KeyboardInterrupt):
            world.run(*more)


def test_a_killed_run_goes_on_where_it_was(eval_world, measured, monkeypatch):
    kill(eval_world, monkeypatch, "c")
    assert [it.name for it in eval_world.out.iterdir()] == ["unfinished"]
    measured.clear()
    eval_world.run()
    assert measured == ["c", "d"]
    assert sorted(it.name for it in eval_world.out.iterdir()) == ["cases", "cases.csv", "summary.json"]
    assert len(read_records(eval_world.out)) == 4


def test_of_a_killed_run_only_the_cases_that_are_evaluated_are_taken_over(eval_world, measured, monkeypatch):
    kill(eval_world, monkeypatch, "d")
    measured.clear()
    eval_world.run("-f", "0")
    assert measured == []
    assert [it.case for it in read_evaluation(eval_world.out).records] == ["a", "b"]
    assert [it.name for it in (eval_world.out / run.UNFINISHED).rglob("*.json")] == ["c.json"]
    eval_world.npz("c", 1).unlink()
    eval_world.run()
    assert measured == ["d"]
    assert [it.case for it in read_evaluation(eval_world.out).records] == ["a", "b", "d"]
    assert not (eval_world.out / run.UNFINISHED).exists()


def test_what_a_killed_run_measured_otherwise_replaces_nothing(eval_world, measured, monkeypatch):
    eval_world.run()
    records = {it: it.read_bytes() for it in (eval_world.out / "cases").iterdir()}
    for more in (("-f", "0", "1"), ()):
        kill(eval_world, monkeypatch, "c", "--bins", "5")
        measured.clear()
        eval_world.run(*more)
        assert measured == []
        assert {it: it.read_bytes() for it in (eval_world.out / "cases").iterdir()} == records
        assert not (eval_world.out / run.UNFINISHED).exists()


def test_an_older_result_stays_whole_when_a_case_is_bad(eval_world, measured):
    eval_world.run()
    results = {it: it.read_bytes() for it in eval_world.out.rglob("*") if it.is_file()}
    eval_world.npz("a", 0).write_bytes(b"")
    eval_world.write_npz("b", 0, eval_world.probs["c"])
    later(eval_world.npz("b", 0))
    with pytest.raises(InputError, match="an empty file"):
        eval_world.run()
    unfinished = eval_world.out / run.UNFINISHED
    left = {it: it.read_bytes() for it in eval_world.out.rglob("*") if it.is_file()}
    assert {it: left[it] for it in left if unfinished not in it.parents} == results
    assert [it.name for it in unfinished.rglob("*.json")] == ["b.json"]
    eval_world.write_npz("a", 0, eval_world.probs["b"])
    measured.clear()
    eval_world.run()
    assert measured == ["a"]
    assert not unfinished.exists()
    assert (eval_world.out / "summary.json").read_bytes() != results[eval_world.out / "summary.json"]


def test_a_record_says_where_everything_came_from(eval_world):
    eval_world.write(eval_world.raw / "imagesTr" / "a_0000.nii.gz", np.zeros((6, 7), np.uint8))
    eval_world.run()
    record = read_records(eval_world.out)[0]
    assert record.sources.prediction == str(eval_world.npz("a", 0).resolve())
    assert record.sources.reference == str(eval_world.label("a").resolve())
    assert list(record.sources.raters) == ["rater0", "rater1", "rater2"]
    assert [path.rsplit("/", 1)[1] for path in record.sources.images] == ["a_0000.nii.gz"]
    assert record.spacing == [1, 1, 1]
    assert record.flags["soft_reference"] == "raters"
    assert set(record.flags["rater_dice"]) == set(record.sources.raters)
