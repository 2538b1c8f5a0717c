"""Probabilities and soft maps in image files."""

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml._checks import InputError
from nnunet_dml.evaluation.predictions import of_folder
from nnunet_dml.evaluation.probability_files import read_fractions, read_probabilities
from tests.evaluation.evaluation_world import LABELS, REGIONS, World, write_image


def write_map(path, fractions, *, spacing=1.0, step=None):
    """Foreground channels `(C, *spatial)`, one without an axis of its own; as integers with a scale where asked."""
    array = fractions[0] if len(fractions) == 1 else fractions
    if step is None:
        write_image(path, array.astype(np.float32), spacing=spacing)
        return
    write_image(
        path, np.rint(array / step).astype(np.uint8 if step == 1 / 255 else np.uint16), spacing=spacing
    )
    image = sitk.ReadImage(str(path))
    plain = path.with_name("plain.nii")
    sitk.WriteImage(image, str(plain))
    content = bytearray(plain.read_bytes())
    content[112:116] = np.float32(step).tobytes()  # scl_slope
    plain.unlink()
    path.unlink()
    path.with_suffix("").with_suffix(".nii").write_bytes(content)


@pytest.fixture
def solid(environment):
    return World(environment, shape=(3, 5, 4))


def same_record(found, wanted, tolerance=1e-5):
    assert found.overall == pytest.approx(wanted.overall, abs=tolerance, nan_ok=True)
    for name, values in wanted.per_class.items():
        assert found.per_class[name] == pytest.approx(values, abs=tolerance, nan_ok=True)


@pytest.mark.parametrize("shape", [(3, 5, 4), (6, 7)])
@pytest.mark.parametrize(
    "labels", [LABELS, {"background": 0, "core": 1}, REGIONS], ids=["three", "two", "regions"]
)
def test_maps_equal_npz(environment, shape, labels):
    world = World(environment, shape=shape, labels=labels)
    probs = world.probs["a"]
    if len(labels) == 2:
        probs = np.stack([probs[0] + probs[1], probs[2]])
        world.write_npz("a", 0, probs)
        world.write(world.label("a"), np.minimum(world.consensus["a"], 1))
        for r in range(3):
            world.write(world.rater("a", r), np.minimum(world.votes["a"][r], 1))
    path = world.root / "maps" / "a.nii.gz"
    write_map(path, probs if labels is REGIONS else probs[1:])
    same_record(world.measure("a", path=path), world.measure("a"))


def test_components_are_channels(solid):
    path = solid.root / "maps" / "a.nii.gz"
    write_image(path, np.moveaxis(solid.probs["a"][1:], 0, -1), vector=True)
    same_record(solid.measure("a", path=path), solid.measure("a"))


@pytest.mark.parametrize("step", [1 / 255, 1 / 65535])
def test_integers_with_a_scale_are_fractions(solid, step):
    probs = solid.probs["a"].copy()
    probs[:, 0, 0, 0] = 0, 0.5, 0.5  # both are rounded up
    path = solid.root / "maps" / "a.nii"
    write_map(path.with_suffix(".nii.gz"), probs[1:], step=step)
    found = read_probabilities(path, num_classes=3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, probs, atol=2 * step)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)
    assert found.min() >= 0
    assert [it.path.name for it in of_folder(path.parent).cases] == ["a.nii"]


def bad(world, write, *parts):
    path = world.root / "maps" / "a.nii.gz"
    write(path)
    with pytest.raises(InputError) as caught:
        world.measure("a", path=path)
    (line,) = caught.value.problems
    for part in parts:
        assert part in line


