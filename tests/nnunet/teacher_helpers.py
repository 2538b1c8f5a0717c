"""Teachers written by hand: plans, a data set's description and checkpoints of random weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_dml.nnunet.targets import TargetLayout

DATASET = "Dataset950_Taught"
NAME = "nnUNetTrainer__nnUNetPlans__2d"
VALIDATED = {0: ["a", "b"], 1: ["c", "d"]}
LABELS = {"background": 0, "rim": 1, "core": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def architecture(dimensions: int = 2, features: int = 2) -> dict:
    """A U-Net of two stages."""
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [features, features],
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": [[3] * dimensions] * 2,
            "strides": [[1] * dimensions, [2] * dimensions],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans_of(dimensions: int = 2) -> dict:
    """What nnU-Net's planner writes, as far as it matters here."""
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": {"mean": 3.0, "std": 2.0}},
        "label_manager": "LabelManager",
        "configurations": {
            f"{dimensions}d": {
                "data_identifier": f"nnUNetPlans_{dimensions}d",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [8] * dimensions,
                "spacing": [1.0] * dimensions,
                "normalization_schemes": ["ZScoreNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": {"is_seg": False, "order": 3},
                "architecture": architecture(dimensions),
                "batch_dice": True,
            }
        },
    }


def described(labels: dict | None = None) -> dict:
    """A dataset.json."""
    labels = labels or LABELS
    order = {"regions_class_order": [1, 2]} if any(isinstance(it, list) for it in labels.values()) else {}
    return {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz", **order}


def write_teacher(
    folder: Path,
    fold: int | str = 0,
    *,
    plans: dict | None = None,
    dataset_json: dict | None = None,
    checkpoint: str = "checkpoint_final.pth",
    prefix: str = "",
    trainer: str = "SomebodysTrainer",
    validated: list[str] | str | None = "its own",
) -> torch.nn.Module:
    """Write a fold of a model with random weights, as if a trainer class had trained it that nobody knows here.

    Args:
        folder: The model's.
        fold: Which.
        plans: Its plans.
        dataset_json: Its data set.
        checkpoint: Its file's name.
        prefix: What wrappers put before the names of the weights.
        trainer: Name of its class.
        validated: The cases of its validation, None for none; its own are those of `VALIDATED`.

    Returns:
        The network.
    """
    plans, dataset_json = plans or plans_of(), dataset_json or described()
    (name,) = plans["configurations"]
    manager = PlansManager(plans)
    chosen = manager.get_configuration(name)
    network = get_network_from_plans(
        chosen.network_arch_class_name,
        chosen.network_arch_init_kwargs,
        chosen.network_arch_init_kwargs_req_import,
        len(dataset_json["channel_names"]),
        manager.get_label_manager(dataset_json).num_segmentation_heads,
        deep_supervision=True,
    )
    path = folder / f"fold_{fold}"
    path.mkdir(parents=True, exist_ok=True)
    content = {
        "network_weights": {f"{prefix}{key}": it for key, it in network.state_dict().items()},
        "trainer_name": trainer,
        "init_args": {"plans": plans, "configuration": name, "fold": fold, "dataset_json": dataset_json},
    }
    torch.save(content, path / checkpoint)
    if validated == "its own":
        validated = VALIDATED.get(fold)
    if validated is not None:
        (path / "validation").mkdir(exist_ok=True)
        cases = [{"prediction_file": f"/elsewhere/validation/{case}.nii.gz"} for case in validated]
        (path / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
    network.decoder.deep_supervision = False
    return network.eval()


def student(
    folder: Path,
    *,
    plans: dict | None = None,
    dataset_json: dict | None = None,
    fold: int | str = 0,
    held_back=("a", "b"),
) -> SimpleNamespace:
    """What the checks read of a trainer."""
    plans, dataset_json = copy.deepcopy(plans or plans_of()), dataset_json or described()
    manager = PlansManager(plans)
    return SimpleNamespace(
        plans_manager=manager,
        configuration_manager=manager.get_configuration(next(iter(plans["configurations"]))),
        dataset_json=dataset_json,
        layout=TargetLayout.of(manager.get_label_manager(dataset_json)),
        fold=fold,
        output_folder_base=str(folder),
        do_split=lambda: (["c", "d"], list(held_back)),
    )
