"""Fit and apply on a model of three folds; the oracle is plain NumPy on what was written."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml._files import _MACHINE
from nnunet_dml.cli.main import main
from tests.cli.calibrate.calls import STORE, apply, calibrated, fit, pairs
from tests.cli.calibration_world import DATASET, MODEL, World, figures


@pytest.mark.parametrize("regions", [False, True])
def test_before_and_after_are_those_of_the_cross_fitted_files(environment, capsys, regions):
    world = World(environment, regions=regions)
    record = fit(world)
    cross = record["cross_fitted"]
    assert set(cross["methods"]) == {"none", "temperature", "vector", "isotonic", "kernel"}
    assert cross["before"] == cross["methods"]["none"]
    for name, value in figures(pairs(world, world.probs)).items():
        assert cross["before"][name] == pytest.approx(value, abs=1e-6), name
    after = calibrated(environment / "out", world)
    assert sorted(after) == list("abcdef")
    for name, value in figures(pairs(world, after)).items():
        assert cross["after"][name] == pytest.approx(value, abs=1e-5), name
    assert cross["after"]["brier"] < 0.9 * cross["before"]["brier"]
    assert (record["cases"], record["voxels"], record["reference"]) == (6, 720, {"raters": 6})
    scores = {name: it["brier"] for name, it in cross["methods"].items()}
    best = record["method"]
    assert scores[best] <= 1.001 * min(scores.values())
    printed = capsys.readouterr().out
    assert f"{best} *" in printed
    assert "against the raters' uniform mean" in printed
    assert f"{cross['before']['brier']:.5f}" in printed


@pytest.mark.parametrize("method", ["temperature", "vector", "kernel", "isotonic", "none"])
def test_a_method_that_was_asked_for(world, capsys, method):
    record = fit(world, method=method)
    assert record["method"] == method
    assert list(record["cross_fitted"]["methods"]) == list(dict.fromkeys(["none", method]))
    after = calibrated(world.root / "out", world)
    assert record["cross_fitted"]["after"]["nll"] == pytest.approx(
        figures(pairs(world, after))["nll"], abs=1e-5
    )
    printed = capsys.readouterr().out
    assert ("segmentation stays" in printed) == (method == "temperature")
    assert ("stay as they are" in printed) == (method == "none")


def test_a_folds_own_labels_do_not_change_what_is_applied_to_it(world):
    fit(world)
    before = calibrated(world.root / "out", world)
    for case in "cd":  # fold 1
        shutil.rmtree(world.raw / "ratersTr" / case)
        world.write_label(world.raw / "labelsTr" / f"{case}.nii.gz", 2 - world.consensus[case])
    fit(world)
    after = calibrated(world.root / "again", world)
    for case in "abef":
        assert not np.array_equal(before[case], after[case]), case
    for case in "cd":
        np.testing.assert_array_equal(before[case], after[case])


def test_a_calibrator_that_does_not_help_is_not_chosen(world):
    rng = np.random.default_rng(1)
    for case in "abcdef":  # probabilities that say nothing and are right about it
        world.write_npz(case, np.full((3, 1, 12, 10), 1 / 3, np.float32))
        votes = (np.arange(120) % 3)[rng.permutation(120)].reshape(12, 10).astype(np.uint8)
        shutil.rmtree(world.raw / "ratersTr" / case)
        world.write_label(world.raw / "labelsTr" / f"{case}.nii.gz", votes)
    record = fit(world)
    assert record["method"] == "none"
    assert record["reference"] == {"labels": 6}


def test_what_probabilities_should_mean(world, capsys):
    by_default = fit(world)
    assert by_default["reference"] == {"raters": 6}
    hard = fit(world, "--reference", "labels")
    expected = figures(pairs(world, world.probs, "labels"))
    assert hard["cross_fitted"]["before"]["brier"] == pytest.approx(expected["brier"], abs=1e-6)
    shutil.rmtree(world.raw / "ratersTr" / "a")
    record = fit(world)
    assert record["reference"] == {"labels": 1, "raters": 5}
    assert "against labelsTr as it is or the raters' uniform mean" in capsys.readouterr().out
    shutil.rmtree(world.raw / "ratersTr")
    (world.raw / "softlabelsTr").mkdir()
    for case in "abcdef":
        shares = world.reference(case).reshape(3, 12, 10)[1:].astype(np.float32)
        image = sitk.GetImageFromArray(shares[:, None], isVector=False)
        sitk.WriteImage(image, str(world.raw / "softlabelsTr" / f"{case}.nii.gz"))
    record = fit(world)
    assert record["reference"] == {"softlabels": 6}
    assert record["cross_fitted"]["before"]["brier"] == pytest.approx(
        by_default["cross_fitted"]["before"]["brier"]
    )


def test_ignored_voxels_do_not_count(environment):
    world = World(environment, ignore=True)
    record = fit(world, method="vector")
    assert record["voxels"] == 6 * 100
    kept = [(p.reshape(3, -1)[:, 20:], world.reference(c)[:, 20:]) for c, p in world.probs.items()]
    assert record["cross_fitted"]["before"]["brier"] == pytest.approx(figures(kept)["brier"], abs=1e-6)


@pytest.mark.parametrize("folds", [1, 2])
def test_with_few_folds_cases_are_left_out(environment, capsys, folds):
    world = World(environment, folds=folds, per_fold=6 // folds)
    record = fit(world)
    assert "cases are left out instead of folds" in capsys.readouterr().out
    assert len(record["groups"]) == (5 if folds == 1 else 6)
    assert sorted(case for it in record["groups"].values() for case in it["cases"]) == list("abcdef")
    after = calibrated(environment / "out", world)
    for name, value in figures(pairs(world, after)).items():
        assert record["cross_fitted"]["after"][name] == pytest.approx(value, abs=1e-5), name


def test_it_goes_with_a_copy_of_the_model_and_calibrates_other_predictions(world, capsys):
    fit(world, method="temperature")
    copy = world.root / "elsewhere" / "renamed"
    copy.parent.mkdir()
    world.model.rename(copy)
    folder = world.root / "predicted"
    folder.mkdir()
    np.savez_compressed(folder / "new.npz", probabilities=world.probs["a"])
    (folder / "new.pkl").write_bytes(b"properties")
    (folder / "new.nii.gz").write_bytes((world.raw / "labelsTr" / "a.nii.gz").read_bytes())
    out, code = apply(world, "-i", str(folder), model=copy)
    assert code == 0
    assert (out / "new.pkl").read_bytes() == b"properties"
    assert json.loads((out / "plans.json").read_text())["dataset_name"] == DATASET
    got = np.load(out / "new.npz")["probabilities"]
    assert got.dtype == np.float32
    temperature = float(np.load(copy / STORE / "calibrator.npz")["temperature_0"])
    p = world.probs["a"].astype(float) ** (1 / temperature)
    np.testing.assert_allclose(got, p / p.sum(0), atol=1e-6)
    assert "calibrated by: temperature" in capsys.readouterr().out


def test_models_are_found_by_name(world):
    assert main(["calibrate", "fit", MODEL, "-d", "7", "--method", "temperature", "-np", "1"]) == 0
    out = world.root / "out"
    assert (
        main(["calibrate", "apply", MODEL, "-d", DATASET, "--cross-fitted", "-o", str(out), "-np", "1"]) == 0
    )


def test_applying_goes_on_where_it_stopped(world, capsys):
    fit(world, method="temperature")
    out, _ = apply(world, "--cross-fitted")
    first = {f: f.stat().st_mtime_ns for f in out.rglob("*.npz")}
    lost = out / "fold_1" / "validation" / "c.npz"
    lost.unlink()
    process = subprocess.Popen(["true"])
    process.wait()
    for folder in (out, lost.parent):  # as of a process that was killed while it wrote
        (folder / f".tmp-{_MACHINE}-{process.pid}-abcdefgh-{lost.name}").touch()
    capsys.readouterr()
    apply(world, "--cross-fitted")
    assert "1 cases, 5 were there already" in capsys.readouterr().out
    again = {f: f.stat().st_mtime_ns for f in out.rglob("*.npz")}
    assert again.keys() == first.keys()
    assert {f for f in first if first[f] != again[f]} == {lost}
    assert not list(out.rglob(".tmp-*"))


def test_a_source_that_is_another_is_calibrated_again_whatever_its_time(world, capsys):
    fit(world, method="temperature")
    folder = world.root / "predicted"
    folder.mkdir()
    for case in "xy":
        np.savez(folder / f"{case}.npz", probabilities=world.probs["a"])
    out, _ = apply(world, "-i", str(folder))
    first = np.load(out / "x.npz")["probabilities"]
    np.savez(folder / "x.npz", probabilities=world.probs["b"])
    os.utime(
        folder / "x.npz", (1e9, 1e9)
    )  # older than what was made, as a file that was copied with its time
    capsys.readouterr()
    apply(world, "-i", str(folder))
    assert "1 cases, 1 were there already" in capsys.readouterr().out
    assert not np.array_equal(np.load(out / "x.npz")["probabilities"], first)


def test_fitting_again_replaces_the_old_one(world):
    fit(world, method="kernel")
    fit(world, method="temperature")
    names = {it.name for it in (world.model / STORE).iterdir()}
    assert names == {"calibration.json", "calibrator.npz", *(f"without_fold_{k}.npz" for k in range(3))}
    assert not [it for it in world.model.iterdir() if it.name.startswith(".")]
