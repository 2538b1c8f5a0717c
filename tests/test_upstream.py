"""The contract with nnU-Net, batchgenerators and batchgeneratorsv2: all that this package takes from them.

A failure says what has changed there and which modules here it breaks. `CALLS`, `ATTRIBUTES`, `OVERRIDDEN` and `WORDS`
are the contract; a walk over the package's source sees to it that it uses nothing that they lack. What is a behaviour
rather than a name is tried on tiny arrays, without this package.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import pydoc
import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Container
from contextlib import redirect_stdout
from copy import deepcopy
from functools import cache
from importlib import import_module, metadata
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from packaging.requirements import Requirement
from packaging.version import Version

import nnunet_dml
from nnunet_dml.cli import predict

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
    PREDICT: "nnUNet_nps -i -o -m -d -c -tr -p -f -chk -device -part_id -nps --save_probabilities --disable_tta "
    "--continue_prediction --c plans.json dataset.json checkpoint_final.pth network_weights init_args configuration "
    "trainer_name inference_allowed_mirroring_axes",
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
    "fp_hard fn_hard fold_ __",
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


class Uses:
    """All that the package's modules import, call, read and look up; every name with the modules that do."""

    def __init__(self) -> None:
        self.imports: dict[str, set[str]] = defaultdict(set)
        self.attributes: dict[str, set[str]] = defaultdict(set)
        self.texts: dict[str, set[str]] = defaultdict(set)
        self.words: dict[str, set[str]] = defaultdict(set)  # in the texts
        self.keys: dict[str, set[str]] = defaultdict(set)
        self.calls: list[tuple[str, str, ast.Call]] = []  # module, what is called (`.name` of an object), how
        for path in sorted(PACKAGE.rglob("*.py")):
            self._read(path.relative_to(PACKAGE.parent).as_posix(), ast.parse(path.read_text("utf-8")))

    def _read(self, module: str, tree: ast.Module) -> None:
        imported: dict[str, str] = {}
        own: set[str] = set()  # names of modules here, whose functions are not meant
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and is_upstream(node.module or ""):
                imported |= {it.asname or it.name: f"{node.module}.{it.name}" for it in node.names}
            elif isinstance(node, ast.Import):
                imported |= {it.asname or it.name: it.name for it in node.names if is_upstream(it.name)}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nnunet_dml"):
                own |= {it.asname or it.name for it in node.names}
        for name in imported.values():
            self.imports[name].add(module)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.texts[node.value].add(module)
                for word in re.findall(r"[\w.-]+", node.value):
                    self.words[word].add(module)
            for key in keys_in(node):
                self.keys[key].add(module)
            if not module.startswith("nnunet_dml/nnunet/"):
                continue  # the other rooms know no nnU-Net, as test_rooms.py sees to
            if isinstance(node, ast.Attribute) and not is_name_of(node.value, own):
                self.attributes[node.attr].add(module)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if not is_name_of(node.func.value, own):
                    self.calls.append((module, f".{node.func.attr}", node))
            elif isinstance(node, ast.Call) and is_name_of(node.func, imported):
                self.calls.append((module, imported[ast.unparse(node.func)], node))

    def of(self, name: str) -> str:
        """The modules that use a name, to be said."""
        last = name.rpartition(".")[2]
        last = BY_ATTRIBUTE.get(last, last)
        kinds = (
            self.imports.get(name),
            self.attributes.get(last),
            self.texts.get(name),
            self.words.get(name),
        )
        return ", ".join(sorted(next(filter(None, kinds), {"nothing here"})))


def is_upstream(module: str) -> bool:
    return module.split(".")[0] in UPSTREAM


