from __future__ import annotations

import io
import json
import shutil
import sys

import pytest

from nnunet_dml.cli.doctor import lines
from nnunet_dml.cli.main import main
from nnunet_dml.nnunet import installation
from nnunet_dml.nnunet.findings import MOST_LINES, Finding, InputError, Report, Step, wrong
from tests.conftest import DATASET, nnunet_dml

HEALTHY = Report(
    [Finding("ok", "python", "3.11.7"), Finding("note", "nnUNet_n_proc_DA", "0")],
    [Finding("ok", "raters", "4 cases with 3 raters")],
    "nnUNetTrainerDML on 2d",
    [Step("stored", 0.125, 0.002), Step("target, 32 × 32", None, None, "note", "as asked")],
)
BROKEN = Report([Finding("wrong", "nnUNet_raw", "unset … Run `export`.")], (), "", ())


def test_the_table():
    assert lines(HEALTHY) == [
        "Installation",
        "  ✓ python            3.11.7",
        "  ! nnUNet_n_proc_DA  0",
        "",
        "Data set",
        "  ✓ raters  4 cases with 3 raters",
        "",
        "Fractional voxels on their way to the loss: nnUNetTrainerDML on 2d",
        "    step             fractional  greatest error",
        "  ✓ stored               12.50%          0.0020",
        "  ! target, 32 × 32                              as asked",
        "",
        "Nothing is wrong; 2 notes, marked !.",
    ]
    assert lines(BROKEN)[1:] == ["  ✗ nnUNet_raw  unset … Run `export`.", "", "1 problem, marked ✗."]
    assert (
        lines(Report([*BROKEN.installation, HEALTHY.installation[1]]))[-1]
        == "1 problem, marked ✗; 1 note, marked !."
    )
    assert lines(Report([]))[-1] == "Nothing is wrong."


def test_the_table_in_ascii():
    text = "\n".join([*lines(HEALTHY, plain=True), *lines(BROKEN, plain=True)])
    assert text.isascii()
    assert "  ok stored" in text
    assert "  !  target, 32 x 32" in text
    assert "  x  nnUNet_raw  unset ... Run" in text


def test_many_problems_of_one_kind_are_cut():
    found = wrong("masks", InputError(*map(str, range(MOST_LINES + 3))))
    assert [it.text for it in found] == [*map(str, range(MOST_LINES)), "… and 3 more problems of this kind."]


@pytest.fixture
def examined(monkeypatch):
    """Both halves of the examination replaced by what is set here; the arguments of the second are kept."""
    import nnunet_dml.nnunet.doctor as doctor

    state = {"report": HEALTHY, "importable": True, "asked": []}

    def examine(dataset, **options):
        print("No label manager specified in plans")  # nnU-Net's chatter
        state["asked"].append((dataset, options))
        return state["report"]

    monkeypatch.setattr(doctor, "examine", examine)
    monkeypatch.setattr(installation, "examine", lambda: (state["report"].installation, state["importable"]))
    return state


def test_status_and_arguments(examined, capsys):
    assert main(["doctor"]) == 0
    assert "Data set" not in capsys.readouterr().out
    assert examined["asked"] == []
    given = [
        "-d",
        "501",
        "-p",
        "P",
        "-c",
        "2d",
        "-tr",
        "T",
        "--cases",
        "2",
        "--patches",
        "3",
        "--quick",
        "-np",
        "1",
    ]
    assert main(["doctor", *given]) == 0
    assert capsys.readouterr().out.splitlines() == lines(HEALTHY)
    wanted = {"plans_name": "P", "configuration": "2d", "trainer_name": "T", "cases": 2, "patches": 3}
    assert examined["asked"] == [("501", {**wanted, "quick": True, "processes": 1})]
    examined["report"] = BROKEN
    assert main(["doctor", "-d", "501"]) == 2


@pytest.mark.filterwarnings("ignore")  # importing every trainer of nnU-Net warns
def test_folders_to_be_made_and_an_unset_search_leave_the_status_0(tmp_path, monkeypatch, capsys):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "✗" not in out
    assert out.count("not made yet") == 3
    assert "Nothing is wrong; " in out
    monkeypatch.delenv("nnUNet_raw")
    assert main(["doctor"]) == 2
    assert "1 problem, marked ✗; " in capsys.readouterr().out


def test_what_cannot_be_imported_is_not_examined(examined, capsys):
    examined |= {"report": BROKEN, "importable": False}
    assert main(["doctor", "-d", "501"]) == 2
    assert examined["asked"] == []


def test_json(examined, capsys):
    assert main(["doctor", "-d", "501", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == 0
    assert found["steps"][0] == {
        "name": "stored",
        "share": 0.125,
        "error": 0.002,
        "level": "ok",
        "remark": "",
    }
    assert found["installation"][1] == {"level": "note", "about": "nnUNet_n_proc_DA", "text": "0"}


def test_a_terminal_without_marks(examined, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    examined["report"] = Report([Finding("ok", "nnUNet_raw", "/data/Größe")])
    assert main(["doctor"]) == 0
    sys.stdout.flush()
    assert b"  ok nnUNet_raw  /data/Gr??e" in raw.getvalue()


@pytest.mark.parametrize("option", ["--cases", "--patches", "-np"])
def test_numbers_below_one_are_refused(option, capsys):
    assert main(["doctor", option, "0"]) == 2
    what = "1 process" if option == "-np" else "1"
    assert capsys.readouterr().err == f"nnunet-dml doctor: {option}: expected at least {what}, found 0.\n"


@pytest.mark.slow
def test_a_phantom_from_its_masks_to_the_loss(phantom, tmp_path, monkeypatch):
    """What nnU-Net itself has planned and preprocessed, healthy and broken, by the command in worker processes."""
    out = nnunet_dml("doctor", "-d", "901", "-p", "tiny", "-np", "2").stdout
    assert "10 cases with 3 raters" in out
    assert "labels.source=weighted, preprocessed for 2d" in out
    assert "Nothing is wrong" in out

    shutil.copytree(phantom.preprocessed / DATASET, tmp_path / DATASET)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    (tmp_path / DATASET / "nnUNetPlans_2d_soft" / "weighted" / "case03.b2nd").unlink()
    before = sorted(tmp_path.rglob("*"))
    done = nnunet_dml("doctor", "-d", "901", "--json", "-np", "1", check=False, nnUNet_extTrainer="")
    assert done.returncode == 2
    found = json.loads(done.stdout)
    text = {
        level: [it["text"] for it in (*found["installation"], *found["dataset"]) if it["level"] == level]
        for level in ("note", "wrong")
    }
    assert any('run `eval "$(nnunet-dml env)"`.' in line for line in text["note"])
    assert any("found case03 (missing). Run `nnunet-dml preprocess" in line for line in text["wrong"])
    assert sorted(tmp_path.rglob("*")) == before  # it writes nothing
