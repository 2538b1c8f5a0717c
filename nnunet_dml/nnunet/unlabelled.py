"""Images without labels: `imagesUnlabelledTr` in the raw data set, and what is made of them.

nnU-Net's own preprocessor makes its own files of them, `<data_identifier>_unlabelled/<case>.b2nd`, `…_seg.b2nd` (0 inside
the image's mask, −1 outside) and `….pkl`, which nnU-Net's own dataset reads. What they were made of and for rides in
the `.pkl`, which is written last: a killed run leaves no case that looks whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._folders import environment_folder, find_dataset, folder_if_there
from nnunet_dml._images import PICTURES, split_ending
from nnunet_dml.nnunet.plain_pickles import read_properties
from nnunet_dml.nnunet.soft_maps import digests

if TYPE_CHECKING:
    from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer

FOLDER = "imagesUnlabelledTr"
KEY, FORMAT = "nnunet_dml", 1
FILES = ("{}.b2nd", "{}_seg.b2nd")


def folder(preprocessed: str | Path, data_identifier: str) -> Path:
    """Where the preprocessed cases of one configuration stand: beside nnU-Net's own, never among them."""
    return Path(preprocessed) / f"{data_identifier}_unlabelled"


def has_images(dataset: str) -> bool:
    """Whether the raw data set of an id or name has a folder of unlabelled images."""
    return (find_dataset(dataset, environment_folder("nnUNet_raw")) / FOLDER).is_dir()


def channel_count(dataset_json: Mapping[str, Any]) -> int:
    """Number of channels of a data set's images; older ones call them `modality`, as nnU-Net allows."""
    return len(dataset_json.get("channel_names") or dataset_json["modality"])


def command_for(dataset: str, plans_name: str, configuration: str) -> str:
    """The command line that preprocesses the unlabelled images of one configuration."""
    plans = "" if plans_name == "nnUNetPlans" else f" -p {plans_name}"
    return f"nnunet-dml preprocess -d {dataset} -c {configuration}{plans}"


def raw_cases(raw: Path, file_ending: str, channels: int) -> dict[str, dict[str, Path]]:
    """The unlabelled images of a raw data set.

    Args:
        raw: The data set's folder in nnUNet_raw.
        file_ending: Of its images.
        channels: How many it has. A picture may hold all of them in one file.

    Returns:
        By case, sorted, its files by the number in their names, `0000`, …

    Raises:
        InputError: There are none, names that nnU-Net does not know, cases that lack channels, or that are labelled.
    """
    where = raw / FOLDER
    files = sorted(it for it in where.iterdir() if not it.name.startswith(".")) if where.is_dir() else []
    name = re.compile(rf"(.+)_(\d{{4}}){re.escape(file_ending)}")
    cases: dict[str, dict[str, Path]] = {}
    for path in files:
        if match := name.fullmatch(path.name):
            cases.setdefault(match[1], {})[match[2]] = path
    expected = f"unlabelled images CASE_0000{file_ending}, as in imagesTr"
    if not cases:
        found = some(it.name for it in files) or ("none" if where.is_dir() else "no folder")
        raise InputError(
            problem(
                where, expected=expected, found=found, todo="Put them there and run `nnunet-dml preprocess`."
            )
        )
    problems = []
    if strange := [it.name for it in files if _is_image(it, file_ending) and not name.fullmatch(it.name)]:
        problems.append(problem(where, expected=expected, found=some(strange), todo="Rename them."))
    wanted = [f"{number:04d}" for number in range(channels)]
    for case, its in cases.items():
        if list(its) != wanted and not (file_ending in PICTURES and list(its) == wanted[:1]):
            todo = f"Complete the case, or remove it from {FOLDER}."
            expected = f"channels {', '.join(wanted)} of {case}"
            problems.append(problem(where, expected=expected, found=", ".join(its), todo=todo))
    if labelled := sorted(case for case in cases if (raw / "labelsTr" / f"{case}{file_ending}").is_file()):
        todo = f"Remove them from {FOLDER}, or rename them if they are others."
        found = some(labelled)
        problems.append(problem(where, expected="cases that are not in labelsTr", found=found, todo=todo))
    if problems:
        raise InputError(*problems)
    return dict(sorted(cases.items()))


def _is_image(path: Path, file_ending: str) -> bool:
    """Whether nnU-Net knows the ending, of this data set or of others."""
    return path.name.endswith(file_ending) or bool(split_ending(path.name)[1])


