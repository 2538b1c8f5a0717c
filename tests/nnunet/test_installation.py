"""The doctor's checks of the environment and of what is installed."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest

from nnunet_dml._folders import PLUGIN
from nnunet_dml.nnunet import installation
from nnunet_dml.nnunet.installation import TRAINERS

pytestmark = pytest.mark.filterwarnings("ignore")  # importing every trainer of nnU-Net warns


@pytest.fixture
def places(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv(TRAINERS, str(PLUGIN))
    return tmp_path


def rows(findings):
    return {it.about: (it.level, it.text) for it in findings}


def test_three_folders(places):
    assert {level for level, _ in rows(installation.check_folders()).values()} == {"ok"}


def test_folders_that_are_unset_or_something_else(places, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    (places / "preprocessed").rmdir()
    (places / "preprocessed").touch()
    (places / "results").rmdir()
    (places / "results").symlink_to(places / "nowhere")
    found = rows(installation.check_folders())
    level, text = found["nnUNet_raw"]
    assert level == "wrong"
    assert text.endswith("found it unset. Run `export nnUNet_raw=FOLDER`.")
    for name in ("preprocessed", "results"):
        level, text = found[f"nnUNet_{name}"]
        assert level == "wrong"
        assert f"found something else at {places / name}" in text


def test_folders_that_are_not_made_yet_are_no_fault(places, monkeypatch):
    for name in ("raw", "preprocessed"):
        (places / name).rmdir()
    monkeypatch.setenv("nnUNet_results", str(places / "my models" / "of today"))
    found = rows(installation.check_folders())
    made = "`nnunet-dml convert` makes it"
    assert found["nnUNet_raw"] == (
        "note",
        f"{places / 'raw'}: not made yet; {made}, or `mkdir -p {places / 'raw'}`.",
    )
    assert found["nnUNet_preprocessed"][0] == "note"
    level, text = found["nnUNet_results"]
    assert level == "note"
    assert text.endswith(f"training makes it, or `mkdir -p '{places / 'my models' / 'of today'}'`.")
    monkeypatch.setattr(os, "access", lambda path, mode: path != places)  # nowhere to make them
    found = rows(installation.check_folders())
    assert [level for level, _ in found.values()] == ["wrong"] * 3
    assert f"found no permission at {places}." in found["nnUNet_raw"][1]


def test_folders_that_cannot_be_written(places, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = rows(installation.check_folders())
    assert [found[f"nnUNet_{name}"][0] for name in ("raw", "preprocessed", "results")] == [
        "note",
        "wrong",
        "wrong",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "level", "words"),
    [
        ("nnUNet_n_proc_DA", None, "ok", "unset"),
        ("nnUNet_n_proc_DA", "0", "note", "`unset nnUNet_n_proc_DA` before them."),
        ("nnUNet_n_proc_DA", "3", "ok", "3 for augmentation in training"),
        ("nnUNet_n_proc_DA", "many", "wrong", "found 'many'"),
        ("nnUNet_n_proc_DA", "-1", "wrong", "at least 0"),
        ("nnUNet_def_n_proc", "0", "wrong", "at least 1"),
        ("nnUNet_def_n_proc", None, "ok", "unset"),
        (
            "nnUNet_def_n_proc",
            "100000",
            "note",
            "more than the 16 CPUs here. Run `export nnUNet_def_n_proc=16`.",
        ),
        ("nnUNet_def_n_proc", "", "wrong", "found ''"),
    ],
)
def test_numbers_of_processes(places, monkeypatch, variable, value, level, words):
    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(installation, "usable_cpus", lambda: 16)
    if value is not None:
        monkeypatch.setenv(variable, value)
    found, text = rows(installation.check_processes())[variable]
    assert found == level
    assert words in text


@pytest.mark.parametrize(
    ("machine", "usable", "preprocessing", "training"),
    [
        (1, 1, "8 for preprocessing and prediction on 1 CPU here. Run `export nnUNet_def_n_proc=1`.", "(3 processes"),
        (2, 2, "Run `export nnUNet_def_n_proc=2`.", "Put `nnUNet_n_proc_DA=0` in front of nnUNetv2_train only"),
        (4, 4, "Run `export nnUNet_def_n_proc=4`.", ""),
        (5, 5, "", ""),
        (64, 4, "Run `export nnUNet_def_n_proc=4`.", "Run `export nnUNet_n_proc_DA=4`."),
        (64, 16, "", ""),
    ],
)  # fmt: skip
def test_defaults_that_are_too_many_for_few_cpus(monkeypatch, machine, usable, preprocessing, training):
    """nnU-Net counts the machine's CPUs, of which a cluster may give a few only."""
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    monkeypatch.setattr(installation, "usable_cpus", lambda: usable)
    for variable, words in (("nnUNet_def_n_proc", preprocessing), ("nnUNet_n_proc_DA", training)):
        monkeypatch.delenv(variable, raising=False)
        level, text = rows(installation.check_processes())[variable]
        assert level == ("note" if words else "ok")
        assert words in text


