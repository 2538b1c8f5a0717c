"""`nnunet-dml preprocess` for images without labels: nnU-Net's own preprocessing, case by case."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from batchgenerators.utilities.file_and_folder_operations import write_pickle
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_dml._checks import InputError, problem
from nnunet_dml._files import atomic_folder, clear_leftovers, read_json
from nnunet_dml._images import ending_of_dataset
from nnunet_dml._parallel import each
from nnunet_dml.nnunet import unlabelled
from nnunet_dml.nnunet.preprocess import find_arrays
from nnunet_dml.nnunet.raw_images import read_images
from nnunet_dml.nnunet.soft_maps import first_line


@dataclass(frozen=True)
class _Case:
    """What one worker needs to make one case."""

    name: str
    files: dict[str, Path]  # images by channel
    out: Path
    plans_file: Path
    configuration: str
    dataset_json: dict[str, Any]


def preprocess_unlabelled(
    dataset: str,
    *,
    plans_name: str = "nnUNetPlans",
    configurations: Sequence[str] | None = None,
    num_processes: int = 2,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Preprocess the images of `imagesUnlabelledTr` as nnU-Net does the others; what is up to date is kept.

    Args:
        dataset: Id or name.
        plans_name: nnU-Net's plans identifier.
        configurations: Names such as `2d`; None takes all configurations that nnU-Net has preprocessed.
        num_processes: Worker processes.
        overwrite: Whether to make up-to-date cases anew.

    Returns:
        One row per configuration: its folder, counts of cases by what was done, the cases that were removed because
        their images are gone.

    Raises:
        InputError: Folders, plans or images are missing or bad; all of them are named.
    """
    arrays = find_arrays(dataset, plans_name, configurations)
    described = read_json(arrays.raw / "dataset.json")
    try:
        channels = unlabelled.channel_count(described)
    except (KeyError, TypeError) as error:
        expected = "`channel_names` as nnU-Net wants them"
        raise InputError(
            problem(arrays.raw / "dataset.json", expected=expected, found=first_line(error))
        ) from None
    ending = ending_of_dataset(described, arrays.raw / "dataset.json")
    cases = unlabelled.raw_cases(arrays.raw, ending, channels)
    rows, work = [], []
    for identifier, configuration in arrays.configurations.items():
        out = unlabelled.folder(arrays.preprocessed, identifier)
        out.mkdir(parents=True, exist_ok=True)
        clear_leftovers(out)
        for parts in out.glob("*.parts"):
            shutil.rmtree(parts)
        gone = [case for case in unlabelled.made_cases(out) if case not in cases]
        for case in gone:
            unlabelled.remove_case(out, case)
        rows.append({"configuration": configuration, "folder": out, "removed": gone})
        work += [
            _Case(name, files, out, arrays.plans_file, configuration, described)
            for name, files in cases.items()
        ]
    did = each(partial(_make, overwrite=overwrite), work, processes=num_processes, title="Unlabelled images")
    for row in rows:
        its = [reason for case, reason in zip(work, did, strict=True) if case.out == row["folder"]]
        row["cases"] = {reason: its.count(reason) for reason in sorted(set(its))}
    return rows


def _make(case: _Case, overwrite: bool) -> str:
    """Make one case unless it is up to date. Returns 'kept' or what was wrong before."""
    blosc2.set_nthreads(1)
    plans = PlansManager(str(case.plans_file))
    configuration = plans.get_configuration(case.configuration)
    channels = unlabelled.channel_count(case.dataset_json)
    expected = unlabelled.made_for(plans, configuration, channels)
    reason = unlabelled.why_not_current(case.out, case.name, expected, case.files, whole=True)
    if overwrite:
        reason = "overwritten"
    if reason is None:
        return "kept"
    data, seg, properties = _preprocessed(case, plans, configuration, channels)
    layouts = [
        comp_blosc2_params(it.shape, tuple(configuration.patch_size), it.itemsize) for it in (data, seg)
    ]
    (blocks, chunks), (blocks_seg, chunks_seg) = layouts
    parts = case.out / f"{case.name}.parts"
    with atomic_folder(parts, replace=True) as temporary:
        try:
            nnUNetDatasetBlosc2.save_case(
                data, seg, properties, str(temporary / case.name),
                chunks=chunks, blocks=blocks, chunks_seg=chunks_seg, blocks_seg=blocks_seg,
            )  # fmt: skip
        except RuntimeError as error:  # blosc2 does not say why
            raise OSError(errno.EIO, "could not be written; is the disk full?", str(parts)) from error
        names = [file.format(case.name) for file in unlabelled.FILES]
        record = {
            "made_for": expected,
            "sources": unlabelled.fingerprints(case.files),
            "files": unlabelled.fingerprints({name: temporary / name for name in names}),
        }
        # nnU-Net's loader asks for places of classes, of which there are none
        properties |= {"class_locations": {}, unlabelled.KEY: record}
        write_pickle(properties, str(temporary / f"{case.name}.pkl"))
    unlabelled.remove_case(case.out, case.name)
    for name in (*names, f"{case.name}.pkl"):  # the record last: with it the case is whole
        (parts / name).replace(case.out / name)
    parts.rmdir()
    return reason


def _preprocessed(
    case: _Case, plans: PlansManager, configuration: ConfigurationManager, channels: int
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """A case as nnU-Net's own preprocessor makes it: image, mask (0 inside, −1 outside), properties.

    Raises:
        InputError: Its images cannot be read, do not fit together, or lack channels or numbers.
    """
    paths = list(case.files.values())
    where, todo = paths[0], f"Mend it, or remove the case from {unlabelled.FOLDER}."
    image, properties = read_images(plans.image_reader_writer_class(), paths, case=case.name, todo=todo)
    if len(image) != channels:
        expected, found = f"{channels} channels, as in dataset.json", str(len(image))
        raise InputError(problem(where, expected=expected, found=found, todo=todo))
    if not image.any():
        raise InputError(problem(where, expected="an image", found="nothing but 0", todo=todo))
    try:
        data, seg, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
            image, None, properties, plans, configuration, case.dataset_json
        )
    except Exception as error:  # whatever goes wrong in it
        expected = f"images of {case.name} that nnU-Net can preprocess"
        raise InputError(problem(where, expected=expected, found=first_line(error), todo=todo)) from None
    return data.astype(np.float32, copy=False), seg.astype(np.int16, copy=False), properties
