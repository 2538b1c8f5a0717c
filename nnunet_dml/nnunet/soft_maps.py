"""Preprocessed soft maps: where they stand, what they were made of, and whether they are up to date."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_dml._checks import InputError, some
from nnunet_dml._folders import folder_if_there, rater_files
from nnunet_dml.labels.storage import DamagedSoftMapError, open_soft_map, verify_soft_map

if TYPE_CHECKING:
    from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer

BITS = 8
SCALE = 255  # the integer of 1.0 at 8 bit
DEFAULT_FUSION = "weighted"


def folder(preprocessed: str | Path, data_identifier: str, fusion: str) -> Path:
    """Where the soft maps of one configuration and fusion stand: beside nnU-Net's own arrays, never among them."""
    return Path(preprocessed) / f"{data_identifier}_soft" / fusion


def resolve_source(source: str, dataset_json: Mapping[str, Any]) -> str:
    """What `labels.source=auto` means for a data set: the default fusion where it has raters, else hard labels."""
    if source != "auto":
        return source
    return DEFAULT_FUSION if dataset_json.get("nnunet_dml", {}).get("raters") else "hard"


def command_for(dataset: str, plans_name: str, configuration: str, fusion: str) -> str:
    """The command line that makes the soft maps of one configuration and fusion."""
    plans = "" if plans_name == "nnUNetPlans" else f" -p {plans_name}"
    labels = "" if fusion == DEFAULT_FUSION else f" --fusion {fusion}"
    return f"nnunet-dml preprocess -d {dataset} -c {configuration}{plans}{labels}"


def mask_files(raw: Path, case: str, file_ending: str) -> dict[str, Path]:
    """The mask files of a case by rater, in order; the consensus alone where the case has no raters."""
    consensus = raw / "labelsTr" / f"{case}{file_ending}"
    return rater_files(raw, case, file_ending) or {"labelsTr": consensus}


def digests(files: Mapping[str, Path]) -> dict[str, str]:
    """A digest of every file's bytes."""
    return {
        name: hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest() for name, path in files.items()
    }


def grid_of(arrays: str | Path, case: str) -> dict[str, Any]:
    """What identifies nnU-Net's grid of a case: spatial shape, bounding box, original spacing."""
    properties = load_pickle(str(Path(arrays) / f"{case}.pkl"))
    array = infer_dataset_class(str(arrays))(str(arrays), [case]).load_case(case)[0]
    return {
        "shape": [int(n) for n in array.shape[1:]],
        "bbox": [[int(low), int(high)] for low, high in properties["bbox_used_for_cropping"]],
        "spacing": [float(s) for s in properties["spacing"]],
    }


def why_not_current(path: Path, expected: Mapping[str, Any], *, whole: bool = False) -> str | None:
    """Why a soft map must be made again, or None if it is up to date.

    Args:
        path: The soft map.
        expected: Metadata that it should have (any of `fusion`, `sources`, `grid`).
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
    """Make sure that a training finds an up-to-date soft map for every case.

    The raters' files are compared where the raw data set is at hand; nnU-Net does not need it for training.

    Returns:
        The mean share of fractional voxels over the cases.

    Raises:
        InputError: Maps are missing, damaged or stale; with the command that makes them.
    """
    name, fusion = trainer.plans_manager.dataset_name, trainer.source
    raw = folder_if_there("nnUNet_raw")
    ending = trainer.dataset_json["file_ending"]
    shares, bad = [], []
    assert trainer.soft_folder is not None
    for case in cases:
        expected: dict[str, Any] = {
            "fusion": fusion,
            "grid": grid_of(trainer.preprocessed_dataset_folder, case),
        }
        if raw is not None:
            files = mask_files(raw / name, case, ending)
            if all(path.is_file() for path in files.values()):
                expected["sources"] = digests(files)
        path = trainer.soft_folder / f"{case}.b2nd"
        reason = why_not_current(path, expected)
        if reason:
            bad.append(f"{case} ({reason})")
        else:
            shares.append(open_soft_map(path).metadata["fractional"])
    if bad:
        command = command_for(name, trainer.plans_manager.plans_name, trainer.configuration_name, fusion)
        raise InputError(
            f"{trainer.soft_folder}: expected up-to-date soft maps of all cases, found {some(bad)}. Run `{command}`."
        )
    return sum(shares) / len(shares)