def is_name_of(node: ast.expr, names: Container[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def keys_in(node: ast.AST) -> list[str]:
    """The texts by which a node looks something up: x["key"], x.get("key"), folder / "name"."""
    found: list[ast.expr] = []
    if isinstance(node, ast.Subscript):
        found = [node.slice]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        found = [node.right]
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("get", "pop")
    ):
        found = node.args[:1]
    return [it.value for it in found if isinstance(it, ast.Constant) and isinstance(it.value, str)]


@cache
def uses() -> Uses:
    return Uses()


@cache
def locate(name: str) -> Any:
    """What stands under a dotted name."""
    found = pydoc.locate(name)
    assert found is not None, changed(name, f"there is no {name} any more", uses().of(name))
    return found


def theirs(last: str) -> Any:
    """What the contract has under the last part of a name."""
    (name,) = {it for it in (*CALLS, *ATTRIBUTES) if it.endswith(f".{last}")}
    return locate(name)


@cache
def words_of(module: str) -> set[str]:
    """The texts in a module's source, and the names under which it saves arrays."""
    nodes = list(ast.walk(ast.parse(inspect.getsource(locate(module)))))
    texts = {it.value for it in nodes if isinstance(it, ast.Constant) and isinstance(it.value, str)}
    saving = [it for it in nodes if isinstance(it, ast.Call) and "savez" in ast.unparse(it.func)]
    return texts | {it.arg for call in saving for it in call.keywords if it.arg}


@cache
def attributes_of(name: str) -> set[str]:
    """What the objects of a class have: its own and inherited names, and what its methods set."""
    kind = locate(name)
    found = set(dir(kind))
    for base in kind.__mro__:
        if is_upstream(base.__module__):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
            stored = [
                it for it in ast.walk(tree) if isinstance(it, ast.Attribute) and isinstance(it.ctx, ast.Store)
            ]
            found |= {it.attr for it in stored if isinstance(it.value, ast.Name) and it.value.id == "self"}
    return found


def changed(name: str, what: str, breaks: str) -> str:
    """A failure's message."""
    package = name.split(".")[0]
    return f"{package} {metadata.version(package)}: {what}; this breaks {breaks}"


def parameters_of(name: str) -> list[inspect.Parameter]:
    """Those that a caller gives, without self."""
    parent = locate(name.rpartition(".")[0])
    found = list(inspect.signature(locate(name)).parameters.values())
    static = not inspect.isclass(parent) or isinstance(
        inspect.getattr_static(parent, name.rpartition(".")[2]), staticmethod
    )
    return found if static else found[1:]


def pinned_parameters(name: str) -> tuple[list[str], list[str]]:
    """Those that we give by place, and those that we give by name."""
    words = CALLS[name].split()
    return [it for it in words if "=" not in it], [it.rstrip("=") for it in words if "=" in it]


@pytest.mark.parametrize("name", sorted({*CALLS, *ATTRIBUTES}))
def test_it_is_where_we_import_it_from(name):
    assert locate(name) is not None


@pytest.mark.parametrize("name", CALLS)
def test_it_takes_the_parameters_that_we_give(name):
    parameters = parameters_of(name)
    there = [f"*{it.name}" if it.kind is it.VAR_POSITIONAL else it.name for it in parameters]
    any_name = any(it.kind is it.VAR_KEYWORD for it in parameters)
    places, names = pinned_parameters(name)
    if there[: len(places)] != places:
        what = f"{name} takes {', '.join(there)}, no longer {', '.join(places)} first"
        pytest.fail(changed(name, what, f"{uses().of(name)}, which give these by place"))
    for it in names:
        assert it in there or any_name, changed(
            name, f"{name} has no parameter {it} any more", f"{uses().of(name)}, which give it by name"
        )
    needed = [it.name for it in parameters if it.default is it.empty and it.kind < it.VAR_POSITIONAL]
    new = [it for it in needed if it not in (*places, *names)]
    # what is made by nnU-Net's own code may want more
    assert not new, changed(
        name, f"{name} now demands {', '.join(new)}", f"{uses().of(name)}, which give none"
    )


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_its_objects_have_the_attributes_that_we_use(name):
    for it in ATTRIBUTES[name].split():
        assert it in attributes_of(name), changed(name, f"{name} has no {it} any more", uses().of(f".{it}"))


def heirs(name: str) -> list[type]:
    """Our classes that derive from one of theirs."""
    for module in ("trainers", "transforms", "views"):
        import_module(f"nnunet_dml.nnunet.{module}")
    found, todo = [], [locate(name)]
    while todo:
        children = todo.pop().__subclasses__()
        todo += children
        found += [it for it in children if it.__module__.startswith("nnunet_dml.")]
    return list(dict.fromkeys(found))


def calls_of(method: str, caller: str) -> list[ast.Call]:
    """The calls of a method in a function's source; of `__init__` those that make an object."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(locate(caller))))
    calls = [it for it in ast.walk(tree) if isinstance(it, ast.Call)]
    if method == "__init__":
        return [it for it in calls if isinstance(it.func, ast.Name) and it.func.id == "nnunet_trainer"]
    return [it for it in calls if isinstance(it.func, ast.Attribute) and it.func.attr == method]


@pytest.mark.parametrize(("name", "method"), [(name, it) for name, its in OVERRIDDEN.items() for it in its])
def test_what_we_override_is_called_as_we_expect(name, method):
    caller = OVERRIDDEN[name][method]
    caller = caller if is_upstream(caller) else f"{name}.{caller}"
    ours = [it for it in heirs(name) if method in vars(it)]
    where = ", ".join(sorted({it.__module__.replace(".", "/") + ".py" for it in ours}))
    assert ours, f"nothing overrides {name}.{method}: take it out of OVERRIDDEN"
    assert method in dir(locate(name)), changed(name, f"{name} has no {method} any more", where)
    calls = calls_of(method, caller)
    assert calls, changed(name, f"{caller} does not call {method} any more", where)
    for kind in ours:
        for call in calls:
            given = [it for it in call.args if not isinstance(it, ast.Starred)]
            named = {it.arg: None for it in call.keywords if it.arg}
            try:
                inspect.signature(getattr(kind, method)).bind(None, *given, **named)
            except TypeError as error:
                what = f"{caller} calls {method} with {ast.unparse(call)} ({error})"
                pytest.fail(changed(name, what, f"{kind.__module__}.{kind.__name__}"))


@pytest.mark.parametrize("module", WORDS)
def test_it_knows_the_words_that_we_rely_on(module):
    for word in WORDS[module].split():
        assert word in words_of(module), changed(
            module, f"{module} knows no {word!r} any more", f"{uses().of(word)}, which rely on it"
        )


@pytest.mark.parametrize("module", CLASSES)
def test_the_classes_that_files_name_are_there(module):
    for name in CLASSES[module].split():
        what = f"there is no {module}.{name} any more"
        assert hasattr(locate(module), name), changed(module, what, uses().of(name))


def test_the_commands_are_there():
    there = {it.name for it in metadata.distribution("nnunetv2").entry_points}
    for name in {it for it in uses().words if re.fullmatch(r"nnUNetv2_\w+", it)}:
        assert name in there, changed("nnunetv2", f"there is no command {name} any more", uses().of(name))


@pytest.mark.parametrize("flag", predict._DEFAULTS)
def test_the_defaults_of_nnunetv2_predict(flag):
    (call,) = [
        it
        for it in calls_of("add_argument", f"{PREDICT}.predict_entry_point")
        if flag in [arg.value for arg in it.args if isinstance(arg, ast.Constant)]
    ]
    default = next(it.value for it in call.keywords if it.arg == "default")
    value = default.args[-1] if isinstance(default, ast.Call) else default  # from a variable, or this
    what = f"the default of nnUNetv2_predict {flag} is {ast.unparse(default)}"
    assert str(value.value) == predict._DEFAULTS[flag], changed("nnunetv2", what, "nnunet_dml/cli/predict.py")


class TestTheContractIsComplete:
    """Of what our modules use, nothing is missing above."""

    def test_every_import(self):
        lacking = {it: uses().of(it) for it in uses().imports if it not in {*CALLS, *ATTRIBUTES}}
        assert not lacking, f"imported, but neither in CALLS nor in ATTRIBUTES: {lacking}"

    def test_every_attribute(self):
        pinned = {it for names in ATTRIBUTES.values() for it in names.split()}
        pinned |= {it for methods in OVERRIDDEN.values() for it in methods}
        pinned |= OTHER_MEANINGS
        for name in ATTRIBUTES:
            used = {it for it in attributes_of(name) if it in uses().attributes and not it.startswith("__")}
            lacking = {it: uses().of(f".{it}") for it in used - pinned}
            assert not lacking, (
                f"attributes of {name}, but not in ATTRIBUTES (or, where something else is meant, OTHER_MEANINGS): {lacking}"
            )

    def test_every_call(self):
        methods = [(name, it) for name, its in ATTRIBUTES.items() for it in its.split()]
        callable_ones = {
            f".{it}" for name, it in methods if inspect.isroutine(getattr(locate(name), it, None))
        }
        for module, called, call in uses().calls:
            pinned = [it for it in CALLS if it == called or (called[0] == "." and it.endswith(called))]
            where = f"{module}, line {call.lineno}: {ast.unparse(call)}"
            if pinned:
                assert any(self.fits(call, it) for it in pinned), f"{where} gives what CALLS lacks"
            elif is_upstream(called) or (called in callable_ones and (call.args or call.keywords)):
                pytest.fail(f"{where}: CALLS lacks it")

    @staticmethod
    def fits(call: ast.Call, name: str) -> bool:
        places, names = pinned_parameters(name)
        given = [it for it in call.args if not isinstance(it, ast.Starred)]
        named = {it.arg for it in call.keywords if it.arg}
        return (len(given) <= len(places) or "*args" in places) and named <= {*places, *names}

    def test_every_overridden_method(self):
        for name, methods in OVERRIDDEN.items():
            for kind in heirs(name):
                own = {it for it in vars(kind) if callable(vars(kind)[it]) and hasattr(locate(name), it)}
                lacking = {it for it in own if it == "__init__" or not it.startswith("__")} - {*methods}
                lacking -= {"__init__"} if name != TRAINER else set()
                assert not lacking, f"{kind} overrides {lacking}, which OVERRIDDEN lacks"

    def test_every_variable(self):
        pinned = {it for words in WORDS.values() for it in words.split()}
        lacking = {it for it in uses().words if re.fullmatch(r"nnUNet_\w+", it)} - pinned
        assert not lacking, f"variables that WORDS lacks: {lacking}"

    def test_every_key(self):
        pinned = {it for words in WORDS.values() for it in words.split()} | OTHER_MEANINGS
        pinned |= {*CALLS[TRAINER].split()}  # as which a checkpoint holds them
        theirs = {it for module in WORDS for it in words_of(module)}
        lacking = {it: where for it, where in uses().keys.items() if it in theirs - pinned}
        assert not lacking, (
            f"keys that nnU-Net knows, but WORDS lacks (or, where something else is meant, OTHER_MEANINGS): {lacking}"
        )


# --- behaviour -------------------------------------------------------------------------------------------------------

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


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """nnU-Net's own trainer of a tiny network, initialized, on five tiny cases."""
    base = tmp_path_factory.mktemp("upstream")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()):
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(base / name))
        patch.setenv("nnUNet_n_proc_DA", "0")
        folder = base / "preprocessed" / "Dataset001_Tiny" / "tiny_2d"
        folder.mkdir(parents=True)
        array, whole = np.zeros((1, 1, 16, 16)), {"chunks": (1, 1, 16, 16), "blocks": (1, 1, 16, 16)}
        seg_whole = {f"{name}_seg": value for name, value in whole.items()}
        for case in CASES:
            properties, truncated = {"class_locations": {1: []}}, str(folder / case)
            args = (array.astype(np.float32), array.astype(np.int8), properties, truncated)
            theirs("nnUNetDatasetBlosc2").save_case(*args, **whole, **seg_whole)
            theirs("write_pickle")(properties, f"{truncated}.pkl")
        made = theirs("nnUNetTrainer")(deepcopy(TINY), "2d", 0, DESCRIBED, torch.device("cpu"))
        made.initialize()
        yield made


