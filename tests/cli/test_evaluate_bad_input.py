"""`nnunet-dml evaluate` on what is missing, damaged or something else: one line each, and nothing is left behind."""

import errno
import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.cli.main import main
from nnunet_dml.evaluation import summary
from tests.evaluation.evaluation_world import MODEL, REGIONS, World, write_image


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_results"])
def test_unset_variables(eval_world, monkeypatch, variable):
    monkeypatch.delenv(variable)
    eval_world.refuses(
        f"{variable}: expected a folder in this variable, found it unset. Run `export {variable}="
    )


def test_unknown_dataset_and_model_name_those_that_exist(eval_world):
    eval_world.refuses("Dataset007_Toy", dataset="8")
    eval_world.refuses("Dataset007_Toy", dataset="Dataset007_Toys")
    eval_world.refuses(f"There are: {MODEL}", source=("--model", "nnUNetTrainer__nnUNetPlans__2d"))
    eval_world.refuses("expected a folder", source=("--predictions", str(eval_world.root / "nowhere")))
    (eval_world.raw.parent / "Dataset007_Twin").mkdir()
    eval_world.refuses("Dataset007_Toy and Dataset007_Twin")


def test_no_folds_no_validation_no_npz(eval_world):
    for fold in (0, 1):
        for file in (eval_world.model / f"fold_{fold}" / "validation").iterdir():
            file.unlink()
    (eval_world.model / "fold_1" / "validation").rmdir()
    problems = eval_world.refuses("--val --npz", "found none", "found no such folder")
    assert len(problems) == 2
    for fold in (0, 1):
        (eval_world.model / f"fold_{fold}").rename(eval_world.root / f"gone_{fold}")
    eval_world.refuses("found no fold")
    (eval_world.model / "fold_all").mkdir()
    eval_world.refuses("fold_all only")
    eval_world.refuses("--save_probabilities", source=("--predictions", str(eval_world.model)))


def test_a_case_in_two_folds(eval_world):
    eval_world.write_npz("a", 1, eval_world.probs["a"])
    eval_world.refuses("a: expected a case in the validation of one fold, found fold_0 and fold_1")


def test_lost_raters_are_noticed(eval_world):
    names = ["rater0", "rater1", "rater2"]
    eval_world.save(nnunet_dml={"cases": {case: {"raters": names} for case in "abcd"}})
    eval_world.rater("a", 1).unlink()
    for r in range(3):
        eval_world.rater("b", r).unlink()
    one, none = eval_world.refuses("ratersTr/a: ", "ratersTr/b: ")
    assert "found rater0, rater2. Restore" in one
    assert "found none. Restore" in none


def test_a_case_that_is_ignored_everywhere_is_named(eval_world):
    eval_world.save(labels={**eval_world.content["labels"], "ignore": 3})
    write_image(eval_world.label("a"), np.full((6, 7), 3, np.uint8))
    eval_world.refuses("a.nii.gz: expected voxels that are not ignored, found the ignore label everywhere")


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _labels(labels, **more):
    return lambda w: (w.raw / "dataset.json").write_text(
        json.dumps({"labels": labels, "file_ending": ".nii.gz", **more})
    )


