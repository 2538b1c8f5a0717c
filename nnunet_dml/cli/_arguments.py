"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import json
import os
import re


def whole_number(text: str) -> int | None:
    """A number of at most nine digits; None where it is none."""
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None


def add_processes(parser: argparse.ArgumentParser) -> None:
    """`-np`, as in nnU-Net's own commands."""
    parser.add_argument(
        "-np",
        "--num-processes",
        dest="processes",
        type=int,
        default=whole_number(os.environ.get("nnUNet_def_n_proc", "")) or 2,
        metavar="N",
        help="worker processes (default: $nnUNet_def_n_proc, else 2)",
    )


def check_device(name: str) -> None:
    """Refuse a device that is not there.

    Raises:
        InputError: torch cannot use it.
    """
    import torch

    from nnunet_dml._checks import InputError, problem

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name not in there:
        raise InputError(problem("-device", expected="cuda, cpu or mps", found=name[:80]))
    if not there[name]:
        expected, found = f"a GPU ({name})", "none that torch can use"
        raise InputError(problem("-device", expected=expected, found=found, todo="Give -device cpu."))


def fold_number(text: str, *, expected: str) -> int:
    """A fold's number as `-f` has it.

    Raises:
        InputError: It is none.
    """
    from nnunet_dml._checks import InputError, problem

    number = whole_number(text)
    if number is None:
        raise InputError(problem("-f", expected=expected, found=text[:80]))
    return number


def add_teacher(group: argparse._ArgumentGroup) -> None:
    """The arguments that choose a teacher and its calibration."""
    group.add_argument(
        "--teacher",
        metavar="MODEL",
        help="folder of the teacher, a trained model; or its name TRAINER__PLANS__CONFIGURATION in nnUNet_results; "
        "TRAINER__PLANS__{configuration} is the teacher of the student's configuration",
    )
    group.add_argument(
        "--teacher-folds",
        nargs="+",
        metavar="FOLD",
        help="its folds, averaged: 0, 1, …, all (default: same, the student's own)",
    )
    group.add_argument(
        "--calibration", choices=("kde", "temperature", "none"), help="how the teacher is calibrated"
    )
    group.add_argument(
        "--bandwidth", metavar="H", help="of the kernels: above 0, or auto (--calibration kde)"
    )


def teacher_assignments(args: argparse.Namespace) -> dict[str, str]:
    """The options of a teacher as `--set` takes them, by the flags that are short for them."""
    chosen = {"calibration": args.calibration, "bandwidth": args.bandwidth}
    if args.teacher is not None:
        from nnunet_dml._folders import environment_folder, find_dataset
        from nnunet_dml.nnunet.teacher import find

        dataset = find_dataset(args.dataset, environment_folder("nnUNet_preprocessed")).name
        chosen["model"] = find(args.teacher, dataset)
    if args.teacher_folds is not None:
        numbers = (whole_number(it) for it in args.teacher_folds)
        folds = ", ".join(
            json.dumps(text if n is None else n) for text, n in zip(args.teacher_folds, numbers, strict=True)
        )
        chosen["folds"] = "same" if args.teacher_folds == ["same"] else f"[{folds}]"
    flags = {"model": "--teacher", "folds": "--teacher-folds"}
    return {
        flags.get(name, f"--{name}"): f"teacher.{name}={value}"
        for name, value in chosen.items()
        if value is not None
    }
