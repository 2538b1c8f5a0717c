"""Results folders as nnU-Net's training leaves them, without the training."""

from __future__ import annotations

import json
import zipfile

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

DATASET = "Dataset907_Toy"


def make_plans(**options):
    """Plans of a two-stage network; `options` are those of the trainers."""
    two = {
        "patch_size": [16, 16],
        "batch_size": 2,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [4, 8],
                "conv_op": "torch.nn.modules.conv.Conv2d",
                "kernel_sizes": [[3, 3], [3, 3]],
                "strides": [[1, 1], [2, 2]],
                "n_conv_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                "norm_op_kwargs": {"affine": True},
                "nonlin": "torch.nn.LeakyReLU",
            },
            "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
        },
    }
    return {
        "dataset_name": DATASET,
        "plans_name": "toy",
        "label_manager": "LabelManager",
        "median": float("nan"),
        "configurations": {
            "2d": two,
            "low": {"inherits_from": "2d", "next_stage": "cascade"},
            "cascade": {"inherits_from": "2d", "previous_stage": "low"},
        },
        "nnunet_dml": options,
    }


def build_network(plans, configuration, dataset_json):
    """The network that nnU-Net trains."""
    manager = PlansManager(plans)
    return nnUNetTrainer.build_network_architecture(
        manager,
        manager.get_configuration(configuration),
        determine_num_input_channels(manager, manager.get_configuration(configuration), dataset_json),
        manager.get_label_manager(dataset_json).num_segmentation_heads,
        enable_deep_supervision=True,
    )


def make_model(root, *, trainer="nnUNetTrainerDML", configuration="2d", folds=(0,), labels=None, **options):
    """A model's folder in `root`; each fold with weights of its own."""
    folder = root / DATASET / f"{trainer}__toy__{configuration}"
    plans = make_plans(**options)
    dataset_json = {
        "channel_names": {"0": "MR", "1": "T2"},
        "labels": labels or {"background": 0, "a": 1, "b": 2},
        "regions_class_order": [1, 2],
        "file_ending": ".nii.gz",
        "nnunet_dml": {"cases": {"Jane Doe": {"raters": ["Dr. No"]}}},
    }
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    (folder / "dataset_fingerprint.json").write_text('{"spacings": []}')
    for fold in folds:
        torch.manual_seed(len(str(fold)) if fold == "all" else fold)
        network = build_network(plans, configuration, dataset_json)
        arguments = {
            "plans": plans,
            "configuration": configuration,
            "fold": fold,
            "dataset_json": dataset_json,
            "device": torch.device("cpu"),
        }
        optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
        for parameter in network.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.randn_like(parameter)
        (folder / f"fold_{fold}" / "validation").mkdir(parents=True)
        (folder / f"fold_{fold}" / "validation" / "summary.json").write_text("{}")
        torch.save(
            {
                "network_weights": network.state_dict(),
                "optimizer_state": optimizer.state_dict(),
                "grad_scaler_state": None,
                "logging": {"train_losses": [1.0]},
                "_best_ema": 0.5,
                "current_epoch": 7,
                "init_args": arguments,
                "trainer_name": trainer,
                "inference_allowed_mirroring_axes": (0, 1),
            },
            folder / f"fold_{fold}" / "checkpoint_final.pth",
        )
    return folder


def change_checkpoint(folder, fold=0, **changes):
    """Replace entries of a checkpoint; a function gets the old entry."""
    path = folder / f"fold_{fold}" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    for key, change in changes.items():
        content[key] = change(content[key]) if callable(change) else change
    torch.save(content, path)


def names(path):
    """The entries of a zip, without their common folder."""
    with zipfile.ZipFile(path) as archive:
        return sorted(archive.namelist())
