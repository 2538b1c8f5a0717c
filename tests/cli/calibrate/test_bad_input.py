"""What `calibrate` refuses."""

import json
import shutil

import numpy as np
import pytest

from nnunet_dml.cli.main import main
from tests.cli.calibrate.calls import STORE, apply, fit
from tests.cli.calibration_world import World


def refused(capsys, world, command, *parts):
    """Status 2, one line per problem, nothing new in the model or the output."""
    before = sorted(world.root.rglob("*"))
    capsys.readouterr()
    assert command() == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("nnunet-dml ")]
    assert "Traceback" not in error
    for part in parts:
        assert any(part in line for line in lines), (part, lines)
    assert sorted(world.root.rglob("*")) == before
    return lines


def do_fit(world, *more):
    return lambda: main(["calibrate", "fit", str(world.model), "-np", "1", *more])


def _without_npz(world):
    for case in world.probs:
        world.npz(case).unlink()


def _others_labels(world):
    content = json.loads((world.model / "dataset.json").read_text())
    content["labels"] = {"background": 0, "tumour": 1, "rim": 2}
    (world.model / "dataset.json").write_text(json.dumps(content))


def _one_class(world):
    shutil.rmtree(world.raw / "ratersTr")
    for case in world.probs:
        world.write_label(world.raw / "labelsTr" / f"{case}.nii.gz", np.ones((12, 10), np.uint8))


