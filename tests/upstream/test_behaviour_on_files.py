"""How nnU-Net reads plans, labels, images and masks, preprocesses and predicts, tried on tiny arrays, without this package."""

from __future__ import annotations

from contextlib import redirect_stdout
from copy import deepcopy
from io import StringIO

import nibabel
import numpy as np
import SimpleITK as sitk
import torch

from tests.upstream.reading import theirs
from tests.upstream.tiny import DESCRIBED, TINY


class Network(torch.nn.Module):
    """Keeps what it is made of."""

    def __init__(self, **given):
        super().__init__()
        self.given = given


def test_plans_name_any_network():
    """nnunet/segmentation_models.py."""
    made = theirs("get_network_from_plans")(
        f"{__name__}.Network", {"own": 1}, [], 2, 3, allow_init=False, deep_supervision=True
    )
    assert made.given == {"own": 1, "input_channels": 2, "num_classes": 3, "deep_supervision": True}


def test_plans_keep_what_they_do_not_know():
    """nnunet/options.py, nnunet/configure.py."""
    plans = theirs("PlansManager")(deepcopy(TINY))
    assert plans.plans["nnunet_dml"] == {"ours": 1}
    assert plans.available_configurations == ["2d", "child"]
    child = plans.get_configuration("child")
    assert (child.batch_size, child.data_identifier, child.previous_stage_name) == (3, "tiny_2d", None)


def test_labels_regions_and_the_ignore_label():
    """nnunet/targets.py."""
    labels = theirs("LabelManager")({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2])
    assert (labels.has_regions, labels.has_ignore_label, labels.ignore_label) == (True, True, 3)
    assert labels.foreground_regions == [(1, 2), 2]
    assert (labels.all_labels, labels.foreground_labels) == ([0, 1, 2], [1, 2])
    assert labels.num_segmentation_heads == 2
    assert theirs("LabelManager")({"background": 0, "a": 1}, None).num_segmentation_heads == 2


def test_blosc2_files_are_cut_into_blocks_and_chunks():
    """nnunet/map_making.py, nnunet/unlabelled_making.py, nnunet/offline_teacher.py."""
    blocks, chunks = theirs("comp_blosc2_params")((1, 64, 256, 256), (32, 128, 128), 1)
    assert len(blocks) == len(chunks) == 4
    assert all(block <= chunk for block, chunk in zip(blocks, chunks, strict=True))


def test_probabilities_are_resampled_linearly_and_labels_stay_labels():
    """nnunet/map_making.py."""
    configuration = theirs("PlansManager")(deepcopy(TINY)).get_configuration("2d")
    step = np.broadcast_to(np.arange(4) > 1, (2, 1, 4, 4)).astype(np.float32)
    resampled = np.asarray(configuration.resampling_fn_probabilities(step, (1, 8, 8), [1, 2, 2], [1, 1, 1]))
    assert resampled.shape == (2, 1, 8, 8)
    np.testing.assert_allclose(resampled[1, 0, 4], [0, 0, 0, 0.25, 0.75, 1, 1, 1], atol=1e-6)
    labels = np.asarray(configuration.resampling_fn_seg(3 * step[:1], (1, 8, 8), [1, 2, 2], [1, 1, 1]))
    assert set(np.unique(labels)) == {0, 3}


def test_an_image_without_labels_is_preprocessed():
    """nnunet/unlabelled_making.py, nnunet/map_making.py."""
    plans = theirs("PlansManager")(deepcopy(TINY))
    configuration = plans.get_configuration("2d")
    image = np.zeros((1, 1, 12, 12), np.float32)
    image[:, :, 2:10, 3:9] = np.arange(1, 7)
    image[0, 0, 2, 3] = 0  # a corner of the box
    data, seg, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
        image, None, {"spacing": [1.0, 1.0, 1.0]}, plans, configuration, DESCRIBED
    )
    assert data.shape == seg.shape == (1, 1, 8, 6)
    assert (seg[0, 0, 0, 0], (seg == 0).sum()) == (-1, 47)
    assert [list(map(int, it)) for it in properties["bbox_used_for_cropping"]] == [[0, 1], [2, 10], [3, 9]]
    assert tuple(properties["shape_before_cropping"]) == (1, 12, 12)


def test_how_images_and_masks_are_read(tmp_path):
    """nnunet/rater_maps.py, nnunet/whole_images.py."""
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    image.SetSpacing((1, 2, 3))
    file = str(tmp_path / "image.nii.gz")
    sitk.WriteImage(image, file)
    array, properties = (
        theirs("PlansManager")(deepcopy(TINY)).image_reader_writer_class().read_images([file, file])
    )
    assert (array.shape, array.dtype) == ((2, 2, 3, 4), np.float32)
    assert list(properties["spacing"]) == [3, 2, 1]
    seg, _ = theirs("SimpleITKIO")().read_seg(file)  # which rater_maps.py reads itself, to save the float32
    assert np.array_equal(seg, sitk.GetArrayFromImage(image)[None])
    reader = theirs("NibabelIO")()
    array, properties = reader.read_seg(file)
    assert array.shape == (1, 2, 3, 4)
    np.testing.assert_array_equal(properties["nibabel_stuff"]["original_affine"], nibabel.load(file).affine)


def test_an_array_is_predicted_with_its_probabilities(trainer):
    """nnunet/whole_images.py."""
    predictor = theirs("nnUNetPredictor")(
        use_mirroring=True, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    trainer.set_deep_supervision_enabled(False)
    network, plans, configuration = trainer.network, trainer.plans_manager, trainer.configuration_manager
    predictor.manual_initialization(
        network, plans, configuration, [network.state_dict()], DESCRIBED, "nnUNetTrainer", (0, 1)
    )
    image = np.random.default_rng(0).normal(size=(1, 1, 16, 20)).astype(np.float32)
    with redirect_stdout(StringIO()):
        labels, probs = predictor.predict_single_npy_array(
            image, {"spacing": [1.0, 1.0, 1.0]}, save_or_return_probabilities=True
        )
    assert (labels.shape, probs.shape) == ((1, 16, 20), (2, 1, 16, 20))
    np.testing.assert_allclose(probs.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(labels, probs.argmax(0))