def stock_transforms(*, dummy_2d: bool) -> Any:
    """The training transforms of a cascade with regions, its rotation certain."""
    dimensions = 3 if dummy_2d else 2
    stock = theirs("nnUNetTrainer").get_training_transforms(
        (4, 16, 16)[-dimensions:], (0.7, 0.7), None, tuple(range(dimensions)), dummy_2d, use_mask_for_norm=[True],
        is_cascaded=True, foreground_labels=[1], regions=[(1,)],
    )  # fmt: skip
    for part in stock.transforms:
        if hasattr(part, "p_rotation"):
            part.p_rotation = 1
    return stock


@pytest.mark.parametrize("dummy_2d", [False, True])
def test_a_float_target_goes_with_the_image_and_is_left_alone_else(dummy_2d):
    """nnunet/transforms.py: every transform moves it as it moves the image, linearly, or does not touch it."""
    shape, moved = (4, 16, 16)[0 if dummy_2d else 1 :], []
    torch.manual_seed(0)
    np.random.seed(0)
    step = (torch.arange(16) > 7).float().expand(1, *shape).clone()
    data = {
        "image": step,
        "regression_target": step.clone(),
        "segmentation": step.to(torch.int16).repeat(2, *[1] * len(shape)),
    }
    for part in stock_transforms(dummy_2d=dummy_2d).transforms:
        part = getattr(part, "transform", part)  # a random one, for certain
        data["image"] = data["regression_target"].clone()
        before = data["regression_target"].clone()
        data = part(**data)
        after = data["regression_target"]
        kind = type(part).__name__
        assert after.dtype == torch.float32, kind
        if after.shape != before.shape or not torch.equal(after, before):
            moved.append(kind)
            assert torch.equal(after, data["image"]), kind
        if kind == "SpatialTransform":
            assert ((after > 0) & (after < 1)).any(), "no linear interpolation"
    assert set(moved) <= {
        "SpatialTransform",
        "MirrorTransform",
        "Convert3DTo2DTransform",
        "Convert2DTo3DTransform",
    }
    assert "SpatialTransform" in moved