SPOILERS = {
    "reference missing": (
        lambda w: w.label("a").unlink(),
        "labelsTr/a.nii.gz or labelsTs/a.nii.gz, found neither",
    ),
    "reference empty": (
        lambda w: w.label("a").write_bytes(b""),
        "labelsTr/a.nii.gz: expected a readable nii.gz file, found an empty",
    ),
    "reference truncated": (
        lambda w: _truncate(w.label("a")),
        "labelsTr/a.nii.gz: expected a whole nii.gz file",
    ),
    "reference is text": (
        lambda w: w.label("a").write_text("hello"),
        "labelsTr/a.nii.gz: expected a readable nii.gz file, found something else",
    ),
    "gzipped text": (
        lambda w: w.label("a").write_bytes(gzip.compress(b"hello")),
        "labelsTr/a.nii.gz: expected a readable nii.gz file, found something else",
    ),
    "rater truncated": (
        lambda w: _truncate(w.rater("a", 1)),
        "ratersTr/a/rater1.nii.gz: expected a whole nii.gz file",
    ),
    "rater other shape": (
        lambda w: write_image(w.rater("a", 2), np.zeros((6, 8), np.uint8)),
        "rater2.nii.gz: expected size (7, 6) of",
    ),
    "rater other spacing": (
        lambda w: write_image(w.rater("a", 2), w.votes["a"][2], spacing=1.5),
        "rater2.nii.gz: expected spacing (1, 1) of",
    ),
    "rater other label": (
        lambda w: write_image(w.rater("a", 0), np.full((6, 7), 9, np.uint8)),
        "rater0.nii.gz: expected the labels 0, 1, 2 of dataset.json, found 9",
    ),
    "rater fractions": (
        lambda w: write_image(w.rater("a", 0), np.full((6, 7), 0.5, np.float32)),
        "rater0.nii.gz: expected whole numbers as labels, found 42 voxels with others, such as 0.5",
    ),
    "rater NaN": (
        lambda w: write_image(w.rater("a", 0), np.full((6, 7), np.nan, np.float32)),
        "expected whole numbers as labels, found 42 voxels that are NaN, infinite or beyond 32-bit floats",
    ),
    "npz empty": (
        lambda w: w.npz("a", 0).write_bytes(b""),
        "a.npz: expected a whole .npz file, found an empty file",
    ),
    "npz truncated": (
        lambda w: _truncate(w.npz("a", 0)),
        "a.npz: expected a whole .npz file, found a damaged one",
    ),
    "npz is text": (
        lambda w: w.npz("a", 0).write_text("hello"),
        "a.npz: expected a whole .npz file, found a damaged",
    ),
    "npz of objects": (
        lambda w: np.savez(w.npz("a", 0), probabilities=np.array([{}], dtype=object)),
        "a.npz: expected a whole .npz file, found a damaged",
    ),
    "npz other key": (
        lambda w: np.savez(w.npz("a", 0), softmax=w.probs["a"]),
        "a.npz: expected the array `probabilities`, found `softmax`",
    ),
    "integers": (
        lambda w: w.write_npz("a", 0, np.ones((3, 6, 7), int)),
        "expected floating point `probabilities`",
    ),
    "no z": (
        lambda w: np.savez(w.npz("a", 0), probabilities=w.probs["a"]),
        "a.npz: expected `probabilities` of shape (classes, z, y, x), found (3, 6, 7)",
    ),
    "other classes": (
        lambda w: w.write_npz("a", 0, np.full((2, 6, 7), 0.5, np.float32)),
        "a.npz: expected 3 classes as in dataset.json, found 2",
    ),
    "other shape": (
        lambda w: w.write_npz("a", 0, w.probs["a"].swapaxes(1, 2)),
        "a.npz: expected shape (1, 6, 7) of",
    ),
    "logits": (
        lambda w: w.write_npz("a", 0, 9 * w.probs["a"] - 4),
        "a.npz: expected probabilities in [0, 1], found logits, by their range from -",
    ),
    "above one": (
        lambda w: w.write_npz("a", 0, 255 * w.probs["a"]),
        "a.npz: expected probabilities in [0, 1], found logits, or integers without their scale, by values up to 2",
    ),
    "logits above zero": (
        lambda w: w.write_npz("a", 0, 25 + np.log(w.probs["a"])),
        "a.npz: expected probabilities in [0, 1], found logits, or integers without their scale, by values up to 2",
    ),
    "no sum of one": (
        lambda w: w.write_npz("a", 0, 0.9 * w.probs["a"]),
        "a.npz: expected probabilities that sum to one over the classes (tolerance 0.001), found sums from 0.9 to 0.9",
    ),
    "NaN": (
        lambda w: w.write_npz("a", 0, w.probs["a"] * np.nan),
        "a.npz: expected probabilities in [0, 1], found NaN in 126 values",
    ),
    "regions without order": (
        _labels({"background": 0, "w": [1, 2]}),
        "dataset.json: expected `regions_class_order`, a label for each of the 1 regions, found none",
    ),
    "regions of another order": (
        _labels(REGIONS, regions_class_order=[1, 3]),
        "dataset.json: expected `regions_class_order`, a label for each of the 2 regions, found [1, 3]",
    ),
    "gap": (_labels({"background": 0, "w": 2}), "dataset.json: expected labels 0 (background), 1, 2"),
    "a class called all": (
        _labels({"background": 0, "all": 1}),
        "dataset.json: expected names of labels other than all, which is a row of cases.csv, found {",
    ),
    "a region called all": (
        _labels({"background": 0, "all": [1, 2], "core": [1]}, regions_class_order=[2, 1]),
        "dataset.json: expected names of labels other than all",
    ),
    "fraction as label": (
        _labels({"background": 0, "w": 1.5}),
        "dataset.json: expected `labels` (name: integer, or the list",
    ),
    "broken json": (lambda w: (w.raw / "dataset.json").write_text("{"), "dataset.json: expected JSON"),
    "no json": (lambda w: (w.raw / "dataset.json").unlink(), "dataset.json: expected a file, found none"),
    "reoriented": (
        lambda w: (w.model / "plans.json").write_text('{"image_reader_writer": "NibabelIOWithReorient"}'),
        "plans.json: predictions made with NibabelIOWithReorient are not supported yet",
    ),
    "output is a file": (lambda w: None, "expected a folder, found a file"),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_bad_input(eval_world, name):
    spoil, expected = SPOILERS[name]
    spoil(eval_world)
    if name == "output is a file":
        (eval_world.root / "file").write_text("")
        eval_world.out = eval_world.root / "file" / "out"
    for case in "bcd":  # quicker
        eval_world.npz(case, int(case in "cd")).unlink()
    problems = eval_world.refuses(expected)
    assert len(problems) == 1, problems


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--bins", "0"), "--bins: expected 1 to 1000, found 0"),
        (("--thresholds", "0.5", "1.5"), "--thresholds: expected levels above 0, 1 at most, found 0.5 1.5"),
        (("--thresholds", "0.5", "0.2"), "--thresholds: expected ascending levels, found 0.5 0.2"),
        (("--boundary", "2"), "--boundary: expected an odd number of voxels, found 2"),
        (("--surfaces", "--tolerance", "-1"), "--tolerance: expected millimetres, at least 0, found -1"),
        (("--by", "case", "--csv"), "--by: expected a table to be printed, found --csv"),
        (("--by", "fold", "--json"), "--by: expected a table to be printed, found --json"),
        (("-np", "0"), "-np: expected at least 1 process, found 0"),
    ],
)
def test_options_out_of_range(eval_world, more, expected):
    eval_world.refuses(expected, more=more)


