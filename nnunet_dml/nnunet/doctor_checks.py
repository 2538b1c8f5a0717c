"""Checks of a data set: what it says of itself, its raters, its soft maps, its plans, what was trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_dml._checks import InputError, some
from nnunet_dml._files import read_json
from nnunet_dml._folders import folder_if_there
from nnunet_dml.nnunet import soft_maps, trainers, user_maps
from nnunet_dml.nnunet.doctor_dataset import CaseFacts, Subject
from nnunet_dml.nnunet.findings import Finding, wrong
from nnunet_dml.nnunet.options import KEY, complete, parse, validate
from nnunet_dml.nnunet.trainers.soft import SoftLabelTrainer


def check_description(subject: Subject) -> list[Finding]:
    """What dataset.json says, and whether nnU-Net's copy of it still says the same."""
    labels, about = subject.labels, "dataset.json"
    kinds = [
        "region-based" if labels.has_regions else "",
        f"ignore label {labels.ignore_label}" if labels.has_ignore_label else "",
    ]
    names = ", ".join(f"{name} {value}" for name, value in labels.label_dict.items())
    text = "; ".join([f"labels {names}", *filter(None, kinds)])
    raters = sorted({rater for case in subject.listed.values() for rater in case})
    found = [
        Finding(
            "ok", about, f"{text}; {len(raters)} raters listed" if raters else f"{text}; no raters listed"
        )
    ]
    if subject.raw is None:
        text = "no raw data set at hand: its masks are not looked at. Training does not need it."
        return [*found, Finding("note", "nnUNet_raw", text)]
    if (subject.raw / "ratersTr").is_dir() and not subject.listed:
        text = f"{subject.raw / 'ratersTr'} is there, but no `nnunet_dml` block lists its raters: labels.source=auto means hard labels. Convert the data set again."
        found.append(Finding("wrong", about, text))
    own = read_json(subject.raw / about)
    changed = [
        key for key in ("labels", "nnunet_dml", "file_ending") if own.get(key) != subject.described.get(key)
    ]
    if changed:
        todo = "Copy it there, or run nnUNetv2_plan_and_preprocess again."
        text = f"{subject.preprocessed / about}: expected the {', '.join(changed)} of {subject.raw / about}, found others; trainers read this copy. {todo}"
        found.append(Finding("wrong", about, text))
    return found


def check_cases(subject: Subject, facts: Mapping[str, CaseFacts], *, quick: bool) -> list[Finding]:
    """The raters, their masks and the users' own maps."""
    if not subject.raw_cases:
        return []
    rows = {case: facts[case] for case in subject.raw_cases}
    counts = Counter(it.raters for it in rows.values())
    text = ", ".join(f"{count} cases with {raters}" for raters, count in sorted(counts.items(), reverse=True))
    found = [Finding("ok" if any(counts) else "note", "raters", f"{text} raters")]
    lone = {
        "no raters (their consensus is used)": 0,
        "a single rater (hard labels; smoothing or a teacher makes soft ones)": 1,
    }
    for what, raters in lone.items():
        names = [case for case, it in rows.items() if it.raters == raters]
        if names and any(counts):
            found.append(Finding("note", "raters", f"{len(names)} cases have {what}: {some(names)}"))
    several = [case for case, it in rows.items() if it.raters > 1]
    equal = [case for case in several if rows[case].agree]
    if equal:
        text = f"all raters are equal in {len(equal)} of {len(several)} cases: {some(equal)}; their labels are hard. Are the masks copies?"
        found.append(Finding("wrong" if len(equal) == len(several) else "note", "raters", text))
    topics = sorted({topic for it in facts.values() for topic in it.problems})
    for topic in topics:
        found += wrong(
            topic, InputError(*(line for it in facts.values() for line in it.problems.get(topic, ())))
        )
    if not quick and not {"labelsTr", "ratersTr"} & set(topics):
        masks = sum(max(it.raters, 1) for it in rows.values())
        found.append(
            Finding("ok", "masks", f"{masks} read: grids of the consensus, labels as in dataset.json")
        )
    own = [case for case, it in rows.items() if it.user_map]
    if own and user_maps.FOLDER not in topics:
        text = f"{len(own)} of {len(rows)} cases have a soft map of their own" + "; fractions in [0, 1]" * (
            not quick
        )
        found.append(Finding("ok" if len(own) == len(rows) else "note", user_maps.FOLDER, text))
    for identifier, arrays in subject.arrays.items():
        missing = sorted(set(subject.raw_cases) - set(arrays.cases))
        if missing:
            todo = (
                f"Run `{soft_maps.stock_command_for(subject.name, arrays.plans_name, arrays.configuration)}`."
            )
            text = f"{len(missing)} cases of labelsTr are not preprocessed: {some(missing)}. {todo}"
            found.append(Finding("note", identifier, text))
    return found


