"""`nnunet-dml report`."""

import json

import pytest

from nnunet_dml.cli.main import main
from tests.report.evaluation_world import write_evaluation


@pytest.fixture
def folders(tmp_path):
    """Two evaluations, one of other cases, one of another data set, a damaged one."""
    made = {name: write_evaluation(tmp_path / name, cases=3) for name in ("a", "b", "damaged")}
    made["other"] = write_evaluation(tmp_path / "other", names=["case000", "case001", "x"])
    made["dataset"] = write_evaluation(tmp_path / "dataset", cases=3, dataset="Dataset902_Other")
    (made["damaged"] / "cases" / "case001.json").write_text('{"case": ')
    return {**{key: str(it) for key, it in made.items()}, "tmp": str(tmp_path)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere", "-o", "{tmp}/r.html"], "expected a folder of an evaluation, found none"),
        (["{tmp}", "-o", "{tmp}/r.html"], "summary.json: expected a file, found none"),
        (["{damaged}", "-o", "{tmp}/r.html"], "case001.json: expected JSON"),
        (["{a}", "-o", "{tmp}/gone/r.html"], "gone, found none. Make it"),
        (["{a}", "-o", "{tmp}/r.pdf"], "expected a file that ends in .html or .htm, found .pdf"),
        (["{a}", "-o", "{tmp}/r.html", "--markdown", "{tmp}"], "expected a file, found a folder"),
        (
            ["{a}", "-o", "{tmp}/r.html", "--latex", "{tmp}/b/../r.html"],
            "expected another file than -o, found the same",
        ),
        (["{a}", "-o", "{tmp}/r.html", "--figures", "{a}/summary.json"], "expected a folder, found a file"),
        (
            ["{a}", "{b}", "-o", "{tmp}/r.html", "--calibrated", "{b}"],
            "as many as there are evaluations, 2, found 1",
        ),
        (["{a}", "-o", "{tmp}/r.html", "--calibrated", "{a}"], "expected an evaluation after calibration"),
        (["{a}", "-o", "{tmp}/r.html", "--calibrated", "{other}"], "only one of both has case002, x"),
        (
            ["{a}", "-o", "{tmp}/r.html", "--calibrated", "{dataset}"],
            "Dataset901_Phantom, found Dataset902_Other",
        ),
        (["{a}", "{a}", "-o", "{tmp}/r.html"], "found it twice"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(folders, tmp_path, capsys, arguments, message):
    assert main(["report", *(it.format(**folders) for it in arguments)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("r.*"))


def test_a_report_of_little(tmp_path, capsys):
    """One case, no sums, no files: what is not there is left out or said."""
    folder = write_evaluation(tmp_path / "a", cases=1, raters={}, options={}, empty={}, versions={})
    record = folder / "cases" / "case000.json"

    content = json.loads(record.read_text())
    content["sums"], content["overall"] = {}, {}
    content["per_class"]["lesion"] = {"dice": None}
    record.write_text(json.dumps(content))
    assert main(["report", str(folder), "-o", str(tmp_path / "r.html"), "--resamples", "10"]) == 0
    text = (tmp_path / "r.html").read_text()
    assert "No case has a Dice." in text
    assert "<svg" not in text
    assert capsys.readouterr().out.startswith("Written: ")