SPOILERS = {
    "no model": (lambda w: shutil.rmtree(w.model), "expected a trained model's folder, found none"),
    "no plans": (lambda w: (w.model / "plans.json").unlink(), "plans.json: expected a file"),
    "no npz": (_without_npz, "Train with --npz"),
    "other labels": (_others_labels, "expected the labels of"),
    "one class": (_one_class, "expected voxels of at least two classes in the references, found one class only"),
    "damaged npz": (lambda w: w.npz("a").write_bytes(b"x"), "a.npz: expected a whole .npz file"),
    "other classes": (lambda w: w.write_npz("a", w.probs["a"][:2]), "a.npz: expected 3 classes"),
    "NaN": (lambda w: w.write_npz("a", w.probs["a"] * np.nan), "a.npz: expected probabilities in [0, 1], found NaN"),
    "logits": (lambda w: w.write_npz("a", 9 * w.probs["a"] - 4), "a.npz: expected probabilities in [0, 1], found logits"),
    "other shape": (lambda w: w.write_npz("a", w.probs["a"][..., :5]), "a.npz: expected shape (1, 12, 10) of"),
    "no reference": (lambda w: (w.raw / "labelsTr" / "a.nii.gz").unlink(), "a.nii.gz: expected a readable"),
    "few voxels": (lambda w: [shutil.rmtree(w.model / f"fold_{k}") for k in (1, 2)] and w.npz("b").unlink(), "at least two validation cases"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILERS)
def test_fitting_refuses(world, capsys, name):
    spoil, expected = SPOILERS[name]
    spoil(world)
    assert len(refused(capsys, world, do_fit(world), expected)) == (3 if name == "no npz" else 1)


def test_fitting_refuses_what_is_too_little(environment, capsys):
    world = World(environment, folds=1)
    refused(
        capsys,
        world,
        do_fit(world),
        "expected at least 3 validation cases to choose a method, found 2. Give --method",
    )
    assert do_fit(world, "--method", "temperature")() == 0
    for case in "ab":
        world.write_npz(case, world.probs[case][..., :4, :10])
        world.write_label(world.raw / "labelsTr" / f"{case}.nii.gz", world.consensus[case][:4])
    refused(
        capsys, world, do_fit(world, "--method", "vector", "--reference", "labels"), "at least 100 voxels"
    )


def test_fitting_refuses_raters_that_are_not_there(environment, capsys):
    world = World(environment, raters=0)
    refused(
        capsys,
        world,
        do_fit(world, "--reference", "raters"),
        "ratersTr/a: expected raters of a, found none",
    )
    refused(capsys, world, do_fit(world, "--keys", "1"), "--keys: expected 2 to 100000 voxels, found 1")
    refused(
        capsys, world, do_fit(world, "--keys", "100001"), "--keys: expected 2 to 100000 voxels, found 100001"
    )


def test_every_bad_case_of_every_fold_is_named(world, capsys):
    for case in "acf":
        world.npz(case).write_bytes(b"")
    assert len(refused(capsys, world, do_fit(world), "a.npz", "c.npz", "f.npz")) == 3


def do_apply(world, *source, out="out"):
    return lambda: apply(world, *source, out=world.root / out)[1]


def test_applying_refuses(world, capsys):
    cross = do_apply(world, "--cross-fitted")
    refused(capsys, world, cross, "expected a calibrator, found none. Fit one")
    fit(world, method="vector")
    validation = str(world.model / "fold_0" / "validation")
    refused(capsys, world, do_apply(world, "-i", validation, out=validation), "another folder than the input")
    refused(
        capsys,
        world,
        do_apply(world, "-i", str(world.root / "none")),
        "expected a folder of predictions, found none",
    )
    (world.root / "used").mkdir()
    (world.root / "used" / "letter.txt").write_text("mine")
    refused(
        capsys,
        world,
        do_apply(world, "--cross-fitted", out="used"),
        "expected an empty folder, found one in use",
    )
    refused(
        capsys,
        world,
        do_apply(world, "--cross-fitted", out="used/letter.txt"),
        "expected a folder, found a file",
    )
    assert cross() == 0
    fit(world, method="temperature")
    refused(capsys, world, cross, "expected no predictions, or those of the same command, found ones")


def test_applying_refuses_the_cases_that_fitted_the_calibrator(world, capsys):
    fit(world, method="temperature")
    own = world.model / "fold_0" / "validation"
    copies = world.root / "copies"
    shutil.copytree(own, copies)
    for folder in (own, copies):
        command = do_apply(world, "-i", str(folder))
        (line,) = refused(
            capsys, world, command, f"{folder}: expected predictions of cases that the calibrator was not"
        )
        assert "fitted with, found its own: a, b. Measure these with --cross-fitted." in line
    for case in "ab":  # other images of these names
        np.savez(copies / f"{case}.npz", probabilities=world.probs[case][..., :5])
    assert do_apply(world, "-i", str(copies))() == 0


def test_applying_refuses_a_damaged_calibrator(world, capsys):
    fit(world, method="vector")
    good = {it: it.read_bytes() for it in (world.model / STORE).iterdir()}
    cross = do_apply(world, "--cross-fitted")
    for name, content, expected in (
        ("calibration.json", b"{", "calibration.json: expected JSON"),
        ("calibration.json", b"{}", "calibration.json: expected a calibration of format 1"),
        (
            "without_fold_1.npz",
            b"PK",
            "without_fold_1.npz: expected the file that calibration.json was written with",
        ),
        ("without_fold_1.npz", None, "without_fold_1.npz: expected a calibrator, found no file"),
    ):
        path = world.model / STORE / name
        path.unlink() if content is None else path.write_bytes(content)
        assert cross() == 2
        assert expected in capsys.readouterr().err
        assert not (world.root / "out").exists()
        path.write_bytes(good[path])
    assert cross() == 0


def test_applying_refuses_other_labels_and_new_folds(world, capsys):
    fit(world, method="vector")
    folder = world.root / "predicted"
    folder.mkdir()
    np.savez(folder / "x.npz", probabilities=world.probs["a"][:2])
    assert do_apply(world, "-i", str(folder))() == 2
    assert "x.npz: expected 3 classes" in capsys.readouterr().err
    shutil.copy(world.model / "dataset.json", folder)
    _others_labels(world)
    lines = refused(
        capsys, world, do_apply(world, "-i", str(folder), out="b"), "expected a calibrator of the labels of"
    )
    assert "tumour [1]" in lines[0]
    shutil.copy(world.raw / "dataset.json", world.model)
    world.fold["g"], world.probs["g"] = 7, world.probs["a"]
    world.write_npz("g")
    refused(
        capsys,
        world,
        do_apply(world, "--cross-fitted", out="c"),
        "fold_7: expected cases that were there when",
        "found others: g",
    )
