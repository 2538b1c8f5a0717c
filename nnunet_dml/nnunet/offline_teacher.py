"""An offline teacher: what it says about the training cases, calibrated, on the student's grid.

A teacher whose preprocessing is another one than the student's cannot read the student's patches. It predicts whole
images instead, in original space; there it is calibrated with the case's labels, and then taken the way that nnU-Net
takes labels: transpose, crop, resample. The maps of a fold stand in `<data_identifier>_soft/teacher_<name>_fold_<k>`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import torch
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetBaseDataset
from nnunetv2.utilities.crossval_split import generate_crossval_split
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from tqdm import tqdm

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import atomic_file, clear_leftovers, read_json
from nnunet_dml._folders import environment_folder, find_dataset
from nnunet_dml.labels.storage import save_soft_map
from nnunet_dml.nnunet import soft_maps
from nnunet_dml.nnunet.distillation import TeachingRecord
from nnunet_dml.nnunet.map_making import crop, to_grid
from nnunet_dml.nnunet.option_groups import TeacherOptions
from nnunet_dml.nnunet.preprocess import read_labels, read_plans
from nnunet_dml.nnunet.rater_maps import RaterMaps
from nnunet_dml.nnunet.targets import TargetLayout
from nnunet_dml.nnunet.teacher import TeacherFold, locate, read_folds
from nnunet_dml.nnunet.teacher_calibration import Seen, TeacherCalibration
from nnunet_dml.nnunet.teacher_checks import check_offline
from nnunet_dml.nnunet.teacher_maps import BITS, RECORD, folder, made_for
from nnunet_dml.nnunet.whole_images import WholeImagePredictor

CHOSEN_ON = 4  # cases on which bandwidth or temperature is chosen


@dataclass(frozen=True)
class Student:
    """What a teacher has to know of its student."""

    raw: Path
    preprocessed: Path
    plans: PlansManager
    configuration: str
    dataset_json: dict[str, Any]
    layout: TargetLayout
    stock: nnUNetBaseDataset  # nnU-Net's own preprocessed cases
    redo: str  # the command that makes them anew
    splits: list[dict[str, list[str]]]

    @classmethod
    def read(cls, dataset: str, plans_name: str, configuration: str) -> Student:
        """Read and check a data set that nnU-Net has preprocessed.

        Raises:
            InputError: A folder, the plans, the configuration, the cases or their splits are missing or bad.
        """
        raw = find_dataset(dataset, environment_folder("nnUNet_raw"))
        preprocessed = environment_folder("nnUNet_preprocessed") / raw.name
        plans_file = preprocessed / f"{plans_name}.json"
        plans = read_plans(plans_file, dataset)
        labels, _, _ = read_labels(raw / "dataset.json", plans)
        if configuration not in plans.available_configurations:
            found = ", ".join(plans.available_configurations)
            raise InputError(problem(plans_file, expected=f"a configuration {configuration}", found=found))
        redo = soft_maps.stock_command_for(raw.name, plans_name, configuration)
        stock = soft_maps.stock_dataset(
            preprocessed / plans.get_configuration(configuration).data_identifier, redo=redo
        )
        dataset_json = read_json(raw / "dataset.json")
        return cls(
            raw, preprocessed, plans, configuration, dataset_json, TargetLayout.of(labels), stock, redo,
            _splits(preprocessed, stock),
        )  # fmt: skip

    def cases(self, fold: int | str) -> tuple[list[str], list[str]]:
        """The training and the validation cases of a fold; of `all` every case, twice, as nnU-Net has it."""
        if fold == "all":
            everything = sorted(self.stock.get_identifiers(self.stock.source_folder))
            return everything, everything
        split = self.splits[int(fold)]
        return list(split["train"]), list(split["val"])


def _splits(preprocessed: Path, stock: nnUNetBaseDataset) -> list[dict[str, list[str]]]:
    """nnU-Net's splits; drawn and written as nnU-Net's trainer does where there are none yet."""
    path = preprocessed / "splits_final.json"
    if not path.is_file():
        cases = sorted(stock.get_identifiers(stock.source_folder))
        splits: list[dict[str, list[str]]] = generate_crossval_split(cases, seed=12345, n_splits=5)
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(splits, indent=4), encoding="utf-8")
        return splits
    try:
        splits = [
            {side: list(map(str, it[side])) for side in ("train", "val")}
            for it in json.loads(path.read_text())
        ]
    except (ValueError, KeyError, TypeError):
        expected = "nnU-Net's splits"
        raise InputError(
            problem(path, expected=expected, found="something else", todo="Restore it.")
        ) from None
    return splits


def teach(
    dataset: str,
    *,
    name: str,
    options: TeacherOptions,
    plans_name: str,
    configuration: str,
    folds: Sequence[int | str] | None = None,
    device: torch.device,
    mirroring: bool = True,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Make a teacher's maps of all cases of the student's folds; those that are up to date are kept.

    Args:
        dataset: The student's, id or name.
        name: Of the maps; `teacher.maps` of the student.
        options: `model`, `folds`, `checkpoint`, and how to calibrate.
        plans_name: The student's plans.
        configuration: The student's configuration.
        folds: The student's folds; None takes all in splits_final.json.
        device: Where the teacher predicts.
        mirroring: Whether it averages over mirrored images.
        overwrite: Whether to make up-to-date maps anew.

    Returns:
        A row per fold: `fold`, `folder`, how many maps were `made` and `kept`, the calibration's `parameter`, and
        the teacher's pooled ECE on the training cases, `ece` before and `ece_calibrated` after (NaN where the last
        run that made maps made none of them).

    Raises:
        InputError: Something is missing, or a teacher does not fit or has seen the student's validation cases.
    """
    student = Student.read(dataset, plans_name, configuration)
    wanted = list(range(len(student.splits))) if folds is None else list(folds)
    unknown = [fold for fold in wanted if fold != "all" and not 0 <= int(fold) < len(student.splits)]
    if unknown:
        found = ", ".join(map(str, unknown))
        expected = (
            f"folds 0 to {len(student.splits) - 1} of {student.preprocessed / 'splits_final.json'}, or all"
        )
        raise InputError(problem("-f", expected=expected, found=found))
    assert options.model is not None
    model, teachers = locate(options.model, configuration), {}
    for fold in wanted:
        asked = [fold] if options.folds == "same" else list(options.folds)
        teachers[fold] = read_folds(model, asked, options.checkpoint)
        held_back = set() if fold == "all" else set(student.cases(fold)[1])
        check_offline(
            teachers[fold],
            layout=student.layout,
            dataset_json=student.dataset_json,
            plans=student.plans,
            held_back=held_back,
            fold=fold,
        )
    return [
        _teach_fold(student, fold, teachers[fold], name, options, device, mirroring, overwrite)
        for fold in wanted
    ]


