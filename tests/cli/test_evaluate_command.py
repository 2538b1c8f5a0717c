"""`nnunet-dml evaluate`: what it measures, writes and prints."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml.cli.main import main
from nnunet_dml.evaluation import figures
from nnunet_dml.evaluation.figures import OVERALL, PER_CLASS
from tests.evaluation.evaluation_world import REGIONS, World, write_image
from tests.reference import metrics as slow


@pytest.mark.parametrize("shape", [(6, 7), (3, 5, 4)])
def test_every_figure_equals_the_slow_versions(environment, shape, capsys):
    world = World(environment, shape=shape)
    assert world.run() == 0
    rows = world.rows()
    assert list(rows[0])[:7] == ["case", "fold", "class", "dice", "bdice", "ece", "volume_bias"]
    assert set(rows[0]) == {"case", "fold", "class", *PER_CLASS, *OVERALL} - {"surface_dice", "hd95_mm"}
    assert [(r["case"], r["fold"], r["class"]) for r in rows] == [
        (case, fold, name)
        for case, fold in zip("abcd", "0011", strict=True)
        for name in ("core", "rim", "all")
    ]
    values = {(r["case"], r["class"]): r for r in rows}
    for case, probs in world.probs.items():
        hard, bdice = probs.argmax(0), slow.bdice_in_floats(probs, world.soft(case))
        bias = slow.volume_bias(probs.astype(float), world.soft(case))
        for c, name in ((1, "core"), (2, "rim")):
            row = values[case, name]
            assert float(row["dice"]) == pytest.approx(slow.dice(hard == c, world.consensus[case] == c))
            assert float(row["bdice"]) == pytest.approx(bdice[c - 1])
            assert float(row["volume_bias"]) == pytest.approx(bias[c - 1], abs=1e-6)
            assert row["ece"] == ""
        assert values[case, "all"]["dice"] == ""
        assert float(values[case, "all"]["ece"]) == pytest.approx(
            slow.ece(probs, world.consensus[case]), abs=1e-6
        )
    summary = world.summary()
    joint = np.concatenate([p.reshape(3, -1) for p in world.probs.values()], axis=1)
    labels = np.concatenate([m.ravel() for m in world.consensus.values()])
    assert summary["mean"]["ece_pooled"] == pytest.approx(slow.ece(joint, labels), abs=1e-6)
    for metric in ("dice", "bdice", "volume_bias", "ece", "soft_brier", "ged"):
        given = [float(r[metric]) for r in rows if r[metric]]
        assert summary["mean"][metric] == pytest.approx(np.mean(given))
        first = [float(r[metric]) for r in rows if r[metric] and r["fold"] == "0"]
        assert summary["per_fold"]["0"][metric] == pytest.approx(np.mean(first))
    assert summary["cases"] == 4
    assert summary["per_fold"]["1"]["cases"] == 2
    assert summary["raters"]["per_case"] == {"min": 3, "max": 3}
    union = slow.iou(joint.argmax(0) == 1, labels == 1), slow.iou(joint.argmax(0) == 2, labels == 2)
    assert summary["fine_grained"]["iou"]["per_dataset"] == pytest.approx(np.mean(union))
    names = {name.removeprefix("soft_") for name in (*PER_CLASS, *OVERALL)} - {"dice"}
    assert set(summary["definitions"]) >= names
    printed = capsys.readouterr().out
    assert f"{100 * summary['mean']['dice']:.2f}" in printed
    assert "fold 1" in printed


@pytest.mark.slow
def test_processes_and_json_change_nothing(eval_world, capsys):
    eval_world.run()
    one = eval_world.rows()
    capsys.readouterr()
    eval_world.run("--json", "--overwrite", processes="2")
    assert eval_world.rows() == one
    assert json.loads(capsys.readouterr().out) == eval_world.summary()


def test_what_is_printed(eval_world, capsys):
    def table(*more):
        eval_world.run(*more)
        lines = capsys.readouterr().out.splitlines()
        rows = lines[lines.index("") + 2 :]
        return [line.split("  ")[0] for line in rows[: rows.index("")]]

    assert table() == ["fold 0", "fold 1", "all", "core", "rim"]
    assert table("--by", "fold") == ["fold 0", "fold 1", "all"]
    assert table("--by", "class") == ["all", "core", "rim"]
    for by, shown in (("class", True), ("fold", False)):
        eval_world.run("--by", by)
        assert ("ECE of class" in capsys.readouterr().out) == shown
    source = ("--predictions", str(eval_world.model / "fold_0" / "validation"))
    eval_world.run("--by", "fold", source=source)
    assert "Note: a folder of predictions has no folds." in capsys.readouterr().out
    assert table("--by", "case") == ["a", "b", "c", "d", "all"]
    eval_world.run("--csv")
    assert capsys.readouterr().out == (eval_world.out / "cases.csv").read_text()
    with pytest.raises(SystemExit):
        eval_world.run("--csv", "--json")


def test_options_reach_the_figures(eval_world):
    eval_world.run()
    before = eval_world.summary()["mean"]
    eval_world.run("--bins", "3", "--thresholds", "0.5", "--boundary", "1")
    summary = eval_world.summary()
    assert summary["options"]["bins"] == 3
    assert summary["options"]["thresholds"] == [0.5]
    assert len(summary["reliability"]["voxels"]) == 3
    assert summary["mean"]["boundary_ece"] is None
    assert summary["mean"]["bdice"] != before["bdice"]
    assert summary["mean"]["dice"] == before["dice"]
    p, soft = eval_world.probs["a"][1], eval_world.soft("a")[1]
    assert float(eval_world.rows()[0]["bdice"]) == pytest.approx(slow.dice(p >= 0.5, soft >= 0.5))


def test_surfaces_on_request(environment, monkeypatch):
    world = World(environment, shape=(4, 6, 7), spacing=(1.0, 1.5, 2.0))
    given = []

    def distance(
        prediction, reference, **options
    ):  # the real ones are tested with the metrics; MONAI takes seconds
        given.append((prediction, reference, options))
        return 0.25 * len(given)

    monkeypatch.setattr(figures, "surface_dice", distance)
    monkeypatch.setattr(figures, "hausdorff_distance_95", distance)
    record = world.measure("a", surfaces=True, tolerance=0.5)
    assert record.per_class["core"]["surface_dice"] == 0.25
    assert record.per_class["rim"]["hd95_mm"] == 1
    for k, (prediction, reference, options) in enumerate(given):
        np.testing.assert_array_equal(prediction, world.probs["a"].argmax(0) == 1 + k // 2)
        np.testing.assert_array_equal(reference, world.consensus["a"] == 1 + k // 2)
        assert options == {"spacing": (2.0, 1.5, 1.0)} | ({} if k % 2 else {"tolerance": 0.5})
    world.run("--surfaces")
    assert float(world.rows()[0]["surface_dice"]) > 0
    assert world.summary()["options"]["tolerance"] == 1


def test_any_folder_of_predictions_and_a_model_by_path(eval_world):
    eval_world.run(source=("--model", str(eval_world.model)), dataset="Dataset007_Toy")
    eval_world.run(source=("--model", str(eval_world.model)), dataset="007_Toy")
    expected = [r for r in eval_world.rows() if r["fold"] == "0"]
    eval_world.run(source=("--predictions", str(eval_world.model / "fold_0" / "validation")))
    assert [{**r, "fold": "0"} for r in eval_world.rows()] == expected
    assert any("2 of 4 labelled cases have no prediction: c, d" in it for it in eval_world.summary()["notes"])
    assert sorted(it.stem for it in (eval_world.out / "cases").iterdir()) == ["a", "b"]


def test_cases_without_prediction_are_all_in_the_summary(eval_world, capsys):
    for case in "efghij":
        eval_world.write(eval_world.label(case), eval_world.consensus["a"])
    eval_world.run("--by", "class")
    said = "6 of 10 labelled cases have no prediction: e, f, g, h, i, … (6 in all)"
    assert f"Note: {said}." in capsys.readouterr().out
    assert eval_world.summary()["notes"] == [said]
    assert eval_world.summary()["not_predicted"] == [*"efghij"]
    page = eval_world.root / "report.html"
    assert main(["report", str(eval_world.out), "-o", str(page), "--resamples", "10"]) == 0
    assert f"{said}.</p>" in page.read_text(encoding="utf-8")


def test_references_of_test_cases(eval_world):
    eval_world.run()
    expected = eval_world.rows()
    tests = eval_world.raw / "labelsTs"
    tests.mkdir()
    for case in "bcd":
        eval_world.label(case).rename(tests / f"{case}.nii.gz")
    eval_world.write(tests / "e.nii.gz", eval_world.consensus["a"])
    image = eval_world.raw / "imagesTs" / "b_0000.nii.gz"
    eval_world.write(image, np.zeros((6, 7), np.uint8))
    eval_world.run()
    assert eval_world.rows() == expected
    notes = eval_world.summary()["notes"]
    assert notes == ["the reference of 3 cases is in labelsTs", "1 of 5 labelled cases have no prediction: e"]
    sources = json.loads((eval_world.out / "cases" / "b.json").read_text())["sources"]
    assert sources["images"] == [str(image)]


def test_a_folder_that_is_there_comes_before_a_name(eval_world, monkeypatch):
    monkeypatch.chdir(eval_world.root)
    eval_world.model.rename("calibrated")
    for name in ("calibrated/", "calibrated"):
        eval_world.run(source=("--model", name), dataset="7")
    assert eval_world.summary()["source"] == str(eval_world.root / "calibrated")


def test_png_labels_and_stored_half_precision(environment):
    world = World(environment, ending=".png")
    world.run()
    expected = world.summary()["mean"]
    assert expected["volume_ml"] is None  # pictures have no voxel size
    for i, (case, probs) in enumerate(world.probs.items()):
        world.write_npz(case, i // 2, probs.astype(np.float16))
    world.run()
    assert world.summary()["mean"]["ece"] == pytest.approx(expected["ece"], abs=5e-2)


def test_the_soft_reference_is_chosen(eval_world):
    rng = np.random.default_rng(1)
    maps = {case: np.moveaxis(rng.dirichlet(np.ones(3), (6, 7)), -1, 0).astype(np.float32) for case in "ab"}
    for case, soft in maps.items():
        write_image(
            eval_world.raw / "softlabelsTr" / f"{case}.nii.gz", np.moveaxis(soft[1:], 0, -1), vector=True
        )
    assert eval_world.measure("a").flags["soft_reference"] == "raters"
    record = eval_world.measure("a", reference="softlabels")
    assert record.sources.soft.endswith("softlabelsTr/a.nii.gz")
    bdice = slow.bdice_in_floats(eval_world.probs["a"], maps["a"])
    assert record.per_class["rim"]["bdice"] == pytest.approx(bdice[1])
    assert record.per_class["rim"]["rater_dice"] == eval_world.measure("a").per_class["rim"]["rater_dice"]
    hard = eval_world.measure("a", reference="labels")
    assert hard.overall["soft_ece"] == hard.overall["ece"]
    for case in "ab":
        for r in range(3):
            eval_world.rater(case, r).unlink()
    assert eval_world.measure("a").overall == pytest.approx(
        {it: value for it, value in record.overall.items() if it != "rater_ece"}
    )
    eval_world.run()
    reference = eval_world.summary()["raters"]["soft_reference"]
    assert reference == "the raters' uniform mean, and the maps in softlabelsTr for 2 cases without"
    problems = eval_world.refuses_again("--reference", "softlabels")
    assert ["softlabelsTr/c.nii.gz" in problems[0], "softlabelsTr/d.nii.gz" in problems[1]] == [True, True]
    problems = eval_world.refuses_again("--reference", "raters")
    assert len(problems) == 2
    assert "expected raters of a, found none" in problems[0]


def test_regions_by_the_command(environment, capsys):
    world = World(environment, labels=REGIONS)
    world.run()
    assert [r["class"] for r in world.rows()[:3]] == ["whole", "core", "all"]
    assert world.summary()["classes"] == ["whole", "core"]
    assert "whole" in capsys.readouterr().out


def test_cases_without_with_one_and_with_empty_raters_are_named(eval_world, capsys):
    for r in range(3):
        eval_world.rater("a", r).unlink()
    eval_world.rater("b", 1).unlink()
    eval_world.rater("b", 2).unlink()
    for r in range(3):
        write_image(eval_world.rater("c", r), np.zeros((6, 7), np.uint8))
    eval_world.run()
    raters = eval_world.summary()["raters"]
    assert raters["cases_without_raters"] == ["a"]
    assert raters["cases_with_one_rater"] == ["b"]
    assert raters["cases_all_empty"] == ["c"]
    assert raters["per_case"] == {"min": 0, "max": 3}
    assert raters["soft_reference"] == "the raters' uniform mean, and labelsTr as it is for 1 case without"
    assert eval_world.summary()["empty"]["volume_bias_undefined"] == 2
    row = next(r for r in eval_world.rows() if r["case"] == "c")
    assert row["volume_bias"] == "nan"
    printed = capsys.readouterr().out
    assert "without raters: 1 (a)" in printed
    assert "with one rater: 1 (b)" in printed
    assert "that every rater left empty: 1 (c)" in printed


def test_empty_against_empty_counts_one_and_is_counted(eval_world):
    background = np.zeros((3, 6, 7), np.float32)
    background[0] = 1
    eval_world.write_npz("a", 0, background)
    write_image(eval_world.label("a"), np.zeros((6, 7), np.uint8))
    eval_world.run()
    assert [float(r["dice"]) for r in eval_world.rows()[:2]] == [1.0, 1.0]
    empty = eval_world.summary()["empty"]
    assert empty["dice_decided_by_policy"] == 2
    assert empty["pairs_of_case_and_class"] == 8


def test_the_ignore_label_is_left_out_of_everything(environment):
    world = World(environment)
    world.run()
    before = world.rows()
    world.save(labels={**world.content["labels"], "ignore": 3})
    world.run()
    assert world.rows() == before
    labels = world.consensus["a"].copy()
    labels[:3] = 3
    write_image(world.label("a"), labels)
    world.run()
    row, probs, kept = world.rows()[0], world.probs["a"][:, 3:], world.consensus["a"][3:]
    assert float(row["dice"]) == pytest.approx(slow.dice(probs.argmax(0) == 1, kept == 1))
    assert float(row["bdice"]) == pytest.approx(slow.bdice_in_floats(probs, world.soft("a")[:, 3:])[0])
    assert float(world.rows()[2]["ece"]) == pytest.approx(slow.ece(probs, kept), abs=1e-6)
    assert world.summary()["ignored_voxels"] == 21


def test_a_rater_who_marks_ignore_abstains_there(eval_world):
    eval_world.save(labels={**eval_world.content["labels"], "ignore": 3})
    raters = [sitk.GetArrayFromImage(sitk.ReadImage(str(eval_world.rater("a", r)))) for r in range(3)]
    raters[0][2] = 3
    write_image(eval_world.rater("a", 0), raters[0])
    means = np.stack([(np.stack(raters) == c).mean(0) for c in range(3)])
    means[:, 2] = np.stack([(np.stack(raters[1:])[:, 2] == c).mean(0) for c in range(3)])
    bdice = eval_world.measure("a").per_class["core"]["bdice"]
    assert bdice == pytest.approx(slow.bdice_in_floats(eval_world.probs["a"], means)[0])
    for r in (1, 2):  # now nobody has labelled that row, and the consensus has
        raters[r][2] = 3
        write_image(eval_world.rater("a", r), raters[r])
    eval_world.refuses(
        "a.nii.gz: expected the ignore label wherever no rater gave a label, found 7 voxels without it"
    )


def test_inputs_are_not_changed(eval_world):
    def content():
        return {
            f: f.read_bytes()
            for f in sorted(eval_world.root.rglob("*"))
            if f.is_file() and eval_world.out not in f.parents
        }

    before = content()
    eval_world.run()
    assert content() == before