def test_outside_the_image_a_float_target_is_0():
    """nnunet/transforms.py: 0 is background."""
    part = next(it for it in stock_transforms(dummy_2d=False).transforms if hasattr(it, "p_rotation"))
    ones = torch.ones(1, 16, 16)
    out = part(image=ones, regression_target=ones.clone(), segmentation=ones.to(torch.int16))
    assert out["regression_target"][0, 0, 0] == 0
    assert out["segmentation"][0, 0, 0] == -1


def test_a_mirrored_float_target():
    part = next(it for it in stock_transforms(dummy_2d=False).transforms if hasattr(it, "allowed_axes"))
    ramp = torch.arange(16.0).view(1, 4, 4)
    out = part.apply({"regression_target": ramp}, axes=[1])
    assert torch.equal(out["regression_target"], ramp.flip(2))


def test_which_transforms_change_the_image_alone():
    """nnunet/views.py leaves these out of the weak view."""
    parts = [getattr(it, "transform", it) for it in theirs("nnUNetTrainer").get_training_transforms(
        (16, 16), (0, 0), None, (0, 1), False, use_mask_for_norm=[True]
    ).transforms]  # fmt: skip
    others = [type(it).__name__ for it in parts if not isinstance(it, theirs("ImageOnlyTransform"))]
    assert others == ["SpatialTransform", "MirrorTransform", "MaskImageTransform", "RemoveLabelTransform"]