class _Lesson:
    """One fold's teacher, and what it says about a case."""

    def __init__(
        self,
        student: Student,
        teacher: Sequence[TeacherFold],
        options: TeacherOptions,
        device: torch.device,
        mirroring: bool,
    ) -> None:
        self._student, self._teacher = student, teacher
        self._device, self._mirroring = device, mirroring
        self._predictor: WholeImagePredictor | None = None  # not built where all is up to date
        self.calibration = TeacherCalibration(options, independent=student.layout.regions is not None)
        self.files = get_filenames_of_train_images_and_targets(str(student.raw), dict(student.dataset_json))

    def sources(self, case: str) -> dict[str, str]:
        """Digests of a case's images and labels."""
        files = [*self.files[case]["images"], self.files[case]["label"]]
        return soft_maps.digests({Path(it).name: Path(it) for it in files})

    def see(self, case: str) -> Seen:
        """The teacher's probabilities of a case, its labels, the mask of valid voxels; (1, …, *original)."""
        if self._predictor is None:
            self._predictor = WholeImagePredictor(self._teacher, self._device, mirroring=self._mirroring)
        probs = torch.from_numpy(self._predictor([Path(it) for it in self.files[case]["images"]]))[None]
        label = Path(self.files[case]["label"])
        labels, mask = self._student.layout.soft(_labels(self._student, label, probs.shape[2:]))
        return probs, labels, mask

    def choose(self, cases: Sequence[str]) -> None:
        """Choose bandwidth or temperature on the first of some cases, where the options leave it open."""
        if self.calibration.must_choose and self.calibration.parameter is None:
            torch.manual_seed(0)
            tqdm.write(self.calibration.choose(self.see(case) for case in cases[:CHOSEN_ON]))


