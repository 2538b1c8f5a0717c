"""nnU-Net's folders, the data sets in them, the raters' files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml._folders import (
    all_rater_files,
    environment_folder,
    find_dataset,
    folder_if_there,
    listed_raters,
    rater_files,
)


@pytest.fixture
def root(tmp_path):
    for name in ("Dataset007_Heart", "Dataset501_Brain", "Dataset5010_Other"):
        (tmp_path / name).mkdir()
    (tmp_path / "Dataset501_notes.txt").write_text("")
    return tmp_path


@pytest.mark.parametrize("given", ["501", 501, "501_Brain", "Dataset501_Brain"])
def test_a_data_set_by_id_or_name(root, given):
    assert find_dataset(given, root) == root / "Dataset501_Brain"


def test_leading_zeros_do_not_matter(root):
    assert find_dataset("7", root) == find_dataset("007", root) == root / "Dataset007_Heart"


def test_no_such_data_set(root):
    there = "Dataset007_Heart, Dataset5010_Other, Dataset501_Brain"
    for given in ("8", "Brain", "Dataset501", "Dataset501_Brai"):
        with pytest.raises(InputError, match=rf"expected a data set {given}, found {there}\. Check the id"):
            find_dataset(given, root)


def test_two_data_sets_of_one_id(root):
    (root / "Dataset501_Twin").mkdir()
    with pytest.raises(
        InputError, match="one data set of id 501, found Dataset501_Brain and Dataset501_Twin"
    ):
        find_dataset("501", root)


def test_folder_of_a_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert environment_folder("nnUNet_raw") == folder_if_there("nnUNet_raw") == tmp_path
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "new"))
    assert environment_folder("nnUNet_raw", must_exist=False) == tmp_path / "new"
    assert folder_if_there("nnUNet_raw") is None
    with pytest.raises(InputError, match=r"nnUNet_raw: expected a folder, found no folder .*new\. Make it"):
        environment_folder("nnUNet_raw")
    for unset in (lambda: monkeypatch.setenv("nnUNet_raw", ""), lambda: monkeypatch.delenv("nnUNet_raw")):
        unset()
        assert folder_if_there("nnUNet_raw") is None
        with pytest.raises(InputError, match=r"found it unset\. Run `export nnUNet_raw=FOLDER`\."):
            environment_folder("nnUNet_raw", must_exist=False)


def test_files_of_raters_without_hidden_and_other_ones(tmp_path):
    folder = tmp_path / "ratersTr" / "a"
    folder.mkdir(parents=True)
    for name in ("r2.tif", "r1.tif", "._r1.tif", "r1.json"):
        (folder / name).write_text("")
    assert rater_files(tmp_path, "a", ".tif") == {"r1": folder / "r1.tif", "r2": folder / "r2.tif"}
    assert list(rater_files(tmp_path, "a", ".tif")) == ["r1", "r2"]
    assert rater_files(tmp_path, "b", ".tif") == {}


def test_lost_and_added_raters_are_noticed(tmp_path):
    dataset_json = {"nnunet_dml": {"cases": {"a": {"raters": ["r2", "r1"]}}}}
    listed = listed_raters(dataset_json)["a"]
    folder = tmp_path / "ratersTr" / "a"
    words = r"ratersTr/a: expected the raters r2, r1 that dataset.json lists for a, found {}\. Restore"
    with pytest.raises(InputError, match=words.format("none")):
        all_rater_files(tmp_path, "a", ".tif", listed)
    folder.mkdir(parents=True)
    for name, found in (("r1.tif", "r1"), ("r2.tif", None), ("r3.tif", "r1, r2, r3")):
        (folder / name).touch()
        if found is None:
            assert list(all_rater_files(tmp_path, "a", ".tif", listed)) == ["r1", "r2"]
        else:
            with pytest.raises(InputError, match=words.format(found)):
                all_rater_files(tmp_path, "a", ".tif", listed)


@pytest.mark.parametrize(
    "dataset_json",
    [{}, {"nnunet_dml": {}}, {"nnunet_dml": {"cases": []}}, {"nnunet_dml": {"cases": {"a": {"raters": 1}}}}],
)
def test_where_no_raters_are_listed_those_found_are_taken(tmp_path, dataset_json):
    listed = listed_raters(dataset_json).get("a")
    assert listed is None
    assert all_rater_files(tmp_path, "a", ".tif", listed) == {}


@pytest.mark.parametrize("block", [3, [1], None, {"format": 99}, {"format": True}, {"format": "1"}])
def test_a_block_of_another_kind_or_format_is_refused(block):
    words = r"^nnunet_dml in raw/dataset\.json: expected a block of format 1, found "
    with pytest.raises(InputError, match=words):
        listed_raters({"nnunet_dml": block}, Path("raw/dataset.json"))


def test_raters_that_are_no_names_are_refused():
    described = {"nnunet_dml": {"cases": {"a": {"raters": [1]}}}}
    words = r"^nnunet_dml\.cases\.a\.raters in raw/dataset\.json: expected names of raters, found \[1\]"
    with pytest.raises(InputError, match=words):
        listed_raters(described, Path("raw/dataset.json"))


def test_what_makes_a_data_set_is_said(root, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(root))
    with pytest.raises(InputError, match=r"variable\. In nnUNet_results it is made by the first training\.$"):
        find_dataset("8", root)