def made_for(plans: PlansManager, configuration: ConfigurationManager, channels: int) -> dict[str, Any]:
    """All of the plans that preprocessing depends on; a case that was made for something else is stale."""
    return {
        "format": FORMAT,
        "channels": channels,
        "reader": plans.plans["image_reader_writer"],
        "transpose": [int(axis) for axis in plans.transpose_forward],
        "intensities": plans.foreground_intensity_properties_per_channel,
        **{
            key: configuration.configuration.get(key)
            for key in (
                "preprocessor_name",
                "spacing",
                "normalization_schemes",
                "use_mask_for_norm",
                "resampling_fn_data",
                "resampling_fn_data_kwargs",
            )
        },
    }


def sizes(files: Mapping[str, Path]) -> dict[str, int]:
    """The size of every file, in bytes."""
    return {name: path.stat().st_size for name, path in files.items()}


def why_not_current(
    out: Path, case: str, expected: Mapping[str, Any], sources: Mapping[str, Path] | None, *, whole: bool
) -> str | None:
    """Why a case must be made again, or None if it is up to date.

    Args:
        out: The folder of preprocessed cases.
        case: Its name.
        expected: See `made_for`.
        sources: Its images by channel; None where they are not at hand.
        whole: Whether to read all files, its own and the images; else only sizes are compared.
    """
    record_file = out / f"{case}.pkl"
    if not record_file.is_file():
        return "missing"
    try:
        record = read_properties(record_file)[KEY]
        own = {name: out / name for name in record["files"]}
        damaged = sizes(own) != {name: size for name, (size, _) in record["files"].items()} or (
            whole and digests(own) != {name: digest for name, (_, digest) in record["files"].items()}
        )
    except Exception:  # a damaged pickle makes NumPy raise whatever it does
        return "damaged"
    if damaged:
        return "damaged"
    changed = [key for key, value in expected.items() if record["made_for"].get(key) != value]
    if sources is not None:
        same = sizes(sources) == {name: size for name, (size, _) in record["sources"].items()}
        if same and whole:
            same = digests(sources) == {name: digest for name, (_, digest) in record["sources"].items()}
        changed += [] if same else ["image"]
    return f"stale: {', '.join(changed)} changed" if changed else None


def fingerprints(files: Mapping[str, Path]) -> dict[str, tuple[int, str]]:
    """Size and digest of every file."""
    by_size, by_digest = sizes(files), digests(files)
    return {name: (by_size[name], by_digest[name]) for name in files}


def made_cases(out: Path) -> list[str]:
    """The cases that have been preprocessed."""
    return sorted(path.stem for path in out.glob("*.pkl"))


def check_for_training(trainer: SoftLabelTrainer) -> list[str]:
    """Make sure that a training finds its unlabelled cases, up to date.

    They are compared with the images where the raw data set is at hand, by names and sizes.

    Returns:
        The cases.

    Raises:
        InputError: There are none, or some are missing, damaged or stale; with the command that makes them.
    """
    plans, configuration = trainer.plans_manager, trainer.configuration_manager
    assert trainer.preprocessed_dataset_folder_base is not None
    out = folder(trainer.preprocessed_dataset_folder_base, configuration.data_identifier)
    command = command_for(plans.dataset_name, plans.plans_name, trainer.configuration_name)
    channels = channel_count(trainer.dataset_json)
    raw_root = folder_if_there("nnUNet_raw")
    raw = raw_root / plans.dataset_name if raw_root else None
    made = made_cases(out)
    sources: dict[str, dict[str, Path]] = {}
    if raw is not None and (raw / "dataset.json").is_file() and ((raw / FOLDER).is_dir() or not made):
        sources = raw_cases(raw, trainer.dataset_json["file_ending"], channels)
    cases = list(sources) or made
    if not cases:
        expected = f"unlabelled cases, made of {FOLDER} in the raw data set"
        raise InputError(problem(out, expected=expected, found="none", todo=f"Run `{command}`."))
    expected_record = made_for(plans, configuration, channels)
    bad = [
        f"{case} ({reason})"
        for case in cases
        if (reason := why_not_current(out, case, expected_record, sources.get(case), whole=False))
    ]
    bad += [f"{case} (no longer in {FOLDER})" for case in made if case not in cases]
    if bad:
        expected = f"up-to-date cases, as in {FOLDER}"
        raise InputError(problem(out, expected=expected, found=some(bad), todo=f"Run `{command}`."))
    labelled = {case for keys in trainer.do_split() for case in keys}
    if twice := sorted(labelled & set(cases)):
        todo = f"Remove them from {FOLDER} and run `{command}`."
        raise InputError(problem(out, expected="no case that is labelled", found=some(twice), todo=todo))
    return cases


def remove_case(out: Path, case: str) -> None:
    """Remove a case, the record first, so that no half of it looks whole."""
    for name in (f"{case}.pkl", *(file.format(case) for file in FILES)):
        (out / name).unlink(missing_ok=True)
