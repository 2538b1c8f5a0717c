"""An offline teacher: what it says about the training cases, calibrated, on the student's grid.

A teacher whose preprocessing is another one than the student's cannot read the student's patches. It predicts whole
images instead, in original space; there it is calibrated with the case's labels, and then taken the way that nnU-Net
takes labels: transpose, crop, resample. The maps of a fold stand in `<data_identifier>_soft/teacher_<name>_fold_<k>`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import blosc2
import torch
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from tqdm import tqdm

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml._files import atomic_file, clear_leftovers, not_trainable
from nnunet_dml.labels.storage import open_soft_map, save_soft_map
from nnunet_dml.metrics import ece_from_counts
from nnunet_dml.nnunet import soft_maps
from nnunet_dml.nnunet.distillation import reliability
from nnunet_dml.nnunet.map_making import crop, to_grid
from nnunet_dml.nnunet.option_groups import TEACHING, TeacherOptions
from nnunet_dml.nnunet.rater_maps import RaterMaps
from nnunet_dml.nnunet.student import Student
from nnunet_dml.nnunet.targets import TargetLayout
from nnunet_dml.nnunet.teacher import TeacherFold, locate, read_folds
from nnunet_dml.nnunet.teacher_calibration import Seen, TeacherCalibration
from nnunet_dml.nnunet.teacher_checks import check_offline
from nnunet_dml.nnunet.teacher_maps import BITS, RECORD, folder, made_for
from nnunet_dml.nnunet.whole_images import WholeImagePredictor

CHOSEN_ON = 4  # cases on which bandwidth or temperature is chosen


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
        options: Those of `TEACHING`.
        plans_name: The student's plans.
        configuration: The student's configuration.
        folds: The student's folds; None takes all in splits_final.json.
        device: Where the teacher predicts.
        mirroring: Whether it averages over mirrored images.
        overwrite: Whether to make up-to-date maps anew.

    Returns:
        A row per fold: `fold`, `folder`, how many maps were `made` and `kept`, the calibration's `parameter`, and
        the teacher's pooled ECE on the training cases, `ece` before and `ece_calibrated` after.

    Raises:
        InputError: Something is missing, a fold has no training cases, or a teacher does not fit or has seen the student's validation cases.
    """
    student = Student.read(dataset, plans_name, configuration)
    wanted = list(range(len(student.splits))) if folds is None else list(folds)
    path = student.preprocessed / "splits_final.json"
    unknown = [fold for fold in wanted if fold != "all" and not 0 <= int(fold) < len(student.splits)]
    if unknown:
        found = ", ".join(map(str, unknown))
        expected = f"folds 0 to {len(student.splits) - 1} of {path}, or all"
        raise InputError(problem("-f", expected=expected, found=found))
    if empty := [fold for fold in wanted if not student.cases(fold)[0]]:
        raise InputError(not_trainable(path, *empty))
    assert options.model is not None
    model, teachers = locate(options.model, configuration), {}
    files = get_filenames_of_train_images_and_targets(str(student.raw), dict(student.dataset_json))
    cases = {case for fold in wanted for side in student.cases(fold) for case in side}
    if gone := sorted(cases - set(files)):
        expected, found = "the images of all cases of splits_final.json", f"none of {some(gone)}"
        raise InputError(problem(student.raw / "imagesTr", expected=expected, found=found))
    for fold in wanted:
        asked = [fold] if options.folds == "same" else list(options.folds)
        teachers[fold] = read_folds(model, asked, options.checkpoint)
        check_offline(
            teachers[fold],
            layout=student.layout,
            dataset_json=student.dataset_json,
            plans=student.plans,
            held_back=student.held_back(fold),
            fold=fold,
            name=name,
        )
    return [
        _teach_fold(
            _Lesson(student, teachers[fold], files, options, device, mirroring),
            fold,
            name,
            overwrite=overwrite,
        )
        for fold in wanted
    ]


