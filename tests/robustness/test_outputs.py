"""Outputs that would destroy what is read, and what can be known before the work: status 2, and all is as before."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nnunet_dml._files import atomic_file
from nnunet_dml.cli import main as command_line
from nnunet_dml.cli.main import main
from tests.nnunet.convert_helpers import tree
from tests.robustness.test_odd_calls import more, replaced
from tests.robustness.worlds import COMMANDS

pytestmark = pytest.mark.filterwarnings("ignore")
TOY = "raw/Dataset007_Toy"
PRE = "preprocessed/Dataset501_Test"
WEIGHTS = "results/Dataset907_Toy/nnUNetTrainerDML__toy__2d/fold_0/checkpoint_final.pth"
EVALUATIONS_FILES = ("first/summary.json", "first/../second/cases.csv", "first/cases/case001.json")
RAW = (("evaluate", "labelsTr"), ("raters", "ratersTr"), ("raters --folder", "ratersTr/a"))
NO_PLANS = ("dataset", "dataset_fingerprint", "splits_final", ".", "..")
TABLES = ("benchmark", "tables", "grid.yaml", "--quick", "-o")


def refused(call, arguments, capsys):
    """The one line that it says."""
    before = tree(call.root), sorted(call.root.rglob("*"))
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    said = [it for it in lines if it and "No label manager" not in it and "%|" not in it]
    assert len(said) == 1, said
    assert (tree(call.root), sorted(call.root.rglob("*"))) == before
    return said[0]


ROWS = [  # a world, a call, what the message names
    ("export", [*replaced("export", "model.zip", WEIGHTS), "--overwrite"], f"-o {WEIGHTS}: expected a file that ends in .zip"),
    *(("compare", replaced("compare", "table.csv", it), f"-o {it}: expected another place") for it in EVALUATIONS_FILES),
    *(("report", more("report", it, "second/summary.json"), f"{it} second") for it in ("--latex", "--markdown")),
    ("report", replaced("report", "figures", "first/cases"), "--figures first/cases"),
    *((name, replaced(name, "out", f"{TOY}/{it}"), f"-o {TOY}/{it}: expected another place") for name, it in RAW),
    *(("configure", [*replaced("configure", "changed", it), "--overwrite"], f"-o {it}: ") for it in NO_PLANS),
    # found out before the work
    ("report", replaced("report", "figures", "report.html"), "report.html: expected another file than -o"),
    *(("benchmark tables", [*TABLES, it], f"-o {it}: expected a folder") for it in ("grid.yaml", "/dev/null/x")),
    *(("predict", more("predict", "-nps", it), "-nps: expected at least 1 process") for it in ("0", "many")),
    *((it, replaced(it, "cpu", "mps"), "-device: expected a GPU (mps), found none that torch") for it in ("predict", "teach")),
    ("predict", replaced("predict", "cpu", "gpu"), "-device: expected cuda, cpu or mps, found gpu"),
    *((name, more(name, "-np", "0"), "-np: expected at least 1 process") for name in ("preprocess", "calibrate apply")),
    # names
    *(("configure", replaced("configure", "changed", it), rf"-o a{it[1:]!r}: ".replace("'", "")) for it in ("a\nb", "a\x1bb")),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda it: f"{it[0]}-{it[2]}")
def test_refused(row, called, capsys):
    name, arguments, named = row
    assert named in refused(called(name), arguments, capsys)


@pytest.mark.parametrize(
    ("name", "old"),
    [("compare", "table.csv"), ("configure", "changed"), ("export", "model.zip"), ("calibrate apply", "out")],
)
def test_a_long_name(name, old, called, capsys):
    said = refused(called(name), replaced(name, old, "x" * 300 + old), capsys)
    assert said.endswith(f"{'x' * 300}{old}: File name too long. Give a shorter name.") or (
        name == "configure" and said.endswith("File name too long. Give a shorter name.")
    )


@pytest.mark.parametrize("content", ["{}", "[]", "folder"])
def test_only_plans_are_replaced_by_plans(content, called, capsys):
    call = called("configure")
    path = call.root / PRE / "changed.json"
    path.mkdir() if content == "folder" else path.write_text(content)
    said = refused(call, more("configure", "--overwrite"), capsys)
    assert f"{path}: " in said
    assert said.endswith(("Move it away or give another -o.", "Remove it or move it away."))


def test_damaged_plans_may_be_replaced(called):
    """As `preprocess` says to do."""
    call = called("configure")
    (call.root / PRE / "changed.json").write_text('{"configurations": {')
    assert main(more("configure", "--overwrite")) == 0


@pytest.fixture
def few_figures(monkeypatch):
    """Drawing takes seconds."""
    monkeypatch.setattr("nnunet_dml.report.html.render", lambda report: "report")
    monkeypatch.setattr("nnunet_dml.report.pictures.write_pictures", lambda pictures, folder: [])
    monkeypatch.setattr(
        "nnunet_dml.report.theme.write_files", lambda figure, folder, name: (folder / f"{name}.svg").touch()
    )


@pytest.mark.usefixtures("few_figures")
def test_outputs_beside_what_is_read(called):
    call = called("report")
    (call.root / "figures").mkdir()
    (call.root / "figures/mine.txt").write_text("mine")
    more_files = ("--figures", "figures", "--markdown", "first/tables.md", "--latex", "second/tables.tex")
    arguments = ["report", "first", "second", "-o", "first/report.html", "--resamples", "20", *more_files]
    for _ in range(2):
        assert main(arguments) == 0
        assert main(["compare", "first", "second", "-o", "first/compared.csv", "--resamples", "20"]) == 0
    assert (call.root / "figures/mine.txt").read_text() == "mine"
    assert list((call.root / "figures").glob("*.svg"))
    assert not list(call.root.rglob(".tmp-*"))


@pytest.mark.usefixtures("few_figures")
def test_a_disk_that_is_full_after_some_figures(called, capsys, monkeypatch):
    def full(pictures, folder):
        with atomic_file(folder / "case.png"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("nnunet_dml.report.pictures.write_pictures", full)
    call = called("report")
    said = refused(call, list(COMMANDS["report"].arguments), capsys)
    todo = "Make room, or write elsewhere."
    assert said == f"nnunet-dml report: figures/case.png: No space left on device. {todo}"


def test_nnunet_predicts_one_after_the_other_where_it_is_asked_to(called, capsys):
    """`-npp 0 -nps 0` is nnU-Net's own way to say so, with -d alone."""
    call = called("predict")
    given = replaced("predict", "1", "0")
    assert "-nps: expected at least 1 process" in refused(call, [*given, "-npp", "0"], capsys)
    _, dataset, model = Path(given[given.index("-m") + 1]).parts
    trainer, plans, configuration = model.split("__")
    place = given.index("-m")
    named = ["-d", dataset, "-tr", trainer, "-p", plans, "-c", configuration]
    from nnunet_dml.nnunet import stock_commands

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock_commands, "results_folder", lambda *_: call.root / "results" / dataset / model)
        arguments = [*given[:place], *named, *given[place + 2 :]]
        assert main([*arguments, "-npp", "0"]) == 0
        patch.setenv("nnUNet_npp", "0")
        assert main([*arguments, "--continue_prediction"]) == 0


