"""What there is of a data set: its folders, and of every case its masks and its soft maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_dml._checks import InputError
from nnunet_dml._files import read_json
from nnunet_dml._folders import environment_folder, find_dataset, folder_if_there
from nnunet_dml._parallel import each
from nnunet_dml.labels.storage import DamagedSoftMapError, open_soft_map
from nnunet_dml.nnunet import soft_maps, user_maps
from nnunet_dml.nnunet.preprocess import read_labels, read_plans
from nnunet_dml.nnunet.rater_maps import RaterMaps


@dataclass(frozen=True)
class Arrays:
    """A folder of nnU-Net's preprocessed arrays, which several plans may share."""

    identifier: str
    plans_name: str
    configuration: str
    transpose: tuple[int, ...]
    cases: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """The data set under examination, as far as its folders are there."""

    raw: Path | None
    preprocessed: Path
    plans_name: str
    plans: PlansManager
    labels: LabelManager
    file_ending: str
    listed: dict[str, list[str]]  # raters of each case in the raw dataset.json
    described: dict[str, Any]  # the preprocessed dataset.json: what a training reads

    @property
    def name(self) -> str:
        """`Dataset501_BrainGrowth`."""
        return self.preprocessed.name

    @cached_property
    def raw_cases(self) -> tuple[str, ...]:
        """The cases of the raw data set."""
        if self.raw is None:
            return ()
        files = (self.raw / "labelsTr").glob(f"*{self.file_ending}")
        return tuple(
            sorted(path.name.removesuffix(self.file_ending) for path in files if path.name[0] != ".")
        )

    @cached_property
    def all_plans(self) -> dict[str, dict[str, Any]]:
        """The content of every readable plans file, by file name without ending."""
        contents = {}
        for path in sorted(self.preprocessed.glob("*.json")):
            try:
                content = read_json(path)
            except InputError:
                continue
            if isinstance(content.get("configurations"), dict) and "plans_name" in content:
                contents[path.stem] = content
        return contents

    @cached_property
    def arrays(self) -> dict[str, Arrays]:
        """nnU-Net's preprocessed folders, by data identifier; those of the plans under examination first."""
        found: dict[str, Arrays] = {}
        for name in sorted(self.all_plans, key=lambda name: name != self.plans_name):
            plans = PlansManager(self.all_plans[name])
            for configuration in plans.available_configurations:
                try:
                    identifier = plans.get_configuration(configuration).data_identifier
                except Exception:  # plans that nobody asked about, and that nnU-Net itself could not read
                    continue
                cases = tuple(sorted(path.stem for path in (self.preprocessed / identifier).glob("*.pkl")))
                if cases:
                    it = Arrays(identifier, name, configuration, tuple(plans.transpose_forward), cases)
                    found.setdefault(identifier, it)
        return found

    def configurations(self, plans_name: str) -> list[str]:
        """The configurations of plans that nnU-Net has preprocessed."""
        plans = PlansManager(self.all_plans[plans_name])
        return [
            name
            for name in plans.available_configurations
            if plans.get_configuration(name).data_identifier in self.arrays
        ]

    def identifier(self, plans_name: str, configuration: str) -> str:
        """The name of the arrays of a configuration."""
        return PlansManager(self.all_plans[plans_name]).get_configuration(configuration).data_identifier


def open_subject(dataset: str, plans_name: str) -> Subject:
    """Find a data set and read its plans and its description.

    Raises:
        InputError: It is in neither folder, or was not planned, or a file of these is damaged.
    """
    preprocessed_root = environment_folder("nnUNet_preprocessed")
    raw_root = folder_if_there("nnUNet_raw")
    raw: Path | None = None
    if raw_root is not None:
        try:
            raw = find_dataset(dataset, raw_root)
        except InputError:
            find_dataset(dataset, preprocessed_root)  # in neither: that is said
    preprocessed = preprocessed_root / raw.name if raw else find_dataset(dataset, preprocessed_root)
    plans = read_plans(preprocessed / f"{plans_name}.json", dataset)
    described = read_json(preprocessed / "dataset.json")
    own = (raw or preprocessed) / "dataset.json"
    labels, file_ending, listed = read_labels(own, plans)
    return Subject(raw, preprocessed, plans_name, plans, labels, file_ending, listed, described)


@dataclass(frozen=True)
class MapFacts:
    """One soft map on disk."""

    reason: str | None  # why it must be made again
    fractional: float = 0.0  # share of its voxels


@dataclass
class CaseFacts:
    """What was found of one case."""

    raters: int = 0
    agree: bool = False  # whether several raters are equal in every voxel
    user_map: bool = False
    problems: dict[str, list[str]] = field(default_factory=dict)  # by what they are about
    maps: dict[tuple[str, str], MapFacts] = field(default_factory=dict)  # by (data identifier, source)