class _Lesson:
    """One fold's teacher, and what it says about a case."""

    def __init__(
        self,
        student: Student,
        teacher: Sequence[TeacherFold],
        files: dict[str, Any],
        options: TeacherOptions,
        device: torch.device,
        mirroring: bool,
    ) -> None:
        self.student, self._teacher, self._files = student, teacher, files
        self._device, self._mirroring = device, mirroring
        self._predictor: WholeImagePredictor | None = None  # not built where all is up to date
        self.independent = student.layout.regions is not None
        self.calibration = TeacherCalibration(options, independent=self.independent)
        self.said = {
            "options": json.loads(options.model_dump_json(include=set(TEACHING))),
            "mirroring": mirroring,
            "checkpoints": soft_maps.digests({it.fold: it.path for it in teacher}),
        }

    def made_of(self, case: str) -> dict[str, Any]:
        """All that a case's map depends on, besides the student's grid."""
        images = [Path(it) for it in self._files[case]["images"]]
        label = {"labels": Path(self._files[case]["label"])}
        sources = {"images": soft_maps.digests({it.name: it for it in images}), **soft_maps.digests(label)}
        return {**self.said, **sources}

    def see(self, case: str) -> Seen:
        """The teacher's probabilities of a case, its labels, the mask of valid voxels; (1, …, *original)."""
        if self._predictor is None:
            self._predictor = WholeImagePredictor(self._teacher, self._device, mirroring=self._mirroring)
        probs = torch.from_numpy(self._predictor([Path(it) for it in self._files[case]["images"]]))[None]
        label = Path(self._files[case]["label"])
        labels, mask = self.student.layout.soft(_labels(self.student, label, probs.shape[2:]))
        return probs, labels, mask

    def choose(self, cases: Sequence[str]) -> None:
        """Choose bandwidth or temperature on the first of some cases, where the options leave it open."""
        if self.calibration.must_choose and self.calibration.parameter is None:
            self.calibration.random = torch.Generator().manual_seed(0)
            tqdm.write(self.calibration.choose(self.see(case) for case in cases[:CHOSEN_ON]))


def _teach_fold(lesson: _Lesson, fold: int | str, name: str, *, overwrite: bool) -> dict[str, Any]:
    """One fold's maps and their record."""
    student = lesson.student
    identifier = student.plans.get_configuration(student.configuration).data_identifier
    out = folder(student.preprocessed, identifier, name, fold)
    out.mkdir(parents=True, exist_ok=True)
    clear_leftovers(out)
    training, others = student.cases(fold)
    cases, made = list(dict.fromkeys([*training, *others])), 0
    for case in tqdm(cases, desc=f"Teacher, fold {fold}"):
        path = out / f"{case}.b2nd"
        shape, properties = soft_maps.stock_properties(student.stock, case, redo=student.redo)
        grid = soft_maps.grid_of(shape, properties)
        metadata = {
            **made_for(_channels(student.layout), student.plans.transpose_forward, grid),
            **lesson.made_of(case),
        }
        if not overwrite and soft_maps.why_not_current(path, metadata, whole=True) is None:
            continue
        (out / RECORD).unlink(missing_ok=True)  # it says that all maps are there
        lesson.choose(training)
        probs, labels, mask = lesson.see(case)
        lesson.calibration.random = torch.Generator().manual_seed(zlib.crc32(case.encode()))  # repeats itself
        calibrated = lesson.calibration(probs, labels, mask)
        counts = reliability(probs, calibrated, labels, mask, independent=lesson.independent)
        metadata |= {"reliability": counts.tolist(), "parameter": lesson.calibration.parameter}
        _save(path, calibrated[0], student, shape, properties, metadata)
        made += 1
    noted = [open_soft_map(out / f"{case}.b2nd").metadata for case in training]
    before, after = torch.tensor([it["reliability"] for it in noted], dtype=torch.float64).sum(0)
    figures = {
        "parameter": noted[0]["parameter"],
        "ece": float(ece_from_counts(before)),
        "ece_calibrated": float(ece_from_counts(after)),
    }
    with atomic_file(out / RECORD) as temporary:
        content = {**lesson.said, "held_back": sorted(student.held_back(fold)), **figures}
        temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
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