def test_variables_for_the_number_of_processes_are_read_as_nnunet_does(monkeypatch):
    """Nothing and nonsense are 3, and with -m they are not looked at."""
    from nnunet_dml._checks import InputError
    from nnunet_dml.cli.predict import _processes

    for text, expected in (("", 3), ("abc", 3), ("2", 2), ("0", None)):
        monkeypatch.setenv("nnUNet_nps", text)
        assert _processes({"-m": "model"}) == 3
        if expected is not None:
            assert _processes({"-d": "501"}) == expected
            continue
        with pytest.raises(InputError, match=r"nnUNet_nps: expected at least 1 process .* found 0"):
            _processes({"-d": "501"})
    monkeypatch.setenv("nnUNet_npp", "0")
    assert _processes({"-d": "501"}) == 1


def test_a_negative_label_is_that_of_a_file(called, capsys):
    import SimpleITK as sitk

    call = called("raters --folder")
    path = next((call.root / TOY / "ratersTr").glob("a/*"))
    image = sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkInt16) - 3
    sitk.WriteImage(image, str(path))
    said = refused(call, list(call.command.arguments), capsys)
    assert f"{path.relative_to(call.root)}: expected labels of at least 0, found -3." in said


def test_a_working_folder_that_is_gone(called, capsys, monkeypatch):
    """The system does not name it."""
    call = called("compare")
    gone = call.root / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    capsys.readouterr()
    folders = [str(call.root / it) for it in ("first", "second")]
    assert main(["compare", *folders, "--baseline", "first"]) == 2
    said = capsys.readouterr().err
    assert (
        said
        == "nnunet-dml compare: working folder: No such file or directory. Change to one that is there.\n"
    )


def test_no_place_for_temporary_files_is_no_matter_of_the_working_folder(called, capsys, monkeypatch):
    def nowhere(*_args, **_kwargs):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/nowhere']")

    call = called("compare")
    monkeypatch.setattr("nnunet_dml.cli.compare.run", nowhere)
    said = refused(call, list(call.command.arguments), capsys)
    assert said == "nnunet-dml compare: No usable temporary directory found in ['/nowhere']"


def test_a_file_of_predictions_is_called_a_file(called, capsys):
    said = refused(
        called("calibrate apply"), replaced("calibrate apply", "predicted", "predicted/a.npz"), capsys
    )
    assert "predicted/a.npz: expected a folder of predictions, found a file." in said


def test_no_empty_folders_of_maps_stay(called, capsys):
    call = called("preprocess")
    (call.root / PRE / "nnUNetPlans_2d/a.pkl").write_bytes(b"")
    assert "nnUNetPlans_2d/a" in refused(call, list(call.command.arguments), capsys)


def test_every_word_of_the_system_has_something_to_do():
    assert all(it.endswith(".") for it in command_line.WHAT_TO_DO.values())
    assert {errno.ENOSPC, errno.ENAMETOOLONG, errno.EISDIR} <= command_line.WHAT_TO_DO.keys()