@dataclass(frozen=True)
class _Job:
    """What all cases share on their way to a worker process."""

    subject: Subject
    sources: Mapping[str, Sequence[str]]  # of each data identifier
    quick: bool


def read_cases(
    subject: Subject, sources: Mapping[str, Sequence[str]], *, quick: bool, processes: int
) -> dict[str, CaseFacts]:
    """Look at every case: its masks, its user's map, its maps on nnU-Net's grid.

    Args:
        subject: The data set.
        sources: The sources whose maps are looked at, for each data identifier.
        quick: Whether voxels stay unread.
        processes: Worker processes.
    """
    cases = sorted({*subject.raw_cases, *(case for it in subject.arrays.values() for case in it.cases)})
    job = partial(_read_case, _Job(subject, sources, quick))
    return dict(zip(cases, each(job, cases, processes=processes, title="Cases"), strict=True))


def _read_case(job: _Job, case: str) -> CaseFacts:
    facts, subject = CaseFacts(), job.subject
    if case in subject.raw_cases:
        _read_raw(job, case, facts)
    for identifier, sources in job.sources.items():
        arrays = subject.arrays[identifier]
        if case not in arrays.cases:
            continue
        redo = soft_maps.stock_command_for(subject.name, arrays.plans_name, arrays.configuration)
        try:
            stock = soft_maps.stock_dataset(subject.preprocessed / identifier, redo=redo)
            grid = soft_maps.grid_of(*soft_maps.stock_properties(stock, case, redo=redo))
        except InputError as error:
            facts.problems.setdefault(identifier, []).extend(error.problems)
            continue
        for source in sources:
            facts.maps[identifier, source] = _read_map(job, case, arrays, source, grid)
    return facts


def _read_raw(job: _Job, case: str, facts: CaseFacts) -> None:
    """The masks and the user's own map of a case, checked as a conversion or preprocessing checks them."""
    subject, quick = job.subject, job.quick
    assert subject.raw is not None
    consensus = subject.raw / "labelsTr" / f"{case}{subject.file_ending}"
    reader, labels = subject.plans.image_reader_writer_class(), len(subject.labels.all_labels)
    values = labels + subject.labels.has_ignore_label
    try:
        files = soft_maps.source_files(
            subject.raw, case, subject.file_ending, subject.listed.get(case), "uniform", ignore=False
        )
    except InputError as error:
        facts.problems["ratersTr"] = list(error.problems)
        return
    facts.raters = 0 if list(files) == ["labelsTr"] else len(files)
    own = user_maps.user_map_file(subject.raw, case, subject.file_ending)
    facts.user_map = own.is_file()
    if quick:
        return
    try:
        alone = RaterMaps([consensus], reader, values)
        alone.check()
        shape = next(iter(alone)).shape
    except InputError as error:
        facts.problems["labelsTr"] = list(error.problems)
        return
    try:
        masks = RaterMaps(list(files.values()), reader, values)
        masks.check(shape, consensus)
        first, *others = masks
        facts.agree = bool(others) and all(np.array_equal(first, other) for other in others)
    except InputError as error:
        facts.problems["ratersTr"] = list(error.problems)
    if facts.user_map:
        try:
            user_maps.read_user_map(
                own, foreground=labels - 1, shape=shape, consensus=consensus, reader=reader
            )
        except InputError as error:
            facts.problems[user_maps.FOLDER] = list(error.problems)


def _read_map(job: _Job, case: str, arrays: Arrays, source: str, grid: dict[str, Any]) -> MapFacts:
    subject = job.subject
    ignore = subject.labels.has_ignore_label
    expected = soft_maps.made_for(
        source, len(subject.labels.foreground_labels), ignore, arrays.transpose, grid
    )
    if subject.raw is not None:
        expected |= soft_maps.sources_now(
            subject.raw, case, subject.file_ending, subject.listed.get(case), source, ignore=ignore
        )
    path = soft_maps.folder(subject.preprocessed, arrays.identifier, source) / f"{case}.b2nd"
    reason = soft_maps.why_not_current(path, expected, whole=not job.quick)
    if reason in ("missing", "damaged"):
        return MapFacts(reason)
    try:
        found = open_soft_map(path)
    except (DamagedSoftMapError, FileNotFoundError):
        return MapFacts("damaged")
    if job.quick or source == "random":
        return MapFacts(reason, float(found.metadata.get("fractional", 0)))
    stored = np.asarray(found.array[:])
    return MapFacts(reason, float(((stored > 0) & (stored < found.scale)).any(0).mean()))