def test_the_cpus_of_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6}, raising=False)
    assert installation.usable_cpus() == 3


def test_a_number_that_nnunet_cannot_be_imported_with(places, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "many")
    findings, importable = installation.examine()
    assert not importable
    assert TRAINERS not in rows(findings)


def test_all_is_well(places):
    findings, importable = installation.examine()
    assert importable
    assert [it for it in findings if it.level == "wrong"] == []
    assert rows(findings)["device"][0] == "ok"


def test_versions_against_the_metadata(monkeypatch):
    versions = {"nnunetv2": "2.5.1", "torch": "2.4.0+cu121", "blosc2": "3.0.0b4"}

    def version(name):
        if name == "SimpleITK":
            raise metadata.PackageNotFoundError(name)
        return versions.get(name, "1.0")

    required = ["nnunetv2<3,>=2.8", "torch>=2.3", "blosc2>=3.0.0b1", "batchgenerators>=9; extra == 'test'"]
    monkeypatch.setattr(metadata, "requires", lambda name: required)
    monkeypatch.setattr(metadata, "metadata", lambda name: {"Requires-Python": ">=3.10"})
    monkeypatch.setattr(metadata, "version", version)
    found = rows(installation.check_versions())
    assert found["nnunetv2"] == (
        "wrong",
        "expected <3,>=2.8, found 2.5.1. Run `pip install 'nnunetv2<3,>=2.8'`.",
    )
    assert found["torch"] == ("ok", "2.4.0+cu121 (supported: >=2.3)")
    assert found["blosc2"][0] == "ok"
    assert found["batchgenerators"] == ("ok", "1.0")
    assert found["SimpleITK"] == ("wrong", "not installed. Run `pip install SimpleITK`.")
    assert found["python"][0] == "ok"


def test_a_checkout_that_is_not_installed(monkeypatch):
    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", nothing)
    level, text = rows(installation.check_versions())["nnunet-dml"]
    assert level == "note"
    assert "run from its source folder" in text


def test_the_search_for_trainers(places, monkeypatch):
    own = places / "mine"
    own.mkdir()
    (own / "my_trainer.py").write_text("class nnUNetTrainerMine: ...\n")
    ((about, (level, _)),) = rows(installation.check_trainers()).items()
    assert (about, level) == (TRAINERS, "ok")
    monkeypatch.setenv(TRAINERS, os.pathsep.join([str(own), str(PLUGIN)]))
    assert rows(installation.check_trainers())[TRAINERS][0] == "ok"


def test_without_the_variable_only_stock_commands_lack_the_trainers(places, monkeypatch):
    monkeypatch.delenv(TRAINERS)
    level, text = rows(installation.check_trainers())[TRAINERS]
    assert level == "note"
    assert text.startswith("unset: nnunet-dml's own commands find its trainers")
    assert text.endswith('Before nnUNetv2_train or nnUNetv2_predict: run `eval "$(nnunet-dml env)"`.')
    monkeypatch.setenv(TRAINERS, str(places))  # the user's own trainers
    assert rows(installation.check_trainers())[TRAINERS][0] == "note"


def test_a_plug_in_without_its_trainers_is_a_fault(places, monkeypatch):
    (places / "plugin").mkdir()
    monkeypatch.setattr(installation, "PLUGIN", places / "plugin")
    monkeypatch.setenv(TRAINERS, str(places / "plugin"))
    level, text = rows(installation.check_trainers())[TRAINERS]
    assert level == "wrong"
    assert text.endswith("nnU-Net does not find any trainer of this package. Reinstall nnunet-dml.")


def test_folders_that_hide_the_trainers(places, monkeypatch):
    own = places / "mine"
    own.mkdir()
    monkeypatch.setenv(TRAINERS, os.pathsep.join([str(own), str(PLUGIN), str(places / "gone")]))
    (found, gone) = installation.check_trainers()
    assert found.level == "ok"
    assert (gone.level, gone.text) == (
        "note",
        f"no such folder: {places / 'gone'}. Take it out of the variable.",
    )
    (own / "theirs.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerDML(nnUNetTrainer): ...\n"
    )
    found, _ = installation.check_trainers()
    assert found.level == "wrong"
    assert "finds other trainers of the names nnUNetTrainerDML than this package's" in found.text
    (own / "theirs.py").write_text("import a_module_that_is_not_there\n")
    found, _ = installation.check_trainers()
    assert found.level == "wrong"
    assert (
        "cannot be imported (ModuleNotFoundError: No module named 'a_module_that_is_not_there')" in found.text
    )


def test_the_plug_in_is_where_the_command_env_says(monkeypatch):
    from nnunet_dml.cli.env import plugin_path

    monkeypatch.delenv(TRAINERS, raising=False)
    assert plugin_path() == str(PLUGIN)
    assert Path(PLUGIN, "nnunet_dml_trainers.py").is_file()
