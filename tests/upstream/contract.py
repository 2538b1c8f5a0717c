"""What this package takes from nnU-Net, batchgenerators and batchgeneratorsv2: names, parameters, attributes, words."""

from __future__ import annotations

from pathlib import Path

import nnunet_dml

PACKAGE = Path(nnunet_dml.__file__).parent
UPSTREAM = ("nnunetv2", "batchgenerators", "batchgeneratorsv2", "dynamic_network_architectures", "acvl_utils")
PLANS = "nnunetv2.utilities.plans_handling.plans_handler"
DATASETS = "nnunetv2.training.dataloading.nnunet_dataset"
LABELS = "nnunetv2.utilities.label_handling.label_handling"
READERS = "nnunetv2.imageio"
PREDICT = "nnunetv2.inference.predict_from_raw_data"
PREPROCESSOR = "nnunetv2.preprocessing.preprocessors.default_preprocessor.DefaultPreprocessor"
LOGGER = "nnunetv2.training.logging.nnunet_logger"
TRAINER = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetTrainer"
TRAIN = "nnunetv2.run.run_training"
AUGMENT = "batchgeneratorsv2.transforms"
LOADING = "batchgenerators.dataloading"

CALLS = {
    # what is called, with which parameters: by place, or by name (name=)
    f"{READERS}.base_reader_writer.BaseReaderWriter.read_images": "image_fnames",
    f"{READERS}.base_reader_writer.BaseReaderWriter.read_seg": "seg_fname",
    f"{PREDICT}.nnUNetPredictor": "use_mirroring= perform_everything_on_device= device= allow_tqdm=",
    f"{PREDICT}.nnUNetPredictor.manual_initialization": "network plans_manager configuration_manager parameters "
    "dataset_json trainer_name inference_allowed_mirroring_axes",
    f"{PREDICT}.nnUNetPredictor.predict_single_npy_array": "input_image image_properties "
    "save_or_return_probabilities=",
    f"{PREDICT}.predict_entry_point": "",
    f"{PREDICT}.predict_entry_point_modelfolder": "",
    f"{TRAIN}.run_training_entry": "",
    f"{PREPROCESSOR}": "verbose=",
    f"{PREPROCESSOR}.run_case_npy": "data seg properties plans_manager configuration_manager dataset_json",
    "nnunetv2.preprocessing.resampling.default_resampling.resample_data_or_seg_to_shape": "data new_shape "
    "current_spacing new_spacing",
    "nnunetv2.training.dataloading.data_loader.nnUNetDataLoader": "data batch_size patch_size final_patch_size "
    "label_manager transforms=",
    f"{DATASETS}.comp_blosc2_params": "image_size patch_size bytes_per_pixel",
    f"{DATASETS}.infer_dataset_class": "folder",
    f"{DATASETS}.nnUNetBaseDataset": "folder identifiers",
    f"{DATASETS}.nnUNetBaseDataset.load_case": "identifier",
    f"{DATASETS}.nnUNetBaseDataset.get_identifiers": "folder",
    f"{DATASETS}.nnUNetDatasetBlosc2.save_case": "data seg properties output_filename_truncated chunks= blocks= "
    "chunks_seg= blocks_seg=",
    f"{LOGGER}.MetaLogger.log": "key value step",
    f"{LOGGER}.MetaLogger.get_value": "key step=",
    "nnunetv2.training.loss.dice.get_tp_fp_fn_tn": "net_output gt axes= mask=",
    TRAINER: "plans configuration fold dataset_json device",
    f"{TRAINER}.build_network_architecture": "plans_manager configuration_manager num_input_channels "
    "num_output_channels enable_deep_supervision=",
    f"{TRAINER}.get_training_transforms": "patch_size rotation_for_DA deep_supervision_scales mirror_axes "
    "do_dummy_2d_data_aug use_mask_for_norm=",
    f"{TRAINER}.get_validation_transforms": "deep_supervision_scales",
    f"{TRAINER}.load_checkpoint": "filename_or_checkpoint",
    f"{TRAINER}.on_train_epoch_end": "train_outputs",
    f"{TRAINER}.on_validation_epoch_end": "val_outputs",
    f"{TRAINER}.perform_actual_validation": "save_probabilities",
    f"{TRAINER}.print_to_log_file": "*args",
    f"{TRAINER}.save_checkpoint": "filename",
    f"{TRAINER}.set_deep_supervision_enabled": "enabled",
    f"{TRAINER}.train_step": "batch",
    f"{TRAINER}.validation_step": "batch",
    "nnunetv2.utilities.crossval_split.generate_crossval_split": "train_identifiers seed= n_splits=",
    "nnunetv2.utilities.default_n_proc_DA.get_allowed_n_proc_DA": "",
    "nnunetv2.utilities.file_path_utilities.get_output_folder": "dataset_name_or_id trainer_name plans_identifier "
    "configuration",
    "nnunetv2.utilities.find_objects.recursive_find_trainer_class_by_name": "trainer_name",
    "nnunetv2.utilities.get_network_from_plans.get_network_from_plans": "arch_class_name arch_kwargs "
    "arch_kwargs_req_import input_channels output_channels allow_init= deep_supervision=",
    "nnunetv2.utilities.helpers.dummy_context": "",
    f"{LABELS}.determine_num_input_channels": "plans_manager configuration_or_config_manager dataset_json",
    f"{PLANS}.PlansManager": "plans_file_or_dict",
    f"{PLANS}.PlansManager.get_configuration": "configuration_name",
    f"{PLANS}.PlansManager.get_label_manager": "dataset_json",
    "nnunetv2.utilities.utils.get_filenames_of_train_images_and_targets": "raw_dataset_folder dataset_json",
    f"{LOADING}.nondet_multi_threaded_augmenter.NonDetMultiThreadedAugmenter": "data_loader transform "
    "num_processes= num_cached= seeds= pin_memory= wait_time=",
    f"{LOADING}.nondet_multi_threaded_augmenter.NonDetMultiThreadedAugmenter._finish": "",
    f"{LOADING}.single_threaded_augmenter.SingleThreadedAugmenter": "data_loader transform",
    "batchgenerators.utilities.file_and_folder_operations.write_pickle": "obj file",
    f"{AUGMENT}.base.basic_transform.BasicTransform": "",
    f"{AUGMENT}.intensity.brightness.BrightnessAdditiveTransform": "mu= sigma= synchronize_channels= p_per_channel=",
    f"{AUGMENT}.intensity.brightness.MultiplicativeBrightnessTransform": "multiplier_range= synchronize_channels= "
    "p_per_channel=",
    f"{AUGMENT}.intensity.contrast.BGContrast": "contrast_range",
    f"{AUGMENT}.intensity.contrast.ContrastTransform": "contrast_range= preserve_range= synchronize_channels= "
    "p_per_channel=",
    f"{AUGMENT}.intensity.gamma.GammaTransform": "gamma= p_invert_image= p_retain_stats= synchronize_channels= "
    "p_per_channel=",
    f"{AUGMENT}.intensity.gaussian_noise.GaussianNoiseTransform": "noise_variance= synchronize_channels= "
    "p_per_channel=",
    f"{AUGMENT}.noise.gaussian_blur.GaussianBlurTransform": "blur_sigma= synchronize_axes= benchmark= "
    "synchronize_channels= p_per_channel=",
    f"{AUGMENT}.noise.sharpen.SharpeningTransform": "strength=",
    f"{AUGMENT}.spatial.low_resolution.SimulateLowResolutionTransform": "scale= synchronize_axes= ignore_axes= "
    "allowed_channels= synchronize_channels= p_per_channel=",
    f"{AUGMENT}.utils.compose.ComposeTransforms": "transforms",
    f"{AUGMENT}.utils.nnunet_masking.MaskImageTransform": "apply_to_channels",
}

