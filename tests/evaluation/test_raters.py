"""From masks of raters on disk to records, tables and the summary."""

import json
import math

import numpy as np
import pytest

from nnunet_dml._checks import InputError
from nnunet_dml.evaluation import rater_masks, rater_summary
from nnunet_dml.evaluation.raters import measure, most_disputed, tables
from tests.evaluation.rater_world import RaterWorld, write_image
from tests.reference import agreement as slow


@pytest.fixture
def world(tmp_path):
    return RaterWorld(tmp_path)


def measured(folder):
    raters = rater_masks.of_dataset(folder)
    records = measure(raters)
    found = tables(records, list(raters.classes.members))
    return records, found, rater_summary.summarise(raters, records, found)


def refused(call, *parts):
    """One line per problem, each part in one of them."""
    with pytest.raises(InputError) as caught:
        call()
    problems = caught.value.problems
    assert all("\n" not in line for line in problems)
    for part in parts:
        assert any(str(part) in line for line in problems), (part, problems)
    return problems


def check_against_slow(found, case, name, votes, members):
    raters = [[None if v is None else int(v) for v in row] for row in votes]
    wanted = slow.agreement(raters, members)
    (row,) = found.cases[(found.cases["case"] == case) & (found.cases["class"] == name)].to_dict("records")
    rows = found.raters[(found.raters["case"] == case) & (found.raters["class"] == name)]
    pairs = found.pairs[(found.pairs["case"] == case) & (found.pairs["class"] == name)]
    matrix = np.array(wanted["dice_pairs"], dtype=float)
    upper = matrix[np.triu_indices(len(raters), 1)]
    np.testing.assert_allclose(rows["dice_majority"], wanted["dice_majority"])
    np.testing.assert_allclose(rows["dice_others"], wanted["dice_others"])
    np.testing.assert_allclose(rows["dice_pairs"], (matrix.sum(1) - 1) / (len(raters) - 1))
    np.testing.assert_allclose(pairs["dice"], upper)
    assert rows["voxels"].tolist() == wanted["sizes"]
    bias = np.array(wanted["sizes"]) / wanted["majority_size"] - 1
    np.testing.assert_allclose(rows["volume_bias"], bias, atol=1e-12)
    expected = {
        "raters": len(raters),
        "dice_majority": np.mean(wanted["dice_majority"]),
        "dice_others": np.mean(wanted["dice_others"]),
        "dice_pairs": upper.mean(),
        "kappa": wanted["kappa"],
        "voxels": wanted["voxels"],
        "union_voxels": wanted["union"],
        "disputed_voxels": wanted["disputed"],
        "disputed_of_all": wanted["disputed"] / wanted["voxels"],
        "disputed_of_union": wanted["disputed"] / wanted["union"],
        "tied_voxels": wanted["tied"],
        "majority_voxels": wanted["majority_size"],
        "raters_mean_voxels": np.mean(wanted["sizes"]),
    }
    assert {key: row[key] for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(6, 7), (3, 5, 4)])
def test_every_figure_equals_the_slow_version(tmp_path, shape):
    world = RaterWorld(tmp_path, shape=shape)
    _, found, _ = measured(world.folder)
    assert len(found.cases) == 4 * 2
    assert len(found.raters) == len(found.pairs) == 4 * 2 * 3
    for case, votes in world.votes.items():
        for name, members in (("core", (1,)), ("rim", (2,))):
            check_against_slow(found, case, name, votes.reshape(3, -1), members)