def test_bad_maps(solid):
    fractions = solid.probs["a"][1:]
    where = "maps/a.nii.gz: expected "
    bad(solid, lambda it: write_map(it, fractions[:1]), where + "2 channels of shape (3, 5, 4)", "found 1 of")
    other = np.zeros((2, 3, 5, 5))
    bad(solid, lambda it: write_map(it, other), where + "2 channels of shape (3, 5, 4)", "found 2 of")
    bad(solid, lambda it: write_map(it, fractions, spacing=2.0), where + "spacing (1, 1, 1) of")
    bad(solid, lambda it: write_map(it, 20 * fractions - 9), where + "probabilities in [0, 1], found logits")
    bad(solid, lambda it: write_map(it, fractions * 255), "by values up to 2", "scl_slope")
    whole = solid.probs["a"]
    bad(
        solid,
        lambda it: write_map(it, whole),
        where + "2 channels",
        "found 3 of",
        "The background is left out.",
    )
    bad(solid, lambda it: write_map(it, np.ones((2, 3, 5, 4)) * 0.6), "sum to at most 1", "a sum of 1.2")
    nothing = np.where(np.arange(4) == 1, np.nan, fractions)
    beyond = "found 30 values that are NaN, infinite or beyond 32-bit floats"
    for values in (nothing, np.where(np.arange(4) == 1, -np.inf, fractions)):
        bad(solid, lambda it, values=values: write_map(it, values), f"fractions in [0, 1], {beyond}")
    doubles = np.where(np.arange(4) == 1, 1e300, fractions.astype(np.float64))
    bad(solid, lambda it: write_image(it, doubles), f"fractions in [0, 1], {beyond}")
    bad(solid, lambda it: write_image(it, np.ones((2, 3, 5, 4), np.uint8)), "found whole numbers (uint8)")
    bad(solid, lambda it: it.write_bytes(b""), where + "a readable nii.gz file, found an empty file")
    write_map(solid.root / "maps" / "a.nii.gz", fractions)
    half = (solid.root / "maps" / "a.nii.gz").read_bytes()[:200]
    bad(solid, lambda it: it.write_bytes(half), where + "a whole nii.gz file")


def test_a_map_without_a_reference(solid):
    path = solid.root / "b.nii.gz"
    write_map(path, solid.probs["a"][1:])
    np.testing.assert_allclose(read_fractions(path, channels=2), solid.probs["a"], atol=1e-6)
    with pytest.raises(InputError, match="expected 1 channels, found 2"):
        read_fractions(path, channels=1)


def test_folders_of_maps_and_of_segmentations(solid):
    folder = solid.root / "predicted"
    for case in "ab":
        write_map(folder / f"{case}.nii.gz", solid.probs[case][1:])
    np.savez(folder / "c.npz", probabilities=solid.probs["c"])
    write_image(folder / "c.nii.gz", solid.consensus["c"])  # nnU-Net's own segmentation
    (folder / "plans.json").write_text("{}")
    found = of_folder(folder)
    assert [(it.case, it.path.name) for it in found.cases] == [
        ("a", "a.nii.gz"),
        ("b", "b.nii.gz"),
        ("c", "c.npz"),
    ]
    np.savez(folder / "a.npz", probabilities=solid.probs["a"])
    write_map(folder / "b.nrrd", solid.probs["b"][1:])
    with pytest.raises(InputError) as caught:
        of_folder(folder)
    first, second = caught.value.problems
    assert first.endswith("a: expected one file of probabilities per case, found a.npz and a.nii.gz.")
    assert "b.nii.gz and b.nrrd" in second


def test_a_folder_of_nothing_but_segmentations(solid):
    with pytest.raises(InputError, match=r"found 4 segmentations\. Predict with `nnUNetv2_predict"):
        of_folder(solid.raw / "labelsTr")
    (solid.raw / "labelsTr" / "probabilities").mkdir()
    with pytest.raises(InputError, match=r"found 4 segmentations\. Give .*labelsTr/probabilities\.$"):
        of_folder(solid.raw / "labelsTr")


def test_a_damaged_map_is_named_when_it_is_read(solid):
    folder = solid.root / "predicted"
    folder.mkdir()
    (folder / "a.nii.gz").write_bytes(b"nothing")
    (prediction,) = of_folder(folder).cases
    with pytest.raises(InputError, match=r"a\.nii\.gz: expected a readable nii\.gz file"):
        read_probabilities(prediction.path, num_classes=3)
