"""The pictures of the best, median and worst case, and the arrays behind them."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunet_dml._checks import InputError
from nnunet_dml.evaluation.folder import read_evaluation
from nnunet_dml.evaluation.records import CaseRecord, Sources
from nnunet_dml.report.pictures import case_pictures, chosen_cases, rows_of
from nnunet_dml.report.volumes import Volumes, read_volumes
from tests.report.evaluation_world import Files, change_records, write_evaluation


def record(sources, case="x"):
    return CaseRecord(case, "0", sources, [1.0, 1.0, 1.0], {}, {}, {})


def write(array, path, spacing=None):
    image = sitk.GetImageFromArray(array, isVector=False)
    if spacing:
        image.SetSpacing(spacing)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return str(path)


def test_best_median_and_worst_and_ties_by_name(tmp_path):
    dice = {"d": 0.9, "a": 0.9, "c": 0.5, "b": 0.7, "e": None}
    write_evaluation(tmp_path / "x", names=list(dice))
    change_records(tmp_path / "x", lambda it: it["per_class"]["lesion"].update(dice=dice[it["case"]]))
    found = chosen_cases(read_evaluation(tmp_path / "x"))
    assert [(role, it.case, value) for role, it, value in found] == [
        ("Best", "a", 0.9),
        ("Median", "b", 0.7),
        ("Worst", "c", 0.5),
    ]
    write_evaluation(tmp_path / "one", cases=1)
    assert [role for role, _, _ in chosen_cases(read_evaluation(tmp_path / "one"))] == ["Best"]


def test_arrays_of_classes(tmp_path):
    labels = np.array([[[0, 1, 2, 2]]], np.uint8)
    probs = np.array([[0.7, 0.1, 0.2, 0.1], [0.2, 0.5, 0.5, 0.2], [0.1, 0.4, 0.3, 0.7]], np.float32)
    np.savez(tmp_path / "x.npz", probabilities=probs[:, None, None])
    reference = write(labels, tmp_path / "labelsTr" / "x.nii.gz")
    raters = {"ann": reference, "bob": write(np.minimum(labels, 1), tmp_path / "bob.nii.gz")}
    got = read_volumes(record(Sources(str(tmp_path / "x.npz"), reference, "", raters)), ["core", "rim"])
    np.testing.assert_array_equal(got.reference[:, 0, 0], [[0, 1, 0, 0], [0, 0, 1, 1]])
    np.testing.assert_allclose(got.soft[:, 0, 0], [[0, 1, 0.5, 0.5], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(got.probs[:, 0, 0], probs[1:])
    np.testing.assert_array_equal(got.prediction[:, 0, 0], [[0, 1, 1, 0], [0, 0, 0, 1]])
    assert got.image is None
    assert got.notes == ["The data set has no image of this case."]


def test_arrays_of_regions_and_of_probability_maps(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    content = {"labels": labels, "file_ending": ".nii.gz", "regions_class_order": [1, 2]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    reference = write(np.array([[[0, 1, 2]]], np.uint8), tmp_path / "labelsTr" / "x.nii.gz")
    probs = np.array([[0.1, 0.6, 0.9], [0.0, 0.55, 0.8]], np.float32)[:, None, None]
    np.savez(tmp_path / "x.npz", probabilities=probs)
    got = read_volumes(record(Sources(str(tmp_path / "x.npz"), reference)), ["whole", "core"])
    np.testing.assert_array_equal(got.reference[:, 0, 0], [[0, 1, 1], [0, 0, 1]])
    np.testing.assert_array_equal(got.prediction[:, 0, 0], [[0, 1, 1], [0, 1, 1]])
    assert (got.soft == got.reference).all()
    # a channel per foreground class, the background is the rest: no class reaches a half in the middle
    (tmp_path / "dataset.json").write_text(
        json.dumps({**content, "labels": {"background": 0, "whole": 1, "core": 2}})
    )
    maps = np.array([[0.1, 0.4, 0.1], [0.0, 0.35, 0.8]], np.float32)[:, None, None]
    got = read_volumes(record(Sources(write(maps, tmp_path / "maps.nii.gz"), reference)), ["whole", "core"])
    np.testing.assert_array_equal(got.prediction[:, 0, 0], [[0, 1, 0], [0, 0, 1]])


def test_regions_are_drawn_as_they_are_measured(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    content = {"labels": labels, "file_ending": ".nii.gz", "regions_class_order": [1, 2]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    reference = write(np.array([[[0, 1, 2]]], np.uint8), tmp_path / "labelsTr" / "x.nii.gz")
    probs = np.array([[0.9, 0.6, 0.2], [0.0, 0.1, 0.8]], np.float32)[:, None, None]
    np.savez(tmp_path / "x.npz", probabilities=probs)
    fractions = np.array([[0.1, 0.5, 0.25], [0.0, 0.25, 0.75]], np.float32)[
        :, None, None
    ]  # of the labels 1, 2
    soft = write(fractions, tmp_path / "softlabelsTr" / "x.nii.gz")
    got = read_volumes(record(Sources(str(tmp_path / "x.npz"), reference, soft)), ["whole", "core"])
    # a core without the whole around it is label 2, which belongs to both
    np.testing.assert_array_equal(got.prediction[:, 0, 0], [[1, 1, 1], [0, 0, 1]])
    np.testing.assert_allclose(got.soft[:, 0, 0], [[0.1, 0.75, 1], [0, 0.25, 0.75]])
    assert not [it for it in got.notes if "Soft" in it]


def test_a_rater_who_abstains_is_no_part_of_the_soft_reference(tmp_path):
    content = {"labels": {"background": 0, "lesion": 1, "ignore": 2}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    votes = np.array([[0, 1, 1, 2], [0, 0, 2, 2]], np.uint8)[:, None, None]
    files = {name: write(vote, tmp_path / f"{name}.nii.gz") for name, vote in zip("ab", votes, strict=True)}
    reference = write(votes[0], tmp_path / "labelsTr" / "x.nii.gz")
    p = np.full((1, 1, 4), 0.3, np.float32)
    np.savez(tmp_path / "x.npz", probabilities=np.stack([1 - p, p]))
    got = read_volumes(record(Sources(str(tmp_path / "x.npz"), reference, "", files)), ["lesion"])
    np.testing.assert_allclose(got.soft[0, 0, 0], [0, 0.5, 1, 0])


def test_two_dimensions_and_colours(tmp_path):
    reference = write(np.eye(4, dtype=np.uint8), tmp_path / "labelsTr" / "x.png")
    image = sitk.GetImageFromArray(np.zeros((4, 4, 3), np.uint8), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "x_0000.png"))
    p = np.full((1, 4, 4), 0.3, np.float32)
    np.savez(tmp_path / "x.npz", probabilities=np.stack([1 - p, p]))
    sources = Sources(str(tmp_path / "x.npz"), reference, "", {}, [str(tmp_path / "x_0000.png")])
    got = read_volumes(record(sources), ["lesion"])
    assert got.image.shape == (1, 4, 4, 3)
    (row,) = rows_of(got, ["lesion"], [1.0, 1.0, 1.0])
    assert row.title == "lesion"
    assert row.panels[0].png().startswith(b"\x89PNG")


def test_what_is_gone_is_said(tmp_path):
    files = Files(tmp_path / "files", shape=(8, 9))
    sources = files("x")
    for gone in (sources.raters["rater2"], sources.images[0]):
        (tmp_path / gone).unlink()
    got = read_volumes(record(sources), ["lesion"])
    assert list(got.raters) == ["rater0", "rater1"]
    assert [note.split(":")[0] for note in got.notes] == ["Rater rater2", "Image"]
    (tmp_path / sources.prediction).unlink()
    with pytest.raises(InputError, match=r"x\.npz: expected a file of probabilities, found none"):
        read_volumes(record(sources), ["lesion"])
    write_evaluation(tmp_path / "evaluation", cases=2)  # whose files never were
    best, worst = case_pictures(read_evaluation(tmp_path / "evaluation"))
    assert best.rows == worst.rows == []
    assert "/gone/r.nii.gz" in best.notes[0]


def test_shapes_that_differ_are_named(tmp_path):
    sources = Files(tmp_path / "files", shape=(8, 9))("x")
    np.savez(sources.prediction, probabilities=np.zeros((2, 1, 9, 8), np.float32))
    with pytest.raises(
        InputError, match=r"x\.npz: expected shape \(1, 1, 8, 9\) of the reference, found \(2, 1, 9, 8\)"
    ):
        read_volumes(record(sources), ["lesion"])


def volumes(soft, prediction, reference):
    soft = np.asarray(soft, np.float32)[None]
    return Volumes(None, {}, reference[None], soft, prediction[None].astype(np.float32), prediction[None], [])


def test_the_slice_with_most_disputed_or_wrong_voxels():
    reference = np.zeros((5, 6, 7), bool)
    reference[1:4, 1:4, 1:4] = True
    soft, prediction = reference.astype(float), reference.copy()
    soft[2, 1, 1:3] = 0.5  # two disputed in slice 2
    prediction[3, 1, 1:4] = False  # three wrong in slice 3
    (row,) = rows_of(volumes(soft, prediction, reference), ["lesion"], [5.0, 1.0, 1.0])
    assert row.title == "lesion, slice z = 3"
    (row,) = rows_of(volumes(soft, prediction, reference), ["lesion"], [1.0, 1.0, 5.0])
    assert (
        row.title == "lesion, slice x = 2"
    )  # 1 and 1 there and at x = 1; z = 3's third is at x = 3; of equals the last
    assert rows_of(volumes(soft * 0, prediction & False, reference & False), ["lesion"], [1.0] * 3) == []


def test_a_picture_shows_error_in_colour(tmp_path):
    reference = np.zeros((1, 20, 20), bool)
    reference[0, 5:15, 5:15] = True
    prediction = np.roll(reference, 3, axis=2)
    (row,) = rows_of(volumes(reference, prediction, reference), ["lesion"], [1.0, 1.0, 1.0])
    path = tmp_path / "error.png"
    path.write_bytes(row.panels[3].png())
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    too_much = (pixels[..., 0] > pixels[..., 2] + 60).mean()
    too_little = (pixels[..., 2] > pixels[..., 0] + 60).mean()
    # 3 × 10 voxels each, of a window of 19 × 16
    np.testing.assert_allclose([too_much, too_little], 30 / (19 * 16), rtol=0.2)
    assert "-1.00 (too little) to +1.00 (too much)" in row.panels[3].description
