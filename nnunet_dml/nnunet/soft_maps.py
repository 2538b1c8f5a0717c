"""Preprocessed soft maps: where they stand, what they were made of, and whether they are up to date."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetBaseDataset

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import read_json
from nnunet_dml._folders import all_rater_files, folder_if_there, listed_raters, own_block
from nnunet_dml.labels.fusion import FUSIONS
from nnunet_dml.labels.storage import DamagedSoftMapError, open_soft_map, verify_soft_map
from nnunet_dml.nnunet.plain_pickles import read_properties
from nnunet_dml.nnunet.user_maps import user_map_file

if TYPE_CHECKING:
    from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer

BITS = 8
SCALE = 255  # the integer of 1.0 at 8 bit
DEFAULT_FUSION = "weighted"
SOURCES = (*FUSIONS, "random", "file")  # what has maps on disk; beside it there are nnU-Net's own hard labels


def folder(preprocessed: str | Path, data_identifier: str, fusion: str) -> Path:
    """Where the soft maps of one configuration and fusion stand: beside nnU-Net's own arrays, never among them."""
    return Path(preprocessed) / f"{data_identifier}_soft" / fusion


def resolve_source(source: str, dataset_json: Mapping[str, Any], path: str | Path = "dataset.json") -> str:
    """What `labels.source=auto` means for a data set: the default fusion where it has raters, else hard labels.

    Args:
        source: As the options have it.
        dataset_json: What the data set's dataset.json holds.
        path: That file, for the message.

    Raises:
        InputError: See `own_block`.
    """
    if source != "auto":
        return source
    return DEFAULT_FUSION if own_block(dataset_json, path).get("raters") else "hard"


def command_for(dataset: str, plans_name: str, configuration: str, fusion: str) -> str:
    """The command line that makes the soft maps of one configuration and fusion."""
    plans = "" if plans_name == "nnUNetPlans" else f" -p {plans_name}"
    labels = "" if fusion == DEFAULT_FUSION else f" --fusion {fusion}"
    return f"nnunet-dml preprocess -d {dataset} -c {configuration}{plans}{labels}"


def stock_command_for(dataset: str, plans_name: str, configuration: str) -> str:
    """nnU-Net's own command line that preprocesses one configuration again."""
    plans = "" if plans_name == "nnUNetPlans" else f" -plans_name {plans_name}"
    number = re.match(r"Dataset(\d+)_", dataset)  # the one thing that this command takes
    return f"nnUNetv2_preprocess -d {number[1] if number else dataset} -c {configuration}{plans}"


def source_files(
    raw: Path, case: str, file_ending: str, listed: list[str] | None, source: str, *, ignore: bool
) -> dict[str, Path]:
    """What the map of a case is made of.

    Returns:
        For `file` the user's own map, with an ignore label the consensus, too, which says where it is; else the masks by rater, in order, or the consensus alone where the case has
        no raters.

    Raises:
        InputError: There are other raters than those that dataset.json lists.
    """
    consensus = raw / "labelsTr" / f"{case}{file_ending}"
    if source == "file":
        own = {"file": user_map_file(raw, case, file_ending)}
        return {**own, "labelsTr": consensus} if ignore else own
    return all_rater_files(raw, case, file_ending, listed) or {"labelsTr": consensus}


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """A digest of every file's bytes."""
    return {
        name: hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest() for name, path in files.items()
    }


def stock_dataset(arrays: str | Path, *, redo: str) -> nnUNetBaseDataset:
    """nnU-Net's own preprocessed cases.

    Args:
        arrays: nnU-Net's folder of the configuration.
        redo: The command that makes the folder anew, for the message.

    Raises:
        InputError: The folder is missing or holds files of several kinds.
    """
    try:
        dataset: nnUNetBaseDataset = infer_dataset_class(str(arrays))(str(arrays), [])
    except (AssertionError, KeyError, OSError) as error:
        expected, found = "nnU-Net's preprocessed cases", first_line(error)
        raise InputError(problem(arrays, expected=expected, found=found, todo=f"Run `{redo}`.")) from None
    return dataset


