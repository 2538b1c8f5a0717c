"""Options, variables, places and terminals that no command can use: status 2 and one line, or no matter."""

from __future__ import annotations

import io
import sys

import pytest

from nnunet_dml.cli.main import main
from tests.nnunet.convert_helpers import tree
from tests.robustness.worlds import CALIBRATED, COMMANDS

pytestmark = pytest.mark.filterwarnings("ignore")
NINES = "9" * 5000
HUGE = "9" * 40
EVALUATED_AS_DIGITS = ("²", NINES, "٧x")


def replaced(name: str, old: str, new: str) -> list[str]:
    return [new if it == old else it for it in COMMANDS[name].arguments]


def more(name: str, *words: str) -> list[str]:
    return [*COMMANDS[name].arguments, *words]


ROWS = [  # a world, a call, what the message names
    *(("raters", replaced("raters", "7", it), "data set") for it in EVALUATED_AS_DIGITS),
    ("compare", more("compare", "--seed", "-1"), "--seed"),
    ("report", more("report", "--seed", "-1"), "--seed"),
    ("compare", more("compare", "--resamples", "1000001"), "--resamples"),
    ("compare", more("compare", "--resamples", NINES), "--resamples"),
    ("teach", replaced("teach", "0", NINES), "-f"),
    ("teach", replaced("teach", "0", "²"), "-f"),
    ("teach", replaced("teach", "cpu", "mps"), "-device"),
    ("teach", more("teach", "--teacher-folds", "²"), "--teacher-folds"),
    ("teach", more("teach", "--teacher-folds", NINES), "--teacher-folds"),
    ("raters", replaced("raters", "none", NINES), "--pictures"),
    ("convert raters", more("convert raters", "--labels", f"a={NINES}"), "--labels"),
    ("configure", replaced("configure", "labels.source=uniform", "loss.reduction=" + "[" * 100_000), "--set"),
    ("configure", more("configure", "--bandwidth", "1"), "a teacher for teacher.bandwidth"),
    ("configure", more("configure", "--teacher-folds", "0"), "a teacher for teacher.folds"),
    ("configure", more("configure", "--batch-size", HUGE), "--batch-size"),
    *(("configure", replaced("configure", "labels.source=uniform", f"training.epochs={it}"), "--set") for it in (HUGE, "true")),
    ("convert raters", more("convert raters", "--channel-names", "M\nR"), "--channel-names"),
    *(("configure", more("configure", "--scale-features", it), "--scale-features") for it in ("1e300", "0.001", "17", "nan")),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda it: f"{it[0]}-{it[2]}")
def test_what_cannot_be_meant(row, called, capsys):
    name, arguments, named = row
    call = called(name)
    before = tree(call.root)
    capsys.readouterr()
    try:
        status = main(arguments)
    except SystemExit as error:  # argparse
        status = error.code
    said = capsys.readouterr()
    assert status == 2, said
    assert named in said.err.splitlines()[-1][:200]
    assert len(said.err) < 3000
    assert tree(call.root) == before


@pytest.mark.parametrize("value", ["²", NINES, "0", "-1", "many"])
def test_a_number_of_processes_that_is_none(value, called, monkeypatch):
    """The variable is nnU-Net's: what makes no sense there is as if it were unset."""
    monkeypatch.setenv("nnUNet_def_n_proc", value)
    call = called("compare")
    assert call() == 0


PLACES = [
    ("evaluate", "out/cases", "file"),
    ("evaluate", "out/unfinished", "file"),
    ("evaluate", "out/summary.json", "folder"),
    ("evaluate", "out/cases.csv", "folder"),
    ("evaluate", "out", "dangling"),
    ("preprocess", "preprocessed/Dataset501_Test/nnUNetPlans_2d_soft", "file"),
    ("preprocess", "preprocessed/Dataset501_Test/nnUNetPlans_2d_soft/weighted", "file"),
]


@pytest.mark.parametrize(("name", "place", "what"), PLACES)
def test_a_place_that_is_taken(name, place, what, called, capsys):
    """It is found out before the work."""
    call = called(name)
    path = call.root / place
    path.parent.mkdir(exist_ok=True)
    if what == "dangling":
        path.symlink_to("nowhere")
    else:
        path.write_text("mine") if what == "file" else path.mkdir()
    before = sorted(call.root.rglob("*"))
    capsys.readouterr()
    assert call() == 2
    said = [it for it in capsys.readouterr().err.splitlines() if "No label manager" not in it]
    assert len(said) == 1
    assert place in said[0]
    assert "expected a " in said[0]
    assert "Remove it" in said[0]
    assert sorted(call.root.rglob("*")) == before


def test_folds_without_a_checkpoint(called, capsys):
    """nnU-Net would only say that a file is not there."""
    call = called("predict")
    arguments = list(COMMANDS["predict"].arguments)
    arguments.insert(arguments.index("-f") + 2, "3")
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert f"{CALIBRATED}/fold_3/checkpoint_final.pth: expected a checkpoint, found no file. " in said
    assert not list(call.root.glob(".out*"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_terminals_that_know_few_letters(encoding, called, monkeypatch):
    """A minus sign that cannot be printed is no error; neither is a file's name that is no text."""
    call = called("compare")
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(replaced("compare", "table.csv", "t\udce9.csv")) == 0
    out.seek(0)
    assert "Written: t?.csv" in out.read()
    assert (call.root / "t\udce9.csv").is_file()