class Lazy:
    """An array as nnunet/dataset.py stacks them: it has a shape, a dtype, and regions of all channels."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, index):
        assert index[0] == slice(None), "the channels are sliced apart"
        return self.array[index]


def test_the_loader_crops_pads_and_collates_all_channels():
    """nnunet/dataset.py, nnunet/transforms.py: soft maps ride behind the labels."""
    seen = []

    def note(**data):
        seen.append(data)
        return {"image": data["image"], "segmentation": data["segmentation"].float() / 2}

    array = np.arange(3 * 4 * 4, dtype=np.int16).reshape(3, 1, 4, 4)
    case = np.zeros((1, 1, 4, 4), np.float32), Lazy(array), None, {"class_locations": {1: []}}
    dataset = SimpleNamespace(identifiers=["a"], load_case=lambda identifier: case)
    labels = theirs("LabelManager")({"background": 0, "a": 1}, None)
    batch = next(theirs("nnUNetDataLoader")(dataset, 1, (6, 6), (6, 6), labels, transforms=note))
    assert set(seen[0]) == {"image", "segmentation"}
    assert seen[0]["segmentation"].dtype == torch.int16
    padded = np.pad(array[:, 0], ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    assert batch["target"].dtype == torch.float32
    np.testing.assert_array_equal(batch["target"][0], padded / 2)
    assert batch["data"].shape == (1, 1, 6, 6)


def test_the_files_of_preprocessed_cases(trainer):
    """nnunet/soft_maps.py, nnunet/unlabelled_making.py."""
    folder = Path(trainer.preprocessed_dataset_folder)
    assert {it.name for it in folder.glob("a*")} == {"a.b2nd", "a_seg.b2nd", "a.pkl"}
    kind = theirs("infer_dataset_class")(str(folder))
    assert kind is theirs("nnUNetDatasetBlosc2")
    assert sorted(kind.get_identifiers(str(folder))) == CASES
    data, seg, previous, properties = kind(str(folder), []).load_case("a")
    assert (data.shape, seg.shape, previous) == ((1, 1, 16, 16), (1, 1, 16, 16), None)
    assert properties == {"class_locations": {1: []}}


def test_new_splits_are_drawn_as_we_draw_them(trainer):
    """nnunet/student.py, nnunet/splits.py."""
    with redirect_stdout(StringIO()):
        training, validation = trainer.do_split()
    ours = theirs("generate_crossval_split")(sorted(CASES), seed=12345, n_splits=5)
    written = json.loads((Path(trainer.preprocessed_dataset_folder_base) / "splits_final.json").read_text())
    assert written == [{side: list(map(str, it[side])) for side in ("train", "val")} for it in ours]
    assert (list(training), list(validation)) == (written[0]["train"], written[0]["val"])


def test_a_trainer_is_found_in_the_folders_of_the_variable(tmp_path, monkeypatch):
    """_folders.py, plugin: the class itself, not a copy, although the module is dropped; the first folder wins."""
    for name, line in (("one", f"from {__name__} import Mine as FoundTrainer"), ("two", "FoundTrainer = 1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"module_{name}.py").write_text(f"{line}\n")
    mine = type("Mine", (theirs("nnUNetTrainer"),), {})
    monkeypatch.setattr(sys.modules[__name__], "Mine", mine, raising=False)
    monkeypatch.setenv("nnUNet_extTrainer", f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'two'}")
    with redirect_stdout(StringIO()):
        assert theirs("recursive_find_trainer_class_by_name")("FoundTrainer") is mine
        assert "module_one" not in sys.modules
        monkeypatch.delenv("nnUNet_extTrainer")
        with pytest.raises(RuntimeError, match="FoundTrainer"):
            theirs("recursive_find_trainer_class_by_name")("FoundTrainer")


def test_a_training_calls_its_hooks_in_this_order(trainer, monkeypatch):
    """nnunet/trainers: seeds, records and averaged weights rely on it."""
    epoch = "on_epoch_start on_train_epoch_start train_step train_step on_train_epoch_end on_validation_epoch_start "
    epoch += "validation_step on_validation_epoch_end on_epoch_end"
    order, called = ["on_train_start", *epoch.split(), "on_train_end"], []
    for hook in set(order):
        monkeypatch.setattr(trainer, hook, lambda *_, hook=hook: called.append(hook))
    for name, value in (
        ("num_epochs", 1),
        ("num_iterations_per_epoch", 2),
        ("num_val_iterations_per_epoch", 1),
    ):
        monkeypatch.setattr(trainer, name, value)
    for loader in ("dataloader_train", "dataloader_val"):
        monkeypatch.setattr(trainer, loader, iter([{}] * 2))
    trainer.run_training()
    assert called == order


def test_a_step_hands_targets_to_the_loss_as_they_are(trainer, monkeypatch):
    """nnunet/trainers/soft.py: one target for all outputs; nnunet/trainers/semi_supervised.py: a list of several."""
    seen = []

    def loss(output, target):
        seen.append((output, target))
        return sum(it.mean() for it in output)

    monkeypatch.setattr(trainer, "loss", loss)
    trainer.set_deep_supervision_enabled(True)
    images, target = torch.rand(2, 1, 16, 16), torch.rand(2, 3, 16, 16)
    assert set(trainer.train_step({"data": images, "target": target})) == {"loss"}
    trainer.train_step({"data": images, "target": [target] * 3})
    assert [len(output) for output, _ in seen] == [2, 2]
    assert torch.equal(seen[0][1], target)
    assert len(seen[1][1]) == 3
    hard = torch.zeros(2, 1, 16, 16)
    found = trainer.validation_step({"data": images, "target": [hard, hard[..., ::2, ::2]]})
    assert set(found) == {"loss", "tp_hard", "fp_hard", "fn_hard"}
    assert found["tp_hard"].shape == (1,)


def test_figures_beside_nnunets_own(trainer):
    """nnunet/online.py and the trainers: more outputs of a validation step, more series in the logger."""
    one = np.ones(1)
    outputs = [
        {"loss": np.array(0.5), "tp_hard": one, "fp_hard": one, "fn_hard": one, "more": np.ones((2, 3))}
    ] * 2
    trainer.on_validation_epoch_end(outputs)
    assert trainer.logger.get_value("dice_per_class_or_region", step=-1) == [0.5]
    trainer.logger.local_logger.my_fantastic_logging.update({"ours": []})
    trainer.logger.log("ours", [1.5, 2.5], 0)
    assert trainer.logger.get_value("ours", step=-1) == [1.5, 2.5]
    assert trainer.logger.get_value("ours", step=None) == [[1.5, 2.5]]


def test_what_a_checkpoint_holds(trainer, tmp_path):
    """nnunet/checkpoints.py, nnunet/export.py, nnunet/trained_model.py."""
    file = tmp_path / "checkpoint.pth"
    trainer.logger.local_logger.my_fantastic_logging["kept"] = [1]
    trainer.save_checkpoint(str(file))
    found = torch.load(file, weights_only=False)
    assert found["network_weights"].keys() == trainer.network.state_dict().keys()
    assert found["init_args"].keys() == {"plans", "configuration", "fold", "dataset_json", "device"}
    assert found["init_args"]["plans"]["nnunet_dml"] == {"ours": 1}
    assert (found["trainer_name"], found["current_epoch"]) == ("nnUNetTrainer", trainer.current_epoch + 1)
    assert "inference_allowed_mirroring_axes" in found
    trainer.logger.local_logger.my_fantastic_logging["kept"] = []
    trainer.load_checkpoint(str(file))
    assert trainer.logger.get_value("kept", step=-1) == 1
    trainer.current_epoch = 0


def test_deep_supervision_is_a_switch_of_the_decoder(trainer):
    """nnunet/trainers/networks.py, nnunet/segmentation_models.py, nnunet/trainers/semi_supervised.py."""
    images = torch.rand(1, 1, 16, 16)
    for enabled in (False, True):
        trainer.set_deep_supervision_enabled(enabled)
        assert trainer.network.decoder.deep_supervision is enabled
        assert isinstance(trainer.network(images), list) is enabled
    assert trainer._get_deep_supervision_scales() == [[1.0, 1.0], [0.5, 0.5]]


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


def test_the_oldest_environment_has_the_lower_bounds_of_the_package():
    """What pyproject.toml allows is what is tested."""
    root = PACKAGE.parent
    pinned_file = root / ".ci" / "oldest.txt"
    if not pinned_file.is_file():
        pytest.skip("a source archive has no .ci")
    pinned = dict(line.split("==") for line in pinned_file.read_text().split())
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    sections = re.findall(
        r"^(?:dependencies|slurm|networks|test) = \[(.*?)\](?:\n|  #)", text, re.DOTALL | re.MULTILINE
    )
    requirements = [Requirement(it) for section in sections for it in re.findall(r'"([^"]+)"', section)]
    lowest = {
        it.name.lower(): Version(bound.version)
        for it in requirements
        for bound in it.specifier
        if bound.operator == ">="
    }
    assert {name: Version(Version(it).base_version) for name, it in pinned.items()} == lowest