def stock_properties(
    dataset: nnUNetBaseDataset, case: str, *, redo: str
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The spatial shape and the properties of a case that nnU-Net has preprocessed.

    Raises:
        InputError: Its files are damaged, lack something or hold code; with the command that makes them anew.
    """
    try:
        # nnU-Net's own reading would run code that it holds
        read_properties(Path(dataset.source_folder) / f"{case}.pkl")
        array, _, _, properties = dataset.load_case(case)
        _check_geometry(grid_of(array.shape[1:], properties), properties)
        return tuple(array.shape[1:]), properties
    except Exception as error:  # blosc2, NumPy and pickle raise whatever they say
        where = Path(dataset.source_folder) / f"{case}.*"
        expected, found = "whole files of a case that nnU-Net has preprocessed", first_line(error)
        raise InputError(problem(where, expected=expected, found=found, todo=f"Run `{redo}`.")) from None


def grid_of(shape: Sequence[int], properties: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies nnU-Net's grid of a case: spatial shape, bounding box, original spacing."""
    return {
        "shape": [int(n) for n in shape],
        "bbox": [[int(low), int(high)] for low, high in properties["bbox_used_for_cropping"]],
        "spacing": [float(s) for s in properties["spacing"]],
    }


def _check_geometry(grid: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless a case lies somewhere in space: three axes, a box within the image, real voxels."""
    whole, box, spacing = properties["shape_before_cropping"], grid["bbox"], grid["spacing"]
    if len(grid["shape"]) != 3 or min(grid["shape"]) < 1:
        raise ValueError(f"an array of shape {grid['shape']}")
    if len(whole) != 3 or len(box) != 3 or box != [list(it) for it in properties["bbox_used_for_cropping"]]:
        raise ValueError(f"bbox_used_for_cropping {box} of shape_before_cropping {whole}")
    if not all(0 <= low < high <= size for (low, high), size in zip(box, whole, strict=True)):
        raise ValueError(f"bbox_used_for_cropping {box} outside shape_before_cropping {list(whole)}")
    if len(spacing) != 3 or not all(0 < it < math.inf for it in spacing):
        raise ValueError(f"spacing {spacing}")


def made_for(
    fusion: str, num_foreground: int, ignore: bool, transpose: Sequence[int], grid: Mapping[str, Any]
) -> dict[str, Any]:
    """The metadata that a map must have to fit a training, whatever it was made of.

    Args:
        fusion: One of `SOURCES`.
        num_foreground: Number of foreground classes.
        ignore: Whether the data set has an ignore label, so that fractions have a channel of ignored voxels.
        transpose: `transpose_forward` of the plans.
        grid: See `grid_of`.
    """
    return {
        "fusion": fusion,
        "foreground": num_foreground,
        "ignore": ignore,
        "transpose": [int(axis) for axis in transpose],
        "grid": dict(grid),
    }


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ").removesuffix(".")


def why_not_current(path: Path, expected: Mapping[str, Any], *, whole: bool = False) -> str | None:
    """Why a soft map must be made again, or None if it is up to date.

    Args:
        path: The soft map.
        expected: Metadata that it should have (`made_for`, `sources`).
        whole: Whether to read all voxels against the checksum, too.
    """
    try:
        found = (verify_soft_map if whole else open_soft_map)(path).metadata
    except FileNotFoundError:
        return "missing"
    except DamagedSoftMapError:
        return "damaged"
    changed = [key for key, value in expected.items() if found.get(key) != value]
    return f"stale: {', '.join(changed)} changed" if changed else None


def check_for_training(trainer: SoftLabelTrainer, cases: Iterable[str]) -> float:
    """Make sure that a training finds an up-to-date map for every case.

    The masks are compared where the raw data set is at hand with all that dataset.json lists: nnU-Net does not
    need it for training.

    Returns:
        The share of fractional voxels among those of all cases (of voxels where raters differ for `random`).

    Raises:
        InputError: Maps are missing, damaged or stale; with the command that makes them.
    """
    name, fusion = trainer.plans_manager.dataset_name, trainer.source
    raw = folder_if_there("nnUNet_raw")
    described, where = trainer.dataset_json, Path(trainer.preprocessed_dataset_folder).parent / "dataset.json"
    if raw is not None and (raw / name / "dataset.json").is_file():
        where = raw / name / "dataset.json"  # that in nnUNet_preprocessed may be older
        described = read_json(where)
    listed = listed_raters(described, where)
    redo = stock_command_for(name, trainer.plans_manager.plans_name, trainer.configuration_name)
    stock = stock_dataset(trainer.preprocessed_dataset_folder, redo=redo)
    voxels, fractional, bad = 0, 0.0, []
    assert trainer.maps_folder is not None
    for case in cases:
        grid = grid_of(*stock_properties(stock, case, redo=redo))
        layout, transpose = trainer.layout, trainer.plans_manager.transpose_forward
        ignore = layout.ignore_label is not None
        expected = made_for(fusion, layout.foreground, ignore, transpose, grid)
        if raw is not None:
            ending = trainer.dataset_json["file_ending"]
            expected |= sources_now(raw / name, case, ending, listed.get(case), fusion, ignore=ignore)
        path = trainer.maps_folder / f"{case}.b2nd"
        reason = why_not_current(path, expected)
        if reason:
            bad.append(f"{case} ({reason})")
        else:
            found = open_soft_map(path).metadata
            voxels += found["voxels"]
            fractional += found["fractional"] * found["voxels"]
    if bad:
        command = command_for(name, trainer.plans_manager.plans_name, trainer.configuration_name, fusion)
        raise InputError(
            f"{trainer.maps_folder}: expected up-to-date soft maps of all cases, found {some(bad)}. Run `{command}`."
        )
    return fractional / voxels


def sources_now(
    raw: Path, case: str, file_ending: str, listed: list[str] | None, source: str, *, ignore: bool
) -> dict[str, Any]:
    """The digests of what a map was made of, to be compared; nothing where that is not at hand."""
    files = source_files(raw, case, file_ending, None, source, ignore=ignore)
    wanted = set() if source == "file" else set(listed or ())
    if wanted <= set(files) and all(path.is_file() for path in files.values()):
        return {"sources": digests(files)}
    return {}
