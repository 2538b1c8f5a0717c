import argparse
import csv
import errno
import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml._checks import InputError
from nnunet_dml.cli import evaluate
from nnunet_dml.evaluation import summary
from tests.reference import metrics as slow

MODEL = "nnUNetTrainerDML__nnUNetPlans__2d"
LABELS = {"background": 0, "core": 1, "rim": 2}


def write_image(path, array, spacing=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([spacing] * array.ndim)
    sitk.WriteImage(image, str(path))


class World:
    """A raw dataset with raters and a model with two folds of two cases, in a temporary folder."""

    def __init__(self, root, *, shape=(6, 7), labels=None, ending=".nii.gz", raters=3):
        self.root, self.ending = root, ending
        self.labels = labels or LABELS
        self.raw = root / "raw" / "Dataset007_Toy"
        self.model = root / "results" / "Dataset007_Toy" / MODEL
        self.out = root / "out"
        self.raw.mkdir(parents=True)
        content = {
            "labels": self.labels,
            "file_ending": ending,
            "channel_names": {"0": "MR"},
            "numTraining": 4,
        }
        (self.raw / "dataset.json").write_text(json.dumps(content))
        rng = np.random.default_rng(0)
        self.probs, self.votes, self.consensus = {}, {}, {}
        for i, case in enumerate(("a", "b", "c", "d")):
            votes = rng.integers(0, 3, (raters, *shape)).astype(np.uint8)
            counts = np.stack([(votes == c).sum(0) for c in range(3)])
            self.votes[case], self.consensus[case] = votes, counts.argmax(0).astype(np.uint8)
            self.probs[case] = np.moveaxis(rng.dirichlet(np.ones(3), shape), -1, 0).astype(np.float32)
            write_image(self.label(case), self.consensus[case])
            for r in range(raters):
                write_image(self.rater(case, r), votes[r])
            self.write_npz(case, i // 2, self.probs[case])

    def label(self, case):
        return self.raw / "labelsTr" / (case + self.ending)

    def rater(self, case, r):
        return self.raw / "ratersTr" / case / f"rater{r}{self.ending}"

    def npz(self, case, fold):
        return self.model / f"fold_{fold}" / "validation" / f"{case}.npz"

    def write_npz(self, case, fold, probs):
        path = self.npz(case, fold)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, probabilities=probs[:, None] if probs.ndim == 3 else probs)

    def run(self, *more, dataset="7", source=("--model", MODEL), processes="1"):
        parser = argparse.ArgumentParser()
        evaluate.add_arguments(parser)
        args = ["-d", dataset, *source, "-o", str(self.out), "-np", processes, *more]
        return evaluate.run(parser.parse_args(args))

    def refuses(self, *parts, **options):
        """The command ends on bad input, one line naming each of the parts, and leaves nothing behind."""
        with pytest.raises(InputError) as caught:
            self.run(**options)
        assert not self.out.exists()
        assert all(line.count("\n") == 0 for line in caught.value.problems)
        for part in parts:
            assert any(str(part) in line for line in caught.value.problems), (part, caught.value.problems)
        return caught.value.problems

    def rows(self):
        with (self.out / "cases.csv").open(newline="") as stream:
            return list(csv.DictReader(stream))

    def summary(self):
        return json.loads((self.out / "summary.json").read_text())


@pytest.fixture
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    return tmp_path


@pytest.fixture
def world(environment):
    return World(environment)


def soft(world, case):
    return np.stack([(world.votes[case] == c).mean(0) for c in range(3)])


@pytest.mark.parametrize("shape", [(6, 7), (3, 5, 4)])
def test_every_figure_equals_the_slow_versions(environment, shape, capsys):
    world = World(environment, shape=shape)
    assert world.run() == 0
    rows = world.rows()
    assert list(rows[0]) == ["case", "fold", "class", "dice", "bdice", "ece", "volume_bias"]
    assert [(r["case"], r["fold"], r["class"]) for r in rows] == [
        (case, fold, name)
        for case, fold in zip("abcd", "0011", strict=True)
        for name in ("core", "rim", "all")
    ]
    values = {(r["case"], r["class"]): r for r in rows}
    for case, probs in world.probs.items():
        hard, bdice = probs.argmax(0), slow.bdice_in_floats(probs, soft(world, case))
        bias = slow.volume_bias(probs.astype(float), soft(world, case))
        for c, name in ((1, "core"), (2, "rim")):
            row = values[case, name]
            assert float(row["dice"]) == pytest.approx(slow.dice(hard == c, world.consensus[case] == c))
            assert float(row["bdice"]) == pytest.approx(bdice[c - 1])
            assert float(row["volume_bias"]) == pytest.approx(bias[c - 1], abs=1e-6)
            assert row["ece"] == ""
        assert float(values[case, "all"]["ece"]) == pytest.approx(
            slow.ece(probs, world.consensus[case]), abs=1e-6
        )
    summary = world.summary()
    joint = np.concatenate([p.reshape(3, -1) for p in world.probs.values()], axis=1)
    labels = np.concatenate([m.ravel() for m in world.consensus.values()])
    assert summary["mean"]["ece_pooled"] == pytest.approx(slow.ece(joint, labels), abs=1e-6)
    for metric in ("dice", "bdice", "volume_bias", "ece"):
        given = [float(r[metric]) for r in rows if r[metric]]
        assert summary["mean"][metric] == pytest.approx(np.mean(given))
        first = [float(r[metric]) for r in rows if r[metric] and r["fold"] == "0"]
        assert summary["per_fold"]["0"][metric] == pytest.approx(np.mean(first))
    assert summary["cases"] == 4
    assert summary["per_fold"]["1"]["cases"] == 2
    assert summary["raters"]["per_case"] == {"min": 3, "max": 3}
    printed = capsys.readouterr().out
    assert f"{100 * summary['mean']['dice']:.2f}" in printed
    assert "fold 1" in printed


def test_processes_and_json_change_nothing(world, capsys):
    world.run()
    one = world.rows()
    capsys.readouterr()
    world.run("--json", processes="2")
    assert world.rows() == one
    assert json.loads(capsys.readouterr().out) == world.summary()


def test_any_folder_of_predictions_and_a_model_by_path(world):
    world.run(source=("--model", str(world.model)), dataset="Dataset007_Toy")
    world.run(source=("--model", str(world.model)), dataset="007_Toy")
    expected = [r for r in world.rows() if r["fold"] == "0"]
    world.run(source=("--predictions", str(world.model / "fold_0" / "validation")))
    assert [{**r, "fold": "0"} for r in world.rows()] == expected


def test_png_labels_and_stored_half_precision(environment):
    world = World(environment, ending=".png")
    world.run()
    expected = world.summary()["mean"]
    for i, (case, probs) in enumerate(world.probs.items()):
        world.write_npz(case, i // 2, probs.astype(np.float16))
    world.run()
    assert world.summary()["mean"]["ece"] == pytest.approx(expected["ece"], abs=5e-2)


def test_lost_raters_are_noticed(world):
    path = world.raw / "dataset.json"
    content = json.loads(path.read_text())
    names = ["rater0", "rater1", "rater2"]
    content["nnunet_dml"] = {"cases": {case: {"raters": names} for case in "abcd"}}
    path.write_text(json.dumps(content))
    world.rater("a", 1).unlink()
    for r in range(3):
        world.rater("b", r).unlink()
    one, none = world.refuses("ratersTr/a: ", "ratersTr/b: ")
    assert "found rater0, rater2. Restore" in one
    assert "found none. Restore" in none


def test_cases_without_with_one_and_with_empty_raters_are_named(world, capsys):
    for r in range(3):
        world.rater("a", r).unlink()
    world.rater("b", 1).unlink()
    world.rater("b", 2).unlink()
    for r in range(3):
        write_image(world.rater("c", r), np.zeros((6, 7), np.uint8))
    world.run()
    raters = world.summary()["raters"]
    assert raters["cases_without_raters"] == ["a"]
    assert raters["cases_with_one_rater"] == ["b"]
    assert raters["cases_all_empty"] == ["c"]
    assert raters["per_case"] == {"min": 0, "max": 3}
    assert world.summary()["empty"]["volume_bias_undefined"] == 2
    row = next(r for r in world.rows() if r["case"] == "c")
    assert row["volume_bias"] == "nan"
    printed = capsys.readouterr().out
    assert "without raters: 1 (a)" in printed
    assert "with one rater: 1 (b)" in printed
    assert "that every rater left empty: 1 (c)" in printed


def test_empty_against_empty_counts_one_and_is_counted(world):
    background = np.zeros((3, 6, 7), np.float32)
    background[0] = 1
    world.write_npz("a", 0, background)
    write_image(world.label("a"), np.zeros((6, 7), np.uint8))
    world.run()
    assert [float(r["dice"]) for r in world.rows()[:2]] == [1.0, 1.0]
    empty = world.summary()["empty"]
    assert empty["dice_decided_by_policy"] == 2
    assert empty["pairs_of_case_and_class"] == 8


def test_the_ignore_label_is_left_out_of_everything(environment):
    world = World(environment)
    world.run()
    before = world.rows()
    content = json.loads((world.raw / "dataset.json").read_text())
    content["labels"]["ignore"] = 3
    (world.raw / "dataset.json").write_text(json.dumps(content))
    world.run()
    assert world.rows() == before
    labels = world.consensus["a"].copy()
    labels[:3] = 3
    write_image(world.label("a"), labels)
    world.run()
    row, probs, kept = world.rows()[0], world.probs["a"][:, 3:], world.consensus["a"][3:]
    assert float(row["dice"]) == pytest.approx(slow.dice(probs.argmax(0) == 1, kept == 1))
    assert float(row["bdice"]) == pytest.approx(slow.bdice_in_floats(probs, soft(world, "a")[:, 3:])[0])
    assert float(row["volume_bias"]) == pytest.approx(
        slow.volume_bias(probs.astype(float), soft(world, "a")[:, 3:])[0], abs=1e-6
    )
    assert float(world.rows()[2]["ece"]) == pytest.approx(slow.ece(probs, kept), abs=1e-6)
    assert world.summary()["ignored_voxels"] == 21


def test_a_rater_who_marks_ignore_abstains_there(world):
    content = json.loads((world.raw / "dataset.json").read_text())
    content["labels"]["ignore"] = 3
    (world.raw / "dataset.json").write_text(json.dumps(content))
    raters = [sitk.GetArrayFromImage(sitk.ReadImage(str(world.rater("a", r)))) for r in range(3)]
    raters[0][2] = 3
    write_image(world.rater("a", 0), raters[0])
    world.run()
    means = np.stack([(np.stack(raters) == c).mean(0) for c in range(3)])
    means[:, 2] = np.stack([(np.stack(raters[1:])[:, 2] == c).mean(0) for c in range(3)])
    assert float(world.rows()[0]["bdice"]) == pytest.approx(slow.bdice_in_floats(world.probs["a"], means)[0])
    shutil.rmtree(world.out)
    for r in (1, 2):  # now nobody has labelled that row, and the consensus has
        raters[r][2] = 3
        write_image(world.rater("a", r), raters[r])
    world.refuses(
        "a.nii.gz: expected the ignore label wherever no rater gave a label, found 7 voxels without it"
    )


def test_a_case_that_is_ignored_everywhere_is_named(world):
    content = json.loads((world.raw / "dataset.json").read_text())
    content["labels"]["ignore"] = 3
    (world.raw / "dataset.json").write_text(json.dumps(content))
    write_image(world.label("a"), np.full((6, 7), 3, np.uint8))
    world.refuses("a.nii.gz: expected voxels that are not ignored, found the ignore label everywhere")


def test_folds_that_are_missing_are_noted(world, monkeypatch, capsys):
    folder = world.root / "preprocessed" / "Dataset007_Toy"
    folder.mkdir(parents=True)
    splits = [{"train": [], "val": val} for val in (["a", "b"], ["c", "d", "e"], ["f"])]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    (world.model / "fold_2").mkdir()
    world.run()
    printed = capsys.readouterr().out
    assert "2 of 3 folds" in printed
    assert "fold_2 has no validation/*.npz" in printed
    assert "fold_1 lacks 1 of its validation cases: e" in printed


def test_an_older_result_is_replaced_and_survives_a_failure(world):
    world.run()
    old = (world.out / "summary.json").read_text()
    world.npz("a", 0).write_bytes(b"")
    with pytest.raises(InputError, match="an empty file"):
        world.run()
    assert (world.out / "summary.json").read_text() == old
    world.write_npz("a", 0, world.probs["b"])
    world.run()
    assert (world.out / "summary.json").read_text() != old
    assert sorted(f.name for f in world.out.iterdir()) == ["cases.csv", "summary.json"]


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_results"])
def test_unset_variables(world, monkeypatch, variable):
    monkeypatch.delenv(variable)
    world.refuses(f"{variable}: expected a folder in this variable, found it unset. Run `export {variable}=")


def test_unknown_dataset_and_model_name_those_that_exist(world):
    world.refuses("Dataset007_Toy", dataset="8")
    world.refuses("Dataset007_Toy", dataset="Dataset007_Toys")
    world.refuses(f"There are: {MODEL}", source=("--model", "nnUNetTrainer__nnUNetPlans__2d"))
    world.refuses("expected a folder", source=("--predictions", str(world.root / "nowhere")))
    (world.raw.parent / "Dataset007_Twin").mkdir()
    world.refuses("Dataset007_Toy and Dataset007_Twin")


def test_no_folds_no_validation_no_npz(world):
    for fold in (0, 1):
        for file in (world.model / f"fold_{fold}" / "validation").iterdir():
            file.unlink()
    (world.model / "fold_1" / "validation").rmdir()
    problems = world.refuses("--val --npz", "found none", "found no such folder")
    assert len(problems) == 2
    for fold in (0, 1):
        (world.model / f"fold_{fold}").rename(world.root / f"gone_{fold}")
    world.refuses("found no fold")
    (world.model / "fold_all").mkdir()
    world.refuses("fold_all only")
    world.refuses("--save_probabilities", source=("--predictions", str(world.model)))


def test_a_case_in_two_folds(world):
    world.write_npz("a", 1, world.probs["a"])
    world.refuses("a: expected a case in the validation of one fold, found fold_0 and fold_1")


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


SPOILERS = {
    "reference missing": (
        lambda w: w.label("a").unlink(),
        "a.nii.gz: expected a readable nii.gz file, found no file",
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
        "expected whole numbers as labels, found 42 voxels that are NaN or infinite",
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
        "a.npz: Expected `probabilities` in [0, 1], got",
    ),
    "no sum of one": (
        lambda w: w.write_npz("a", 0, 0.9 * w.probs["a"]),
        "a.npz: Expected `probabilities` to sum to one",
    ),
    "NaN": (
        lambda w: w.write_npz("a", 0, w.probs["a"] * np.nan),
        "a.npz: Expected `probabilities` in [0, 1], got NaN",
    ),
    "regions": (
        lambda w: (w.raw / "dataset.json").write_text(
            '{"labels": {"background": 0, "w": [1, 2]}, "file_ending": ".png"}'
        ),
        "dataset.json: region-based models are not supported yet",
    ),
    "gap": (
        lambda w: (w.raw / "dataset.json").write_text(
            '{"labels": {"background": 0, "w": 2}, "file_ending": ".png"}'
        ),
        "dataset.json: expected labels 0 (background), 1, 2",
    ),
    "broken json": (lambda w: (w.raw / "dataset.json").write_text("{"), "dataset.json: expected JSON"),
    "no json": (lambda w: (w.raw / "dataset.json").unlink(), "dataset.json: expected a file, found none"),
    "reoriented": (
        lambda w: (w.model / "plans.json").write_text('{"image_reader_writer": "NibabelIOWithReorient"}'),
        "plans.json: predictions made with NibabelIOWithReorient are not supported yet",
    ),
    "output is a file": (lambda w: None, "Not a directory"),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_bad_input(world, name):
    spoil, expected = SPOILERS[name]
    spoil(world)
    if name == "output is a file":
        (world.root / "file").write_text("")
        world.out = world.root / "file" / "out"
    problems = world.refuses(expected)
    assert len(problems) == 1, problems


def test_many_bad_files_are_listed_together(world):
    world.label("a").unlink()
    world.npz("b", 0).write_bytes(b"")
    _truncate(world.rater("c", 0))
    _truncate(world.rater("c", 2))
    world.write_npz("c", 1, world.probs["c"] * 3)
    assert len(world.refuses("labelsTr/a", "b.npz", "rater0", "rater2", "c.npz", processes="2")) == 5


def test_a_full_disk_leaves_nothing(world, monkeypatch):
    def full(self, *args, **kwargs):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    world.refuses("No space left on device")


def test_no_permission_to_write(world):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    world.root.chmod(0o500)
    try:
        world.refuses("Permission denied")
    finally:
        world.root.chmod(0o700)


def test_inputs_are_not_changed(world):
    def content():
        return {
            f: f.read_bytes()
            for f in sorted(world.root.rglob("*"))
            if f.is_file() and world.out not in f.parents
        }

    before = content()
    world.run()
    assert content() == before


def test_nnunets_own_summary_is_not_overwritten(tmp_path):
    theirs = tmp_path / "validation" / "summary.json"
    theirs.parent.mkdir()
    theirs.write_text('{"foreground_mean": {"Dice": 0.9}, "mean": {}, "metric_per_case": []}')
    with pytest.raises(InputError, match=r"summary\.json: expected a summary of `nnunet-dml evaluate`"):
        summary.check_writable(theirs.parent)
    theirs.write_text('{"source": "ours"}')
    summary.check_writable(theirs.parent)
