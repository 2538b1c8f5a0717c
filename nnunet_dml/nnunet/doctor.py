"""A fraction's way, audited: what is installed, what a data set holds, and where its fractions get lost.

Nothing is written and nothing is trained.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml.nnunet import doctor_checks, fractions_in_training, fractions_way, soft_maps, trainers
from nnunet_dml.nnunet.doctor_dataset import CaseFacts, Subject, open_subject, read_cases
from nnunet_dml.nnunet.findings import Finding, Report, Step, wrong
from nnunet_dml.nnunet.map_making import Case
from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer


def examine(
    dataset: str,
    *,
    plans_name: str = "nnUNetPlans",
    configuration: str | None = None,
    trainer_name: str = "nnUNetTrainerDML",
    cases: int = 5,
    patches: int = 16,
    quick: bool = False,
    processes: int = 2,
) -> Report:
    """Examine a data set as one training would see it.

    Args:
        dataset: Id or name.
        plans_name: Plans of the training.
        configuration: Its configuration; None takes the first that nnU-Net has preprocessed.
        trainer_name: Its trainer.
        cases: Of how many cases the maps are made again, to be compared with those on disk.
        patches: How many patches are drawn.
        quick: Whether the voxels of masks and maps stay unread, but for those of these cases and patches.
        processes: Worker processes.

    Returns:
        A report without the part on the installation.
    """
    try:
        subject = open_subject(dataset, plans_name)
        trainer_class = find_trainer(trainer_name)
    except InputError as error:
        return Report((), wrong("data set", error))
    found = doctor_checks.check_description(subject)
    there = subject.configurations(plans_name)
    if not there or (configuration is not None and configuration not in there):
        todo = f"Run `nnUNetv2_plan_and_preprocess -d {subject.name} -c {configuration or '2d'}`."
        expected, folder = f"{configuration or 'a configuration'} of {plans_name}", subject.preprocessed
        line = problem(folder, expected=f"{expected}, preprocessed", found=some(there) or "none", todo=todo)
        found.append(Finding("wrong", "configuration", line))
    configuration = (
        configuration if configuration in there else None if configuration else next(iter(there), None)
    )
    source, plan_findings = doctor_checks.check_plans(subject, trainer_class)
    sources = _sources_on_disk(subject)
    if configuration is not None and source not in (None, "hard"):
        assert source is not None
        identifier = subject.identifier(plans_name, configuration)
        sources[identifier] = sorted({*sources[identifier], source})
    facts = read_cases(subject, sources, quick=quick, processes=processes)
    found += [
        *doctor_checks.check_cases(subject, facts, quick=quick),
        *plan_findings,
        *doctor_checks.check_maps(subject, facts),
    ]
    found += doctor_checks.check_models(subject)
    if configuration is None or source is None:
        return Report((), found)
    steps, more = way(subject, trainer_class, configuration, source, facts, cases=cases, patches=patches)
    title = (
        f"{trainer_name} on {configuration} of {plans_name}, labels.source={source}; "
        f"at most {cases} cases, {patches} patches"
    )
    return Report((), [*found, *more], title, steps)


def find_trainer(name: str, *, where: str = "-tr") -> type[nnUNetTrainer]:
    """A trainer class: this package's, or what nnU-Net's own search finds.

    Args:
        name: Of the class.
        where: What names it, for the message.

    Raises:
        InputError: There is none of that name.
    """
    if name in trainers.__all__:
        found: type[nnUNetTrainer] = getattr(trainers, name)
        return found
    try:
        with redirect_stdout(io.StringIO()):
            found = recursive_find_trainer_class_by_name(name)
    except Exception as error:  # it imports all that lies in the user's folders
        line = problem(
            where, expected="a trainer that nnU-Net finds", found=f"{name} ({soft_maps.first_line(error)})"
        )
        raise InputError(line) from None
    return found


def _sources_on_disk(subject: Subject) -> dict[str, list[str]]:
    """The sources that have a folder of maps, for each data identifier."""
    return {
        identifier: [
            source
            for source in soft_maps.SOURCES
            if soft_maps.folder(subject.preprocessed, identifier, source).is_dir()
        ]
        for identifier in subject.arrays
    }


def way(
    subject: Subject,
    trainer_class: type[nnUNetTrainer],
    configuration: str,
    source: str,
    facts: Mapping[str, CaseFacts],
    *,
    cases: int,
    patches: int,
) -> tuple[list[Step], list[Finding]]:
    """The steps of the fractions, judged, and what kept them from being measured."""
    steps: list[Step] = []
    found: list[Finding] = []
    chosen = _chosen_cases(subject, configuration, source, facts, cases)
    if chosen:
        try:
            steps += fractions_way.steps_of_maps(chosen)
        except InputError as error:
            found += wrong("maps made again", error)
    own = subject.identifier(subject.plans_name, configuration)
    # files that hold code are among them; what draws patches would run it
    bad_arrays = [case for case, it in facts.items() if own in it.problems]
    lacking = [
        case
        for case, it in facts.items()
        for (identifier, of), fact in it.maps.items()
        if (identifier, of) == (own, source) and fact.reason in ("missing", "damaged")
    ]
    if bad_arrays or lacking:
        what, count = ("arrays", len(bad_arrays)) if bad_arrays else ("maps", len(lacking))
        text = f"none drawn: the {what} of {count} cases are missing or damaged, so that no training starts"
        steps.append(Step(fractions_in_training.LOADED, None, level="wrong", remark=text))
    else:
        try:
            steps += fractions_in_training.steps_of_patches(
                trainer_class,
                subject.all_plans[subject.plans_name],
                configuration,
                subject.described,
                patches=patches,
            )
        except InputError as error:
            found += wrong("patches", error)
    return judge(steps, _on_purpose(subject, trainer_class, source)), found


def _chosen_cases(
    subject: Subject, configuration: str, source: str, facts: Mapping[str, CaseFacts], most: int
) -> list[Case]:
    """Evenly spread cases that can have fractions: with several raters, or with a map of their own."""
    if subject.raw is None or source == "hard":
        return []
    identifier = subject.identifier(subject.plans_name, configuration)
    names = [
        case
        for case in subject.arrays[identifier].cases
        if case in subject.raw_cases
        and not {"labelsTr", "ratersTr", identifier} & set(facts[case].problems)
        and (facts[case].user_map if source == "file" else facts[case].raters > 1)
    ]
    redo = soft_maps.stock_command_for(subject.name, subject.plans_name, configuration)
    stock = soft_maps.stock_dataset(subject.preprocessed / identifier, redo=redo)
    chosen = sorted({names[i] for i in np.linspace(0, len(names) - 1, min(most, len(names))).astype(int)})
    return [
        Case(
            name=name,
            source=source,
            files=soft_maps.source_files(
                subject.raw,
                name,
                subject.file_ending,
                subject.listed.get(name),
                source,
                ignore=subject.labels.has_ignore_label,
            ),
            consensus=subject.raw / "labelsTr" / f"{name}{subject.file_ending}",
            out=soft_maps.folder(subject.preprocessed, identifier, source) / f"{name}.b2nd",
            stock=stock,
            redo=redo,
            plans_file=subject.preprocessed / f"{subject.plans_name}.json",
            configuration=configuration,
            num_classes=len(subject.labels.all_labels),
            ignore_label=subject.labels.ignore_label,
        )
        for name in chosen
    ]


def _on_purpose(subject: Subject, trainer_class: type[nnUNetTrainer], source: str) -> str:
    """Why a training is meant to see hard labels; empty where it is not."""
    if not issubclass(trainer_class, SoftLabelTrainer):
        return f"{trainer_class.__name__} trains on nnU-Net's hard labels"
    return {
        "hard": "hard on purpose: labels.source=hard"
        if any(subject.listed.values())
        else "hard: the data set has no raters",
        "majority": "hard on purpose: labels.source=majority",
        "random": "hard on purpose: labels.source=random gives one rater's labels per patch",
    }.get(source, "")


def judge(steps: Sequence[Step], on_purpose: str) -> list[Step]:
    """Mark the steps that make labels hard.

    Args:
        steps: In their order.
        on_purpose: Why labels are meant to be hard; empty where they are not.
    """
    judged: list[Step] = []
    before: Step | None = None
    said = False
    for step in steps:
        if step.share is None:
            judged.append(step)
            continue
        if step.share == 0 and on_purpose:
            if step.level == "ok":
                step = replace(step, level="note", remark="" if said else on_purpose)
                said = True
        elif step.share == 0 and before is None:
            remark = "no fraction from the start: one rater, or all agree in every voxel"
            step = replace(step, level="note", remark=remark)
        elif step.share == 0 and before is not None and before.share:
            remark = f"this step makes labels hard: of {before.share:.2%} fractional voxels none is left"
            step = replace(step, level="wrong", remark=remark)
        judged.append(step)
        before = step
    return judged
