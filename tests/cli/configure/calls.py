"""`configure` as users call it."""

from __future__ import annotations

from nnunet_dml.cli.main import main

PLANS = {
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "batch_size": 12,
            "architecture": {"arch_kwargs": {"features_per_stage": [32, 64, 128]}},
        },
        "3d_lowres": {
            "data_identifier": "nnUNetPlans_3d_lowres",
            "batch_size": 2,
            "architecture": {"arch_kwargs": {"features_per_stage": [32, 64]}},
        },
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    },
}


def configure(*arguments):
    return main(["configure", "-d", "501", *arguments])
