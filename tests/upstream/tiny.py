"""Plans, a description and cases of nnU-Net's, as small as they come."""

from __future__ import annotations

LINEAR = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
NEAREST = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}
TINY = {
    "dataset_name": "Dataset001_Tiny",
    "plans_name": "tiny",
    "image_reader_writer": "SimpleITKIO",
    "label_manager": "LabelManager",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "foreground_intensity_properties_per_channel": {"0": {}},
    "nnunet_dml": {"ours": 1},
    "continue_training": False,
    "configurations": {
        "2d": {
            "data_identifier": "tiny_2d",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [16, 16],
            "spacing": [1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": LINEAR,
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_seg_kwargs": NEAREST,
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": LINEAR,
            "batch_dice": True,
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 3,
                    "features_per_stage": [2, 2, 2],
                    "conv_op": "torch.nn.modules.conv.Conv2d",
                    "kernel_sizes": [[3, 3]] * 3,
                    "strides": [[1, 1], [2, 2], [2, 2]],
                    "n_conv_per_stage": [1] * 3,
                    "n_conv_per_stage_decoder": [1] * 2,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                    "nonlin": "torch.nn.LeakyReLU",
                },
                "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
            },
        },
        "child": {"inherits_from": "2d", "batch_size": 3},
    },
}
DESCRIBED = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
CASES = ["a", "b", "c", "d", "e"]