def _teach_fold(
    student: Student,
    fold: int | str,
    teacher: Sequence[TeacherFold],
    name: str,
    options: TeacherOptions,
    device: torch.device,
    mirroring: bool,
    overwrite: bool,
) -> dict[str, Any]:
    """One fold's maps and their record."""
    identifier = student.plans.get_configuration(student.configuration).data_identifier
    out = folder(student.preprocessed, identifier, name, fold)
    training, held_back = student.cases(fold)
    cases = list(dict.fromkeys([*training, *held_back]))
    lesson = _Lesson(student, teacher, options, device, mirroring)
    if unknown := sorted(set(cases) - set(lesson.files)):
        expected, found = "the images of all cases of splits_final.json", f"none of {some(unknown)}"
        raise InputError(problem(student.raw / "imagesTr", expected=expected, found=found))
    said = {
        "options": json.loads(options.model_dump_json()),
        "mirroring": mirroring,
        "checkpoints": soft_maps.digests({it.fold: it.path for it in teacher}),
    }
    out.mkdir(parents=True, exist_ok=True)
    clear_leftovers(out)
    record = TeachingRecord(torch.device("cpu"), independent=student.layout.regions is not None)
    made = 0
    for case in tqdm(cases, desc=f"Teacher, fold {fold}"):
        path = out / f"{case}.b2nd"
        shape, properties = soft_maps.stock_properties(student.stock, case, redo=student.redo)
        grid = soft_maps.grid_of(shape, properties)
        metadata = {**made_for(_channels(student.layout), student.plans.transpose_forward, grid), **said}
        metadata["sources"] = lesson.sources(case)
        if not overwrite and soft_maps.why_not_current(path, metadata, whole=True) is None:
            continue
        (out / RECORD).unlink(missing_ok=True)  # it says that all maps are there
        lesson.choose(training)
        probs, labels, mask = lesson.see(case)
        torch.manual_seed(zlib.crc32(case.encode()))  # the choice of the keys repeats itself
        calibrated = lesson.calibration(probs, labels, mask)
        if case in training:
            record.add_teacher(probs, calibrated, labels, mask)
        _save(path, calibrated[0], student, shape, properties, metadata)
        made += 1
    if made or not (out / RECORD).is_file():
        before, after = record.figures()[1]
        content = {
            **said,
            "held_back": held_back,
            "parameter": lesson.calibration.parameter,
            "ece": before,
            "ece_calibrated": after,
        }
        with atomic_file(out / RECORD) as temporary:
            temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
    noted = read_json(out / RECORD, todo="Give --overwrite.")
    figures = {key: noted.get(key) for key in ("parameter", "ece", "ece_calibrated")}
    return {"fold": fold, "folder": out, "made": made, "kept": len(cases) - made, **figures}


def _channels(layout: TargetLayout) -> int:
    """Number of channels of a map: the foreground classes, or the regions."""
    return layout.foreground if layout.regions is None else len(layout.regions)


def _labels(student: Student, path: Path, shape: Sequence[int]) -> torch.Tensor:
    """The labels of a case as a packed soft target (1, F (+ 1), *spatial) whose fractions are 0 and 1."""
    layout = student.layout
    reader = student.plans.image_reader_writer_class()
    masks = RaterMaps([path], reader, layout.foreground + 1 + (layout.ignore_label is not None))
    masks.check(tuple(shape))
    labels = torch.from_numpy(next(iter(masks)).astype("int64"))
    ignored = [] if layout.ignore_label is None else [labels == layout.ignore_label]
    classes = [labels == label for label in range(1, layout.foreground + 1)]
    return torch.stack([*classes, *ignored])[None].float()


def _save(
    path: Path,
    probs: torch.Tensor,
    student: Student,
    shape: Sequence[int],
    properties: dict[str, Any],
    metadata: dict[str, Any],
) -> None:
    """Take probabilities (C, *original) to nnU-Net's grid and write them."""
    blosc2.set_nthreads(1)
    exclusive = student.layout.regions is None
    foreground = probs[1:] if exclusive else probs
    configuration = student.plans.get_configuration(student.configuration)
    cropped = crop(foreground.numpy(), properties, student.plans)
    maps = to_grid(cropped, properties, shape, student.plans, configuration, exclusive=exclusive)
    blocks, chunks = comp_blosc2_params(maps.shape, tuple(configuration.patch_size), 2)
    save_soft_map(path, maps, metadata=metadata, bits=BITS, exclusive=exclusive, chunks=chunks, blocks=blocks)