ATTRIBUTES = {
    # what is read, set or called of a class's objects
    f"{READERS}.base_reader_writer.BaseReaderWriter": "read_images read_seg",
    f"{READERS}.nibabel_reader_writer.NibabelIO": "",
    f"{READERS}.nibabel_reader_writer.NibabelIOWithReorient": "",
    f"{READERS}.simpleitk_reader_writer.SimpleITKIO": "",
    f"{PREDICT}.nnUNetPredictor": "manual_initialization predict_single_npy_array",
    PREPROCESSOR: "run_case_npy",
    "nnunetv2.training.dataloading.data_loader.nnUNetDataLoader": "has_ignore transforms",
    f"{DATASETS}.nnUNetBaseDataset": "get_identifiers identifiers load_case source_folder",
    f"{DATASETS}.nnUNetDatasetBlosc2": "save_case",
    f"{LOGGER}.MetaLogger": "get_value local_logger log",
    f"{LOGGER}.LocalLogger": "my_fantastic_logging",
    TRAINER: "_do_i_compile _get_deep_supervision_scales batch_size build_network_architecture configuration_manager "
    "configuration_name configure_rotation_dummyDA_mirroring_and_inital_patch_size current_epoch dataloader_train "
    "dataset_json device disable_checkpointing do_split enable_deep_supervision fold "
    "folder_with_segs_from_previous_stage initial_lr is_cascaded is_ddp label_manager local_rank logger loss network "
    "num_epochs num_input_channels num_iterations_per_epoch num_val_iterations_per_epoch optimizer output_folder "
    "output_folder_base plans_manager preprocessed_dataset_folder preprocessed_dataset_folder_base print_to_log_file "
    "save_every was_initialized weight_decay "
    # called as super's, and for a trainer of any class
    "configure_optimizers get_dataloaders get_tr_and_val_datasets get_training_transforms get_validation_transforms "
    "initialize load_checkpoint on_epoch_end on_train_end on_train_epoch_end on_train_epoch_start on_train_start "
    "on_validation_epoch_end on_validation_epoch_start perform_actual_validation save_checkpoint "
    "set_deep_supervision_enabled train_step validation_step",
    f"{LABELS}.LabelManager": "all_labels foreground_labels foreground_regions has_ignore_label has_regions "
    "ignore_label label_dict num_segmentation_heads",
    f"{PLANS}.ConfigurationManager": "batch_dice batch_size configuration data_identifier network_arch_class_name "
    "network_arch_init_kwargs network_arch_init_kwargs_req_import normalization_schemes patch_size preprocessor_class "
    "previous_stage_name resampling_fn_probabilities resampling_fn_seg spacing use_mask_for_norm",
    f"{PLANS}.PlansManager": "available_configurations dataset_name foreground_intensity_properties_per_channel "
    "get_configuration get_label_manager image_reader_writer_class plans plans_name transpose_backward "
    "transpose_forward",
    f"{LOADING}.nondet_multi_threaded_augmenter.NonDetMultiThreadedAugmenter": "_finish",
    f"{LOADING}.single_threaded_augmenter.SingleThreadedAugmenter": "data_loader",
    f"{AUGMENT}.base.basic_transform.ImageOnlyTransform": "",
    f"{AUGMENT}.utils.compose.ComposeTransforms": "transforms",
    f"{AUGMENT}.utils.random.RandomTransform": "transform",
    f"{AUGMENT}.utils.remove_label.RemoveLabelTansform": "",
}

