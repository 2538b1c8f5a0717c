"""`nnunet-dml evaluate` of a model whose folds are not all there: what it says of those."""

import json

import pytest

from nnunet_dml._checks import InputError


@pytest.fixture
def five_folds(eval_world, monkeypatch):
    """Splits of five folds, of which the model has two; eight labelled cases. Where its other folds would lie."""
    folder = eval_world.root / "preprocessed" / "Dataset007_Toy"
    folder.mkdir(parents=True)
    splits = [{"train": ["other"], "val": val} for val in (["a", "b"], ["c", "d", "e"], ["f"], ["g"], ["h"])]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    for case in "efgh":
        eval_world.write(eval_world.label(case), eval_world.consensus["a"])
    return [eval_world.model / f"fold_{k}" for k in (2, 3, 4)]


def test_folds_that_are_missing_are_noted(eval_world, five_folds, capsys):
    eval_world.run()
    printed = capsys.readouterr().out
    said = "folds 2, 3, 4 are not trained; 4 of 8 labelled cases have no prediction: e, f, g, h"
    assert f"Note: {said}." in printed
    assert "Note: fold_1 lacks 1 of its validation cases: e." in printed
    assert eval_world.summary()["notes"] == ["fold_1 lacks 1 of its validation cases: e", said]


def test_why_folds_are_missing(eval_world, five_folds):
    for fold, checkpoint in zip(five_folds, ("best", "final", "best"), strict=True):
        fold.mkdir()
        (fold / f"checkpoint_{checkpoint}.pth").touch()
    (five_folds[1] / "validation").mkdir()
    eval_world.run()
    assert eval_world.summary()["notes"][1].startswith(
        "folds 2, 4 are not trained to the end, fold 3 is not validated with --npz; 4 of 8 labelled"
    )
    (eval_world.model / "nnunet_dml_calibrated.json").write_text("{}")
    eval_world.run()
    assert eval_world.summary()["notes"][1].startswith(
        "folds 2, 3, 4 are not among the calibrated ones; 4 of"
    )


def test_folds_that_are_missing_are_noted_though_no_case_is(eval_world, five_folds, capsys):
    for case in "efgh":
        eval_world.label(case).unlink()
    eval_world.run()
    assert eval_world.summary()["notes"][1:] == ["folds 2, 3, 4 are not trained"]
    assert "Note: folds 2, 3, 4 are not trained." in capsys.readouterr().out


def test_of_chosen_folds_only_these_are_spoken_of(eval_world, five_folds):
    eval_world.run("-f", "0")
    assert {it["case"] for it in eval_world.rows()} == {"a", "b"}
    assert (eval_world.summary()["notes"], eval_world.summary()["not_predicted"]) == ([], [])
    eval_world.out = eval_world.root / "others"
    eval_world.run("-f", "1", "3")
    assert {it["case"] for it in eval_world.rows()} == {"c", "d"}
    said = "fold 3 is not trained; 2 of 4 labelled cases have no prediction: e, g"
    assert eval_world.summary()["notes"] == ["fold_1 lacks 1 of its validation cases: e", said]


def _no_folder(splits, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed")
    return "there is no splits_final.json, as nnUNet_preprocessed names no folder"


def _no_file(splits, monkeypatch):
    splits.unlink()
    return f"there is no {splits}"


def _damaged(splits, monkeypatch):
    splits.write_text("[{}]")
    return f"{splits}: expected nnU-Net's splits, found something else. Restore the file"


def _too_few(splits, monkeypatch):
    splits.write_text("[]")
    return f"{splits} has 0 folds"


@pytest.mark.parametrize("spoil", [_no_folder, _no_file, _damaged, _too_few])
def test_without_splits_nobody_knows_what_the_chosen_folds_lack(
    eval_world, five_folds, monkeypatch, capsys, spoil
):
    eval_world.npz("b", 0).unlink()
    splits = eval_world.root / "preprocessed" / "Dataset007_Toy" / "splits_final.json"
    said = f"which cases belong to the folds is not known: {spoil(splits, monkeypatch)}"
    eval_world.run("-f", "0")
    assert f"Note: {said}." in capsys.readouterr().out
    assert (eval_world.summary()["notes"], eval_world.summary()["not_predicted"]) == ([said], None)


def test_damaged_splits_are_noted(eval_world, five_folds):
    splits = eval_world.root / "preprocessed" / "Dataset007_Toy" / "splits_final.json"
    splits.write_text("{")
    eval_world.run()
    first, second = eval_world.summary()["notes"]
    assert first.startswith(f"which cases belong to the folds is not known: {splits}: expected JSON, found ")
    assert second == "4 of 8 labelled cases have no prediction: e, f, g, h"
    assert eval_world.summary()["not_predicted"] == [*"efgh"]


def test_records_of_folds_that_are_not_chosen_are_not_removed(eval_world):
    eval_world.run()
    before = {it: it.read_bytes() for it in eval_world.out.rglob("*") if it.is_file()}
    for more in ((), ("--overwrite",), ("--bins", "5")):
        (line,) = eval_world.refuses_again("-f", "0", *more)
        assert line == (
            f"{eval_world.out / 'cases'}: expected records of fold 0 only, found 2 of fold 1, which would be lost. "
            "Give another -o, or remove the folder."
        )
    assert {it: it.read_bytes() for it in eval_world.out.rglob("*") if it.is_file()} == before
    eval_world.run("-f", "0", "1")
    eval_world.npz("b", 0).unlink()
    eval_world.run("-f", "1", "0")
    assert {row["case"] for row in eval_world.rows()} == {"a", "c", "d"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-f", "3", "4"), "expected fold_3, fold_4, found no fold"),
        (("-f", "x"), "-f: expected numbers of folds, found x"),
    ],
)
def test_folds_that_cannot_be_chosen_are_refused(eval_world, options, said):
    with pytest.raises(InputError, match=said):
        eval_world.run(*options)


def test_a_folder_of_predictions_has_no_folds_to_choose(eval_world):
    with pytest.raises(InputError, match="-f: expected --model, found --predictions"):
        eval_world.run("-f", "0", source=("--predictions", str(eval_world.model / "fold_0" / "validation")))
