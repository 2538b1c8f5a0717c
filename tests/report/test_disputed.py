"""Pictures of what raters dispute."""

import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_dml._checks import InputError
from nnunet_dml._images import Grid
from nnunet_dml.evaluation.rater_masks import CaseMasks, Classes, of_dataset
from nnunet_dml.report.disputed import draw, draw_case, draw_cases, find_panels
from tests.evaluation.rater_world import RaterWorld, write_image

TWO = Classes((0, 1, 2), {"core": (1,), "rim": (2,)})


def case_masks(labels, voted=None, spacing=None):
    shape = labels.shape[1:]
    spacing = spacing or (1.0,) * len(shape)
    return CaseMasks(labels, voted, Grid(shape[::-1], spacing, (0.0,) * len(shape), ()))


def pixels(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def volume():
    """Two raters who dispute the core in slice z = 2 most, the rim in z = 4 only."""
    labels = np.zeros((2, 6, 30, 30), np.uint8)
    labels[:, 1:5, 10:20, 10:16] = 1
    labels[1, 2, 10:20, 14:16] = 0
    labels[0, 3, 10, 10] = 0
    labels[:, 4, 22:26, 4:8] = 2
    labels[0, 4, 22, 4] = 0
    return labels


def test_the_most_disputed_slice_of_each_class_the_most_disputed_class_first():
    image = np.arange(6)[:, None, None] * np.ones((6, 30, 30))
    backwards = Classes((0, 1, 2), {"rim": (2,), "core": (1,)})
    core, rim = find_panels(case_masks(volume()), backwards, image)
    assert (core.title, rim.title) == ("core, z = 2", "rim, z = 4")
    assert (core.image == 2).all()
    assert (rim.image == 4).all()
    # 10 × 6 voxels and a margin of 3 on each side; core in both: 60 and 40
    assert core.masks.shape == (2, 16, 12)
    assert core.image.shape == (16, 12)
    assert core.masks.sum(axis=(1, 2)).tolist() == [60, 40]
    assert core.masks[0, 3:-3, 3:-3].all()
    assert not core.upright


def test_slices_are_taken_across_the_widest_spacing():
    labels = np.moveaxis(volume(), 1, 2)  # (R, y, z, x) of before
    (panel, _) = find_panels(case_masks(labels, spacing=(1.0, 5.0, 2.0)), TWO, None)  # x, y, z
    assert panel.title == "core, y = 2"
    assert panel.masks.sum(axis=(1, 2)).tolist() == [60, 40]
    assert panel.aspect == 2  # rows are z, columns x
    assert panel.upright
    assert panel.image is None


def test_where_a_rater_abstains_he_disputes_nothing():
    labels = np.zeros((2, 9, 9), np.uint8)
    labels[0, 2:5, 2:5] = 1
    voted = np.ones(labels.shape, bool)
    voted[1, 2:5, 2:5] = False
    assert find_panels(case_masks(labels, voted), TWO, None) == []
    voted[1, 2, 2] = True
    assert len(find_panels(case_masks(labels, voted), TWO, None)) == 1


def test_panels_stop_at_the_image_border_and_at_four_classes():
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[0] = np.arange(64).reshape(8, 8) % 7
    classes = Classes(tuple(range(7)), {str(k): (k,) for k in range(1, 7)})
    panels = find_panels(case_masks(labels), classes, None)
    assert len(panels) == 4
    assert all(panel.masks.shape == (2, 8, 8) for panel in panels)


def test_every_contour_and_the_share_of_the_raters_are_drawn():
    (core, rim) = find_panels(case_masks(volume()), TWO, None)
    figure = draw("a case", ["ann", "bob"], [core, rim])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ann", "bob"]
    axes = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in axes] == [
        "core, z = 2",
        "share of the raters",
        "rim, z = 4",
        "share of the raters",
    ]
    assert len(axes[0].collections) == 2
    shown = np.asarray(axes[1].images[0].get_array())
    np.testing.assert_array_equal(shown, core.masks.mean(axis=0))
    # contours run half a pixel around the masks: 6 and 4 columns, 10 rows, behind a margin of 3
    for drawn, right in zip(axes[0].collections, (8.5, 6.5), strict=True):
        np.testing.assert_allclose(drawn.get_paths()[0].get_extents().extents, [2.5, 2.5, right, 12.5])
    colours = {tuple(lines.get_edgecolor()[0]) for lines in axes[0].collections}
    handles = {tuple(line.get_color()) for line in figure.legends[0].get_lines()}
    assert colours == handles
    assert len(colours) == 2


def test_twelve_raters_have_twelve_colours():
    labels = np.zeros((12, 20, 20), np.uint8)
    for r in range(12):
        labels[r, 4 : 8 + r, 4:9] = 1
    figure = draw("x", [f"rater{r}" for r in range(12)], find_panels(case_masks(labels), TWO, None))
    assert len({tuple(line.get_color()) for line in figure.legends[0].get_lines()}) == 12


@pytest.mark.parametrize(
    ("shape", "ending"), [((20, 30), ".nii.gz"), ((20, 30), ".png"), ((4, 20, 20), ".nii.gz")]
)
def test_a_case_on_disk(tmp_path, shape, ending):
    world = RaterWorld(tmp_path, shape=shape, ending=ending)
    raters = of_dataset(world.folder)
    draw_cases(raters.cases[:2], raters.classes, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["a.png", "b.png"]
    drawn = pixels(tmp_path / "a.png")
    assert drawn.shape[1] == 1380
    assert drawn.std() > 10


def test_colour_images_and_flat_ones(tmp_path):
    world = RaterWorld(tmp_path, shape=(20, 30), ending=".png")
    colour = sitk.GetImageFromArray(
        np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8), isVector=True
    )
    sitk.WriteImage(colour, str(world.image("a")))
    write_image(world.image("b"), np.full((20, 30), 7, np.uint8))
    raters = of_dataset(world.folder)
    draw_cases(raters.cases[:2], raters.classes, tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_nothing_is_drawn_where_nothing_is_disputed(tmp_path):
    world = RaterWorld(tmp_path)
    for r in range(3):
        world.write_mask("a", r, world.votes["a"][0])
    raters = of_dataset(world.folder)
    assert draw_case(raters.cases[0], raters.classes, tmp_path) is None
    assert not list(tmp_path.glob("*.png"))


def test_bad_images_are_listed_and_no_half_picture_is_left(tmp_path):
    world = RaterWorld(tmp_path)
    world.image("a").unlink()
    write_image(world.image("b"), np.zeros((9, 9), np.uint8))
    raters = of_dataset(world.folder)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError) as caught:
        draw_cases(raters.cases[:2], raters.classes, tmp_path / "out")
    first, second = caught.value.problems
    assert first.startswith(f"{world.image('a')}: expected a readable nii.gz file, found no file.")
    assert first.endswith("--pictures none.")
    assert second.startswith(f"{world.image('b')}: expected size (7, 6)")
    assert not list((tmp_path / "out").iterdir())


def test_the_room_needs_neither_torch_nor_nnunet():
    code = "import sys, nnunet_dml.report.disputed; print(sorted({'torch', 'nnunetv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
