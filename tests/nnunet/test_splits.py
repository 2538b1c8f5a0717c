"""Folds by group."""

from __future__ import annotations

import json

import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.cli.main import main
from nnunet_dml.nnunet.splits import split_by_group

CASES = [f"patient{p:02d}_{i}" for p in range(11) for i in range(1 + p % 3)]
PATTERN = "(patient[0-9]+)_.*"


def patients(cases):
    return {it.split("_")[0] for it in cases}


def test_no_group_is_on_both_sides_and_every_case_is_validated_once():
    folds = split_by_group(CASES, PATTERN)
    assert len(folds) == 5
    for fold in folds:
        assert not patients(fold["train"]) & patients(fold["val"])
        assert sorted([*fold["train"], *fold["val"]]) == sorted(CASES)
    assert sorted(it for fold in folds for it in fold["val"]) == sorted(CASES)


def test_the_order_of_the_cases_does_not_matter():
    assert split_by_group(CASES[::-1], PATTERN) == split_by_group(CASES, PATTERN)


@pytest.mark.parametrize(
    ("pattern", "folds", "message"),
    [
        ("(patient", 5, "expected a regular expression"),
        ("patient.*", 5, "expected one pair of parentheses, around the group's name, found 0"),
        ("(p)(.*)", 5, "found 2"),
        ("(case.*)_.*", 5, "no match of patient00_0"),
        (PATTERN, 12, "--folds: expected 2 folds or more, and as many groups (11"),
        (PATTERN, 1, "found 1"),
    ],
)
def test_bad_patterns_are_refused(pattern, folds, message):
    with pytest.raises(InputError) as caught:
        split_by_group(CASES, pattern, folds=folds)
    assert message in str(caught.value)


@pytest.fixture
def raw(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    folder = tmp_path / "raw" / "Dataset904_Grouped"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
        for case in CASES:
            (folder / name / (f"{case}_0000.png" if name == "imagesTr" else f"{case}.png")).touch()
    (folder / "dataset.json").write_text(json.dumps({"file_ending": ".png", "channel_names": {"0": "x"}}))
    return tmp_path


def test_the_command_writes_and_does_not_replace_other_folds(raw, capsys):
    path = raw / "preprocessed" / "Dataset904_Grouped" / "splits_final.json"
    assert main(["split", "-d", "904", "--groups", PATTERN]) == 0
    assert json.loads(path.read_text()) == split_by_group(CASES, PATTERN)
    assert "fold 4: " in capsys.readouterr().out
    assert main(["split", "-d", "904", "--groups", PATTERN]) == 0
    assert main(["split", "-d", "904", "--groups", PATTERN, "--folds", "3"]) == 2
    assert "splits_final.json: expected no folds yet, found others." in capsys.readouterr().err
    assert main(["split", "-d", "904", "--groups", PATTERN, "--folds", "3", "--overwrite"]) == 0
    assert len(json.loads(path.read_text())) == 3
