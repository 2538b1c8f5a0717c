"""`nnunet-dml compare`."""

import csv
import json

import pytest

from nnunet_dml.cli.main import main
from tests.report.evaluation_world import write_evaluation


@pytest.fixture
def folders(tmp_path):
    return [
        str(write_evaluation(tmp_path / name, quality=q)) for name, q in (("a", 0.8), ("b", 0.9), ("c", 0.7))
    ]


def test_a_table_of_all_against_the_first(folders, capsys):
    assert main(["compare", *folders, "--resamples", "50", "--metrics", "dice, ece"]) == 0
    out = capsys.readouterr().out
    assert "b against a" in out
    assert "c against a" in out
    assert "over 4 tests" in out
    assert "8 / 0 / 0" in out


def test_another_baseline_and_names(folders, capsys):
    options = ["--baseline", folders[2], "--names", "one", "two", "three", "--resamples", "50"]
    assert main(["compare", *folders, *options, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {(row["baseline"], row["model"]) for row in rows} == {("three", "one"), ("three", "two")}


def test_files_and_markdown(folders, capsys, tmp_path):
    options = ["--resamples", "50", "--metrics", "dice"]
    assert main(["compare", *folders, *options, "--markdown", "-o", str(tmp_path / "x.csv")]) == 0
    assert "| Measure |" in capsys.readouterr().out
    with (tmp_path / "x.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["model"] for row in rows] == ["b", "c"]
    assert float(rows[0]["difference"]) == pytest.approx(0.1, abs=0.02)
    assert main(["compare", *folders, *options, "-o", str(tmp_path / "x.json")]) == 0
    assert json.loads((tmp_path / "x.json").read_text())["resamples"] == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{a}"], "nnunet-dml compare: {a}: expected two evaluations or more, found one"),
        (["{a}", "{a}"], "found it twice"),
        (["{a}", "{tmp}"], "summary.json: expected a file, found none"),
        (["{a}", "{b}", "--baseline", "{tmp}"], "expected one of the evaluations given"),
        (["{a}", "{b}", "-o", "{tmp}/x.txt"], "expected a file that ends in .csv or .json, found .txt"),
        (["{a}", "{b}", "-o", "{tmp}/gone/x.csv"], "expected a folder"),
        (["{a}", "{b}", "--metrics", "dcie"], "--metrics: expected measures"),
        (["{a}", "{b}", "--names", "x"], "--names: expected 2 different names"),
    ],
)
def test_bad_input_is_one_line_and_status_2(folders, tmp_path, capsys, arguments, message):
    known = {"a": folders[0], "b": folders[1], "tmp": tmp_path}
    assert main(["compare", *(it.format(**known) for it in arguments)]) == 2
    err = capsys.readouterr().err
    assert message.format(**known) in err
    assert err.count("\n") == 1