def check_plans(subject: Subject, trainer_class: type[nnUNetTrainer]) -> tuple[str | None, list[Finding]]:
    """The options in all plans files.

    Returns:
        The source of labels of the plans under examination, None where these or dataset.json are bad; and the findings.
    """
    examined: str | None = None
    found = []
    soft = issubclass(trainer_class, SoftLabelTrainer)
    defaults = trainer_class.default_options if soft else trainers.nnUNetTrainerDML.default_options
    for name, content in subject.all_plans.items():
        this = name == subject.plans_name
        if content["plans_name"] != name:
            text = f"plans_name is {content['plans_name']!r}: results go to that name. Rename one."
            found.append(Finding("note", name, text))
        try:
            # what others do not read may be for another trainer
            check = validate if this else parse
            options = check(complete(defaults, content.get(KEY, {})), where=f"{name}.json")
        except InputError as error:
            found += wrong(name, error)
            continue
        try:
            source = soft_maps.resolve_source(
                options.labels.source, subject.described, subject.preprocessed / "dataset.json"
            )
        except InputError as error:  # the same for all plans
            found += [line for line in wrong("dataset.json", error) if line not in found]
            continue
        if this:
            examined = source if soft else "hard"
        if not this and KEY not in content:
            continue
        configurations = subject.configurations(name)
        missing = [
            configuration
            for configuration in configurations
            if source != "hard"
            and not soft_maps.folder(
                subject.preprocessed, subject.identifier(name, configuration), source
            ).is_dir()
        ]
        text = f"labels.source={source}"
        if missing:
            todo = f"Run `{soft_maps.command_for(subject.name, name, missing[0], source)}`."
            text = f"{text} is not preprocessed for {some(missing)}. {todo}"
        elif source != "hard" and configurations:
            text = f"{text}, preprocessed for {some(configurations)}"
        found.append(
            Finding(
                "note" if missing else "ok", name, ("options are valid; " if KEY in content else "") + text
            )
        )
    return examined, found


def check_maps(subject: Subject, facts: Mapping[str, CaseFacts]) -> list[Finding]:
    """The soft maps on disk: which are there, and which must be made again."""
    found = []
    keys = dict.fromkeys(key for it in facts.values() for key in it.maps)
    for identifier, source in sorted(keys):
        arrays, about = subject.arrays[identifier], f"{identifier}, {source}"
        maps = {
            case: it.maps[identifier, source] for case, it in facts.items() if (identifier, source) in it.maps
        }
        bad = [f"{case} ({it.reason})" for case, it in maps.items() if it.reason]
        if bad:
            command = soft_maps.command_for(subject.name, arrays.plans_name, arrays.configuration, source)
            text = f"expected up-to-date maps of all {len(maps)} cases, found {some(bad)}. Run `{command}`."
            found.append(Finding("wrong", about, text))
        else:
            found.append(Finding("ok", about, f"{len(maps)} maps, all up to date"))
        hard = [
            case for case, it in maps.items() if not it.fractional and it.reason not in ("missing", "damaged")
        ]
        unanimous = {case for case in hard if facts[case].agree or facts[case].raters == 1}
        suspicious = [case for case in hard if case not in unanimous]
        if suspicious and source not in ("majority", "random"):
            all_of_them = len(suspicious) == len(maps)
            text = f"{'all' if all_of_them else len(suspicious)} maps hold only 0 and {soft_maps.SCALE}, no fraction: {some(suspicious)}"
            found.append(Finding("wrong" if all_of_them else "note", about, text))
    return found


def check_models(subject: Subject) -> list[Finding]:
    """Models of other trainers, which learn the consensus or what they find themselves, although the data set has raters."""
    results = folder_if_there("nnUNet_results")
    if results is None or not any(subject.listed.values()):
        return []
    models = [path.name for path in sorted((results / subject.name).glob("*__*__*")) if path.is_dir()]
    stock = [
        name
        for name in models
        if name.split("__")[0] not in trainers.__all__ or name.startswith("nnUNetTrainerConfigured__")
    ]
    if not stock:
        return []
    text = f"by trainers that read no soft labels of this package (nnU-Net's learn the consensus of the raters): {some(stock)}"
    return [Finding("note", "results", text)]