def test_regions_have_rows_by_their_names(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    world = RaterWorld(tmp_path, labels=labels)
    world.save(regions_class_order=[1, 2])
    _, found, summary = measured(world.folder)
    for case, votes in world.votes.items():
        check_against_slow(found, case, "whole", votes.reshape(3, -1), (1, 2))
        check_against_slow(found, case, "core", votes.reshape(3, -1), (2,))
    assert summary["classes"] == {"whole": [1, 2], "core": [2]}


def test_labels_with_a_gap_and_an_ignore_label_where_raters_abstain(tmp_path):
    labels = {"background": 0, "core": 1, "rim": [3], "ignore": 7}
    world = RaterWorld(tmp_path, labels=labels, values=(0, 1, 3, 7))
    _, found, summary = measured(world.folder)
    for case, votes in world.votes.items():
        rows = np.where(votes == 7, None, votes.astype(object)).reshape(3, -1)
        check_against_slow(found, case, "core", rows, (1,))
        check_against_slow(found, case, "rim", rows, (3,))
    assert summary["ignore_label"] == 7


def test_volumes_follow_the_voxel_size(tmp_path):
    world = RaterWorld(tmp_path, shape=(3, 5, 4), spacing=(0.5, 2.0, 3.0))
    _, found, summary = measured(world.folder)
    np.testing.assert_allclose(found.raters["volume_ml"], found.raters["voxels"] * 0.003)
    np.testing.assert_allclose(found.cases["majority_ml"], found.cases["majority_voxels"] * 0.003)
    core = found.raters[(found.raters["class"] == "core") & (found.raters["rater"] == "rater1")]
    assert summary["per_class"]["core"]["per_rater"]["rater1"]["volume_ml"] == pytest.approx(
        core["volume_ml"].mean()
    )


def test_flat_files_have_no_volume(world):
    _, found, summary = measured(world.folder)
    assert found.raters["volume_ml"].isna().all()
    assert summary["per_class"]["core"]["per_rater"]["rater0"]["volume_ml"] is None


def test_means_are_over_raters_then_cases_then_classes(world):
    world.mask("b", 2).unlink()  # two raters there, three elsewhere
    _, found, summary = measured(world.folder)
    means = []
    for name in ("core", "rim"):
        rows = found.raters[found.raters["class"] == name]
        means.append(np.mean([np.mean(rows[rows["case"] == case]["dice_majority"]) for case in "abcd"]))
        own = summary["per_class"][name]
        assert own["dice_majority"] == pytest.approx(means[-1])
        last = rows[rows["rater"] == "rater2"]["dice_majority"]
        assert own["per_rater"]["rater2"]["cases"] == 3
        assert own["per_rater"]["rater2"]["dice_majority"] == pytest.approx(last.mean())
        assert own["per_rater"]["rater2"]["lowest_dice_majority"] == pytest.approx(last.min())
        cases = found.cases[found.cases["class"] == name]
        assert own["disputed_of_all_pooled"] == pytest.approx(cases["disputed_voxels"].sum() / (4 * 42))
        sizes = [
            np.mean([(v == (1 if name == "core" else 2)).sum() for v in votes])
            for votes in world.votes.values()
        ]
        sizes[1] = np.mean([(v == (1 if name == "core" else 2)).sum() for v in world.votes["b"][:2]])
        assert own["volume_ratio_pooled"] == pytest.approx(sum(sizes) / cases["majority_voxels"].sum())
    assert summary["mean"]["dice_majority"] == pytest.approx(np.mean(means))
    assert summary["raters_per_case"] == {"2": 1, "3": 3}


def test_a_class_that_is_nowhere_is_decided_by_the_policy_and_counted(world):
    for case, votes in world.votes.items():
        for r in range(3):
            world.write_mask(case, r, np.minimum(votes[r], 1))
    _, _, summary = measured(world.folder)
    rim = summary["per_class"]["rim"]
    assert (rim["dice_majority"], rim["kappa"], rim["volume_ratio_pooled"]) == (1, None, None)
    assert rim["disputed_of_union_pooled"] is None
    assert summary["empty"] == {
        "dice_majority_values": 24,
        "dice_majority_decided_by_policy": 12,
        "kappa_values": 8,
        "kappa_undefined": 4,
    }
    json.dumps(summary, allow_nan=False)
    assert "undefined" in rater_summary.table(summary)


def test_cases_with_one_rater_or_none_are_named(world):
    world.mask("a", 1).unlink()
    world.mask("a", 2).unlink()
    for r in range(3):
        world.mask("c", r).unlink()
    records, _, summary = measured(world.folder)
    assert [record.case for record in records] == ["b", "d"]
    assert (summary["cases"], summary["compared"]) == (4, 2)
    assert summary["cases_with_one_rater"] == ["a"]
    assert summary["cases_without_raters"] == ["c"]
    text = rater_summary.table(summary)
    assert "without raters, left out of everything: 1 (c)" in text
    assert "with one rater, left out of everything: 1 (a)" in text


def test_raters_with_the_same_masks_are_named(world):
    for case, votes in world.votes.items():
        world.write_mask(case, 2, votes[0])
    _, _, summary = measured(world.folder)
    assert summary["identical_raters"] == [["rater0", "rater2"]]
    assert "rater0 and rater2 gave the same masks" in rater_summary.table(summary)
    world.write_mask("d", 2, world.votes["d"][1])
    assert measured(world.folder)[2]["identical_raters"] == []


def test_raters_who_gave_nothing_are_not_called_copies(world):
    for case in "abcd":
        for r in (0, 1):
            world.write_mask(case, r, np.zeros(world.shape, np.uint8))
    assert measured(world.folder)[2]["identical_raters"] == []


def test_the_most_disputed_come_first_and_those_without_dispute_never(world):
    for case, moved in (("a", 1), ("b", 0), ("c", 3), ("d", 2)):  # rater 2 leaves some voxels of ten out
        mask = np.zeros((6, 7), np.uint8)
        mask.flat[:10] = 1
        for r in range(2):
            world.write_mask(case, r, mask)
        mask.flat[:moved] = 0
        world.write_mask(case, 2, mask)
    records, _, _ = measured(world.folder)
    assert {record.case: record.dispute for record in records} == {"a": 0.1, "b": 0, "c": 0.3, "d": 0.2}
    assert most_disputed(records, 2) == ["c", "d"]
    assert most_disputed(records, 99) == ["c", "d", "a"]


@pytest.mark.slow
def test_two_processes_give_the_same(world):
    raters = rater_masks.of_dataset(world.folder)
    one, two = (tables(measure(raters, processes=n), ["core", "rim"]) for n in (1, 2))
    assert one.cases.equals(two.cases)
    assert one.pairs.equals(two.pairs)


def test_a_folder_without_a_dataset(tmp_path):
    rng = np.random.default_rng(0)
    for case, values in (("x", (0, 255)), ("y", (0, 3))):
        for rater in ("ann", "bob"):
            write_image(tmp_path / "m" / case / f"{rater}.png", rng.choice(values, (5, 5)).astype(np.uint8))
    (tmp_path / "m" / "x" / "notes.txt").write_text("no mask")
    (tmp_path / "m" / ".hidden").mkdir()
    (tmp_path / "m" / "empty").mkdir()
    raters = rater_masks.of_folder(tmp_path / "m")
    assert raters.classes.members == {"label 3": (3,), "label 255": (255,)}
    assert raters.classes.values == (0, 3, 255)
    assert [(case.name, list(case.masks), case.image) for case in raters.cases] == [
        ("empty", [], None),
        ("x", ["ann", "bob"], None),
        ("y", ["ann", "bob"], None),
    ]
    (first, second) = measure(raters)
    assert first.classes[1].sizes.sum() > 0
    assert first.classes[0].sizes.sum() == second.classes[1].sizes.sum() == 0
    assert math.isnan(first.voxel_ml)


def test_a_folder_that_cannot_be_used(tmp_path):
    refused(lambda: rater_masks.of_folder(tmp_path / "no"), "expected a folder of masks", "found no folder")
    write_image(tmp_path / "m" / "x" / "ann.png", np.ones((4, 4), np.uint8))
    refused(lambda: rater_masks.of_folder(tmp_path / "m"), "1 cases, 1 of them with one rater")
    write_image(tmp_path / "m" / "x" / "bob.png", np.zeros((4, 4), np.uint8))
    write_image(tmp_path / "m" / "x" / "bob.nrrd", np.zeros((4, 4), np.uint8))
    refused(
        lambda: rater_masks.of_folder(tmp_path / "m"), "one mask of rater bob, found bob.nrrd and bob.png"
    )
    (tmp_path / "m" / "x" / "bob.nrrd").unlink()
    write_image(tmp_path / "m" / "x" / "ann.png", np.zeros((4, 4), np.uint8))
    refused(lambda: rater_masks.of_folder(tmp_path / "m"), "masks with labels besides 0, found none")
    write_image(tmp_path / "m" / "x" / "cem.nrrd", np.full((4, 4), -1, np.int16))
    refused(lambda: rater_masks.of_folder(tmp_path / "m"), "labels of at least 0, found -1")


def test_every_problem_of_every_case_is_listed(world):
    world.write_mask("a", 0, np.zeros((6, 8), np.uint8))
    world.write_mask("a", 2, np.full((6, 7), 9, np.uint8))
    path = world.mask("b", 1)
    path.write_bytes(path.read_bytes()[:40])
    world.write(world.mask("c", 0), np.full((6, 7), 0.5, np.float32))
    write_image(world.mask("d", 1), world.votes["d"][1], spacing=(1, 2))
    problems = refused(
        lambda: measured(world.folder),
        f"{world.mask('a', 1)}: expected size (8, 6) of {world.mask('a', 0)}",
        f"{path}: expected",
        f"{world.mask('c', 0)}: expected whole numbers as labels",
        f"{world.mask('d', 1)}: expected spacing (1, 1)",
    )
    assert len(problems) == 5


def test_an_unknown_label_is_refused(world):
    world.write_mask("a", 2, np.full((6, 7), 9, np.uint8))
    refused(lambda: measured(world.folder), f"{world.mask('a', 2)}: expected the labels 0, 1, 2, found 9")


def test_masks_of_four_axes_are_refused(tmp_path):
    world = RaterWorld(tmp_path, shape=(2, 2, 3, 3), ending=".nrrd")
    refused(lambda: measured(world.folder), "expected masks in 2D or 3D, found 4 axes")


def test_lost_raters_and_other_endings_are_refused(world):
    listed = {case: {"raters": ["rater0", "rater1", "rater2"]} for case in "abcd"}
    world.save(nnunet_dml={"cases": listed})
    assert len(measured(world.folder)[0]) == 4
    world.mask("a", 1).unlink()
    write_image(world.folder / "ratersTr" / "b" / "rater9.nrrd", world.votes["b"][0])
    refused(
        lambda: measured(world.folder),
        "expected the raters rater0, rater1, rater2 that dataset.json lists for a",
        "ratersTr/b: expected masks that end in .nii.gz, found rater9.nrrd",
    )


@pytest.mark.parametrize(
    "labels",
    [
        None,
        {"core": 1},
        {"background": 0},
        {"background": 0, "core": "1"},
        {"background": 0, "core": True},
        {"background": 0, "core": []},
        {"background": 0, "core": 1, "ignore": 1},
        {"background": 0, "core": 2, "ignore": 1},
        {"background": 1, "core": 2},
    ],
)
def test_labels_that_make_no_sense_are_refused(world, labels):
    world.save(labels=labels)
    refused(lambda: rater_masks.of_dataset(world.folder), f"{world.folder / 'dataset.json'}: expected")


def test_a_file_ending_that_nnunet_does_not_know(world):
    world.save(file_ending=".jpg")
    refused(lambda: rater_masks.of_dataset(world.folder), "as `file_ending`, found '.jpg'")