def test_predictions_without_a_reference_are_listed_before_anything_is_measured(eval_world):
    folder = eval_world.model / "fold_0" / "validation"
    for case in "xyz":
        shutil.copy(eval_world.npz("a", 0), folder / f"{case}.npz")
    (folder / "b.npz").write_bytes(b"")
    for source in (("--model", MODEL), ("--predictions", str(folder))):
        problems = eval_world.refuses(
            f"{folder / 'x.npz'}: expected its reference in {eval_world.raw}", source=source
        )
        assert len(problems) == 3
        assert not eval_world.out.exists()


def test_many_bad_files_are_listed_together(eval_world):
    eval_world.label("a").write_bytes(b"")
    eval_world.npz("b", 0).write_bytes(b"")
    _truncate(eval_world.rater("c", 0))
    _truncate(eval_world.rater("c", 2))
    eval_world.write_npz("c", 1, eval_world.probs["c"] * 3)
    assert len(eval_world.refuses("labelsTr/a", "b.npz", "rater0", "rater2", "c.npz")) == 5


def test_status_2_and_no_traceback(eval_world, capsys):
    eval_world.npz("a", 0).write_bytes(b"")
    eval_world.label("c").write_bytes(b"")
    status = main(["evaluate", "-d", "7", "--model", MODEL, "-o", str(eval_world.out), "-np", "1"])
    error = capsys.readouterr().err
    assert status == 2
    assert "Traceback" not in error
    assert [line[:19] for line in error.splitlines() if "expected" in line] == ["nnunet-dml evaluate"] * 2


def test_a_full_disk_leaves_nothing(eval_world, monkeypatch):
    def full(self, *args, **kwargs):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left on device"):
        eval_world.run()
    assert not eval_world.out.exists()


def test_no_permission_to_write(eval_world):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    eval_world.root.chmod(0o500)
    try:
        eval_world.refuses("Permission denied")
    finally:
        eval_world.root.chmod(0o700)


def test_nnunets_own_summary_is_not_overwritten(tmp_path):
    theirs = tmp_path / "validation" / "summary.json"
    theirs.parent.mkdir()
    theirs.write_text('{"foreground_mean": {"Dice": 0.9}, "mean": {}, "metric_per_case": []}')
    with pytest.raises(InputError, match=r"summary\.json: expected a summary of `nnunet-dml evaluate`"):
        summary.check_writable(theirs.parent)
    theirs.write_text('{"source": "ours"}')
    summary.check_writable(theirs.parent)


@pytest.mark.parametrize("whole", [True, False])
def test_a_models_folder_is_not_written_into(eval_world, whole):
    if whole:
        (eval_world.model / "plans.json").write_text("{}")
    eval_world.out = eval_world.model
    before = sorted(eval_world.root.rglob("*"))
    with pytest.raises(
        InputError, match=r"expected a folder for evaluations, found one of nnU-Net's .* Give another"
    ):
        eval_world.run()
    assert sorted(eval_world.root.rglob("*")) == before


def test_regions_in_a_file_of_classes(environment):
    world = World(environment, labels=REGIONS)
    world.write_npz("a", 0, np.full((3, 6, 7), 1 / 3, np.float32))
    world.refuses("a.npz: expected 2 regions as in dataset.json, found 3")


def test_predictions_of_other_labels(eval_world):
    def describe(folder, **labels):
        folder.mkdir(exist_ok=True)
        (folder / "dataset.json").write_text(json.dumps({**eval_world.content, "labels": labels}))

    swapped = {"background": 0, "rim": 1, "core": 2}
    describe(eval_world.model, **swapped)
    expected = f"expected the labels of {eval_world.raw / 'dataset.json'}: {{'background': 0, 'core': 1"
    problems = eval_world.refuses(
        f"{eval_world.model / 'dataset.json'}: {expected}", "found {'background': 0, 'rim': 1"
    )
    assert len(problems) == 1
    predicted = eval_world.root / "predicted"
    shutil.copytree(eval_world.model / "fold_0" / "validation", predicted / "probabilities")
    for case in "ab":
        shutil.copy(eval_world.npz(case, 0), predicted)
    describe(predicted, **swapped)
    for folder in (predicted, predicted / "probabilities"):  # of nnU-Net's command, of ours
        eval_world.refuses(f"{predicted / 'dataset.json'}: expected", source=("--predictions", str(folder)))
    describe(predicted, **eval_world.content["labels"])
    (predicted / "plans.json").write_text('{"dataset_name": "Dataset999_Renamed"}')
    assert eval_world.run(source=("--predictions", str(predicted))) == 0
