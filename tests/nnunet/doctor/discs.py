"""A data set of four discs and three raters, and what the doctor says of it."""

from __future__ import annotations

import json

import numpy as np
import SimpleITK as sitk
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_dml.nnunet import soft_maps
from nnunet_dml.nnunet.doctor import examine
from nnunet_dml.nnunet.preprocess import preprocess

NAME = "Dataset501_Test"
RATERS = ("r1", "r2", "r3")
CASES = ("a", "b", "c", "d")
SIZE = 32
LINEAR = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
RESAMPLING = {
    f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")
} | {
    "resampling_fn_probabilities_kwargs": LINEAR,
    "resampling_fn_data_kwargs": LINEAR,
    "resampling_fn_seg_kwargs": LINEAR | {"is_seg": True},
}
NETWORK = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 4,
        "features_per_stage": [2] * 4,
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "kernel_sizes": [[3, 3]] * 4,
        "strides": [[1, 1], [2, 2], [2, 2], [2, 2]],
        "n_conv_per_stage": [1] * 4,
        "n_conv_per_stage_decoder": [1] * 3,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "nonlin": "torch.nn.LeakyReLU",
    },
    "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
}
PLANS = {
    "dataset_name": NAME,
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "spacing": [1.0, 1.0],
            "patch_size": [SIZE, SIZE],
            "batch_size": 2,
            "batch_dice": True,
            "use_mask_for_norm": [False],
            "architecture": NETWORK,
            **RESAMPLING,
        },
        "3d_fullres": {
            "inherits_from": "2d",
            "data_identifier": "nnUNetPlans_3d_fullres",
            "spacing": [1.0, 1.0, 1.0],
            "patch_size": [1, SIZE, SIZE],
        },
    },
}


def disc(radius):
    y, x = np.ogrid[:SIZE, :SIZE]
    return (np.hypot(y - 15.5, x - 15.5) < radius).astype(np.uint8)[None]


def write(path, array, spacing=(1.0, 1.0, 1.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


class World:
    """Four cases of 32 × 32 voxels; the three raters draw discs of radius 6, 8 and 10."""

    def __init__(self, root):
        self.raw, self.preprocessed = root / "raw" / NAME, root / "preprocessed" / NAME
        self.arrays = self.preprocessed / "nnUNetPlans_2d"
        self.arrays.mkdir(parents=True)
        (root / "results").mkdir()
        self.described = {
            "labels": {"background": 0, "core": 1},
            "channel_names": {"0": "MR"},
            "file_ending": ".nii.gz",
            "nnunet_dml": {
                "raters": list(RATERS),
                "cases": {case: {"raters": list(RATERS)} for case in CASES},
            },
        }
        for case in CASES:
            write(self.consensus(case), disc(8))
            for rater, radius in zip(RATERS, (6, 8, 10), strict=True):
                write(self.rater(case, rater), disc(radius))
            locations = np.argwhere(disc(8)[None])
            properties = {
                "bbox_used_for_cropping": [[0, 1], [0, SIZE], [0, SIZE]],
                "spacing": [1.0, 1.0, 1.0],
                "shape_before_cropping": (1, SIZE, SIZE),
                "class_locations": {1: locations, (-1, 0, 1): np.argwhere(np.ones((1, 1, SIZE, SIZE)))},
            }
            data, seg = disc(8)[None].astype(np.float32), disc(8)[None].astype(np.int16)
            whole = dict.fromkeys(("chunks", "blocks", "chunks_seg", "blocks_seg"), data.shape)
            nnUNetDatasetBlosc2.save_case(data, seg, properties, str(self.arrays / case), **whole)
        self.describe()
        self.plans()
        preprocess("501", configurations=["2d"], fusions=["uniform", "weighted"], num_processes=1)

    def consensus(self, case):
        return self.raw / "labelsTr" / f"{case}.nii.gz"

    def rater(self, case, rater):
        return self.raw / "ratersTr" / case / f"{rater}.nii.gz"

    def map(self, case, source="weighted"):
        return soft_maps.folder(self.preprocessed, "nnUNetPlans_2d", source) / f"{case}.b2nd"

    def describe(self, **changes):
        self.described |= changes
        for folder in (self.raw, self.preprocessed):
            (folder / "dataset.json").write_text(json.dumps(self.described))

    def plans(self, name="nnUNetPlans", **options):
        content = {**PLANS, "plans_name": name}
        if options:
            content["nnunet_dml"] = options
        (self.preprocessed / f"{name}.json").write_text(json.dumps(content))
        return name


def look(**options):
    return examine("501", processes=1, **{"patches": 4, **options})


def said(report, level="wrong"):
    """The lines of a level, findings and steps."""
    return [f"{it.about}: {it.text}" for it in report.dataset if it.level == level] + [
        f"{it.name}: {it.remark}" for it in report.steps if it.level == level
    ]


def shares(report):
    return {it.name: it.share for it in report.steps}


def files(root):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}