OVERRIDDEN = {
    # which methods are overridden, and who calls them: another method of the class, or a function
    TRAINER: {
        "__init__": f"{TRAIN}.get_trainer_from_args",
        "_build_loss": "initialize",
        "configure_optimizers": "initialize",
        "get_dataloaders": "on_train_start",
        "get_tr_and_val_datasets": "get_dataloaders",
        "get_training_transforms": "get_dataloaders",
        "get_validation_transforms": "get_dataloaders",
        "initialize": "on_train_start",
        "load_checkpoint": f"{TRAIN}.maybe_load_checkpoint",
        "on_epoch_end": "run_training",
        "on_train_end": "run_training",
        "on_train_epoch_end": "run_training",
        "on_train_epoch_start": "run_training",
        "on_train_start": "run_training",
        "on_validation_epoch_end": "run_training",
        "on_validation_epoch_start": "run_training",
        "perform_actual_validation": f"{TRAIN}.run_training",
        "save_checkpoint": "on_epoch_end",
        "set_deep_supervision_enabled": "perform_actual_validation",
        "train_step": "run_training",
        "validation_step": "run_training",
    },
    f"{AUGMENT}.base.basic_transform.BasicTransform": {"apply": "__call__"},
}

WORDS = {
    # words that a module upstream must know: variables, keys of files, file names, flags, names of classes
    "nnunetv2.paths": "nnUNet_raw nnUNet_preprocessed nnUNet_results nnUNet_extTrainer",
    "nnunetv2.configuration": "nnUNet_def_n_proc",
    "nnunetv2.utilities.default_n_proc_DA": "nnUNet_n_proc_DA",
    LOGGER: "nnUNet_wandb_enabled",
    TRAIN: "-tr -p --npz --c --val -device continue_training checkpoint_final.pth dataset.json",
    PREDICT: "nnUNet_npp nnUNet_nps -i -o -m -d -c -tr -p -f -chk -device -part_id -npp -nps --save_probabilities "
    "--disable_tta --continue_prediction --c plans.json dataset.json checkpoint_final.pth network_weights init_args "
    "configuration trainer_name inference_allowed_mirroring_axes",
    "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints": "-d -c -plans_name -npfp -np "
    "--verify_dataset_integrity",
    "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner": "configurations dataset_name "
    "plans_name image_reader_writer original_median_shape_after_transp transpose_forward transpose_backward "
    "inherits_from data_identifier preprocessor_name batch_size patch_size spacing normalization_schemes "
    "use_mask_for_norm resampling_fn_data resampling_fn_data_kwargs resampling_fn_probabilities architecture "
    "network_class_name arch_kwargs _kw_requires_import features_per_stage strides numTraining channel_names modality",
    PLANS: "configurations inherits_from previous_stage regions_class_order labels "
    "foreground_intensity_properties_per_channel",
    LABELS: "background ignore channel_names modality",
    "nnunetv2.experiment_planning.verify_dataset_integrity": "labels channel_names numTraining file_ending",
    "nnunetv2.imageio.reader_writer_registry": "overwrite_image_reader_writer",
    "nnunetv2.utilities.utils": "imagesTr labelsTr file_ending images label",
    TRAINER.rpartition(".")[0]: "splits_final.json train val all validation predicted_next_stage plans.json "
    "dataset.json dataset_fingerprint.json checkpoint_final.pth summary.json network_weights optimizer_state logging "
    "init_args trainer_name current_epoch inference_allowed_mirroring_axes continue_training data target loss tp_hard "
    "fp_hard fn_hard fold_ __ debug.json",
    "nnunetv2.training.dataloading.data_loader": "image segmentation class_locations data target",
    DATASETS: "b2nd .b2nd _seg.b2nd .pkl",
    "nnunetv2.inference.export_prediction": ".npz probabilities file_ending spacing bbox_used_for_cropping "
    "shape_before_cropping",
    "nnunetv2.evaluation.evaluate_predictions": "metric_per_case prediction_file",
    "nnunetv2.model_sharing.model_export": "crossval_results_folds_ postprocessing.pkl postprocessing.json fold_all "
    "dataset_fingerprint.json",
    "nnunetv2.preprocessing.normalization.map_channel_name_to_normalization": "ct",
    PREPROCESSOR.rpartition(".")[0]: "spacing bbox_used_for_cropping shape_before_cropping class_locations",
    f"{READERS}.nibabel_reader_writer": "nibabel_stuff original_affine spacing .nii .nii.gz",
    f"{AUGMENT}.base.basic_transform": "image segmentation regression_target",
}

CLASSES = {
    # classes that are known by name only, from plans, dataset.json and messages
    "nnunetv2.preprocessing.normalization.default_normalization_schemes": "ZScoreNormalization NoNormalization "
    "RescaleTo01Normalization RGBTo01Normalization CTNormalization",
    f"{READERS}.simpleitk_reader_writer": "SimpleITKIO",
    "nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision": ""
    "nnUNetTrainerNoDeepSupervision",
}

BY_ATTRIBUTE = {  # what our modules get from an attribute of plans
    "resample_data_or_seg_to_shape": "resampling_fn_probabilities",
    "DefaultPreprocessor": "preprocessor_class",
}

# names that nnU-Net happens to have, too, and that are something else here
OTHER_MEANINGS = {"bbox", "dataset", "mean", "resume", "value"}
