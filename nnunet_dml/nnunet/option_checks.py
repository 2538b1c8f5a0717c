"""Options against the labels of a data set: what is valid by itself and still does not fit."""

from __future__ import annotations

from nnunet_dml._checks import InputError, problem
from nnunet_dml.nnunet.option_groups import Options
from nnunet_dml.nnunet.targets import TargetLayout


def check_against_labels(options: Options, source: str, layout: TargetLayout, *, where: str) -> None:
    """Refuse options that do not fit.

    Args:
        options: Valid options.
        source: What `labels.source` means for the data set.
        layout: Its labels or regions.
        where: The plans, for the message.

    Raises:
        InputError: With all that does not fit.
    """
    loss, smoothing = options.loss, options.labels.smoothing
    problems = []
    if (weights := loss.class_weights) is not None:
        if len(weights) != layout.outputs:
            each = "a region" if layout.regions else "a label, the background first"
            expected = f"{layout.outputs} loss.class_weights, each of {each}"
            todo = f"Write a weight for each of the {layout.outputs} outputs of the network."
            problems.append(problem(where, expected=expected, found=str(len(weights)), todo=todo))
        elif not layout.regions and not loss.background and loss.weight_overlap and not any(weights[1:]):
            expected = (
                "a foreground weight above 0 in loss.class_weights, as the overlap leaves out the background"
            )
            todo = "Raise one, or set loss.background=true."
            problems.append(problem(where, expected=expected, found=str(list(weights)), todo=todo))
    if loss.background and layout.regions:
        expected, todo = "loss.background=false with region-based labels", "Regions have no background."
        problems.append(problem(where, expected=expected, found="true", todo=todo))
    if loss.overlap == "lovasz" and (source not in ("hard", "random") or smoothing != "off"):
        expected = "hard labels with loss.overlap=lovasz, which is not defined on soft ones"
        found = f"labels.source={source}, labels.smoothing={smoothing}"
        todo = "Set labels.source=hard or random and labels.smoothing=off, or another loss."
        problems.append(problem(where, expected=expected, found=found, todo=todo))
    floor = options.labels.epsilon / (2 if layout.regions else layout.outputs)
    if smoothing != "off" and loss.active in ("label", "both") and loss.threshold <= floor:
        expected = f"loss.threshold above {floor:.4g}, which smoothing gives to every class"
        todo = f"Else loss.active={loss.active} would take every class for active."
        problems.append(problem(where, expected=expected, found=f"{loss.threshold:g}", todo=todo))
    teacher = options.teacher
    taught = teacher.model is not None or teacher.maps is not None
    if taught and loss.overlap == "lovasz" and loss.weight_overlap and teacher.overlap_teacher:
        expected = "teacher.overlap_teacher=0 with loss.overlap=lovasz, which is not defined on soft labels"
        found, todo = f"{teacher.overlap_teacher:g}", "Set it to 0, or another loss.overlap."
        problems.append(problem(where, expected=expected, found=found, todo=todo))
    cross_entropy = loss.weight_ce * (teacher.ce_label + teacher.ce_teacher)
    if taught and not cross_entropy + loss.weight_overlap * (teacher.overlap_label + teacher.overlap_teacher):
        expected = (
            "a term above 0 among loss.weight_ce × teacher.ce_… and loss.weight_overlap × teacher.overlap_…"
        )
        problems.append(problem(where, expected=expected, found="all of them 0", todo="Raise one."))
    if problems:
        raise InputError(*problems)


def check_unlabelled(options: Options, *, where: str) -> None:
    """Refuse options that do not fit semi-supervised training.

    Args:
        options: Valid options.
        where: The plans, for the message.

    Raises:
        InputError: With all that does not fit.
    """
    loss, problems = options.loss, []
    start, epochs = options.unlabelled.start_epoch, options.training.epochs
    if start >= epochs:
        expected, todo = (
            f"unlabelled.start_epoch below training.epochs ({epochs})",
            "Else no unlabelled image is used.",
        )
        problems.append(problem(where, expected=expected, found=str(start), todo=todo))
    if loss.overlap == "lovasz":
        expected = "a loss.overlap that is defined on soft labels, as a teacher's are"
        problems.append(problem(where, expected=expected, found="lovasz", todo="Set dml, jml or ctl."))
    for half in ("labelled", "unlabelled"):
        shares = {name: getattr(options.unlabelled, f"{name}_{half}") for name in ("ce", "overlap")}
        if not loss.weight_ce * shares["ce"] + loss.weight_overlap * shares["overlap"]:
            expected = f"loss.weight_ce × unlabelled.ce_{half} or loss.weight_overlap × unlabelled.overlap_{half} above 0"
            problems.append(problem(where, expected=expected, found="both 0", todo="Raise one."))
    if problems:
        raise InputError(*problems)
