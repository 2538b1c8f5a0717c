import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_dml.metrics import hausdorff_distance_95, surface_dice
from tests.reference import metrics as slow


def square(shape=(12, 12), corner=(3, 3), size=(4, 5)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = True
    return mask


def test_a_square_moved_by_hand():
    first, second = square(), square(corner=(5, 3))  # 2 rows on, 3 mm each
    assert hausdorff_distance_95(first, second, spacing=(3, 1)) == 6
    assert hausdorff_distance_95(first, second, spacing=(1, 3)) == 2
    assert surface_dice(first, second, spacing=(3, 1), tolerance=6) == 1
    assert surface_dice(first, second, spacing=(3, 1), tolerance=5.9) < 1
    assert surface_dice(first, first, spacing=(3, 1), tolerance=0) == 1
    assert hausdorff_distance_95(first, first, spacing=(3, 1)) == 0


@pytest.mark.parametrize(
    ("first", "second", "dice", "distance"),
    [(0, 0, 1.0, 0.0), (1, 0, 0.0, np.nan), (0, 1, 0.0, np.nan), (1, 1, 1.0, 0.0)],
)
def test_empty_masks_without_a_warning(first, second, dice, distance):
    pair = square() * bool(first), square() * bool(second)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert surface_dice(*pair, spacing=(1, 1), tolerance=1) == dice
        np.testing.assert_equal(hausdorff_distance_95(*pair, spacing=(1, 1)), distance)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_hd95_equals_the_slow_version(seed, volume):
    rng = np.random.default_rng(seed)
    shape, spacing = ((4, 5, 6), (2.5, 1.0, 0.7)) if volume else ((7, 8), (0.5, 2.0))
    first, second = rng.random((2, *shape)) > 0.8
    first.flat[3] = second.flat[-4] = True
    both = [slow.surface_distances(*pair, spacing) for pair in ((first, second), (second, first))]
    wanted = max(np.percentile(distances, 95) for distances in both)
    assert hausdorff_distance_95(first, second, spacing=spacing) == pytest.approx(wanted, rel=1e-5)


def test_it_does_not_matter_where_in_the_image_the_objects_are():
    first, second = square(), square(corner=(4, 4))
    for shape, corner in (((12, 12), 0), ((9, 10), 4)):  # at two borders of the image, at the other two
        moved = [square(shape, (corner + step, corner + step)) for step in (0, 1)]
        for metric, options in ((surface_dice, {"tolerance": 0.5}), (hausdorff_distance_95, {})):
            wanted = metric(first, second, spacing=(1, 2), **options)
            assert metric(*moved, spacing=(1, 2), **options) == pytest.approx(wanted)


def test_a_slice_is_a_slice_also_as_a_volume():
    # as volume of one slice all of a mask would be surface: its top and its bottom
    first, second = square(), square(corner=(4, 4))
    for metric, options in ((surface_dice, {"tolerance": 0.5}), (hausdorff_distance_95, {})):
        wanted = metric(first, second, spacing=(1, 2), **options)
        assert metric(first[None], second[None], spacing=(9, 1, 2), **options) == wanted


def test_more_tolerance_never_costs():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 6, 7, 8)) > 0.7
    values = [surface_dice(first, second, spacing=(2, 1, 1), tolerance=t) for t in (0, 0.5, 1, 2, 4, 99)]
    assert values == sorted(values)
    assert values[0] < values[-1] == 1


def test_deepminds_library_has_the_same_surface_dice():
    library = pytest.importorskip("surface_distance")
    rng = np.random.default_rng(1)
    for shape, spacing in (((9, 10), (2.0, 0.5)), ((6, 7, 8), (3.0, 1.0, 0.5))):
        first, second = rng.random((2, *shape)) > 0.7
        first, second = (np.pad(mask, 1) for mask in (first, second))
        distances = library.compute_surface_distances(second, first, spacing)
        for tolerance in (0.6, 1.2, 3.0):
            theirs = library.compute_surface_dice_at_tolerance(distances, tolerance)
            found = surface_dice(first, second, spacing=spacing, tolerance=tolerance)
            assert found == pytest.approx(theirs, abs=1e-6)


def test_monai_itself_counts_voxels_unless_asked_and_warns_or_is_infinite_for_empty_masks():
    monai = pytest.importorskip("monai.metrics")
    import torch

    first, second = square(), square(corner=(5, 3))
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (first, second)]
    by_voxels = monai.compute_surface_dice(*tensors, [1.0], include_background=True, spacing=[3.0, 1.0])
    # a step of 3 mm counts as much as one of 1 mm there; ours are lengths
    assert abs(float(by_voxels) - surface_dice(first, second, spacing=(3, 1), tolerance=1)) > 0.01
    with pytest.warns(UserWarning, match="all 0"):
        value = monai.compute_hausdorff_distance(
            tensors[0], 0 * tensors[1], include_background=True, percentile=95
        )
    assert not np.isfinite(float(value))


def test_refusals():
    mask = square()
    with pytest.raises(ValueError, match="`spacing` to be 2 positive numbers in mm"):
        surface_dice(mask, mask, spacing=(1, 1, 1), tolerance=1)
    with pytest.raises(ValueError, match="`spacing` to be 2 positive numbers in mm"):
        hausdorff_distance_95(mask, mask, spacing=(1, 0))
    with pytest.raises(ValueError, match="`tolerance`"):
        surface_dice(mask, mask, spacing=(1, 1), tolerance=-1)
    with pytest.raises(ValueError, match="with two or three axes"):
        hausdorff_distance_95(mask[0], mask[0], spacing=(1,))
    with pytest.raises(ValueError, match="`reference` to hold 0 and 1 only"):
        surface_dice(mask.astype(int), 2 * mask.astype(int), spacing=(1, 1), tolerance=1)
    with pytest.raises(TypeError, match="hold integers or booleans"):
        surface_dice(mask.astype(float), mask, spacing=(1, 1), tolerance=1)
