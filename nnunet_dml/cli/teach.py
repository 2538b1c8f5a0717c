"""`nnunet-dml teach`: an offline teacher's maps on the student's grid."""

from __future__ import annotations

import argparse

from nnunet_dml.cli._arguments import add_teacher, check_device, fold_number, teacher_assignments

HELP = "Predict the training cases with a teacher, calibrate it, store what it says on the student's grid."
FOLDS = "numbers of folds, or all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Named as nnU-Net's own."""
    parser.add_argument("-d", dest="dataset", required=True, metavar="DATASET", help="the student's data set")
    parser.add_argument(
        "-p", dest="plans", default="nnUNetPlans", metavar="PLANS", help="the student's plans"
    )
    parser.add_argument(
        "-c", dest="configuration", required=True, metavar="CONFIGURATION", help="the student's configuration"
    )
    parser.add_argument(
        "-f", dest="folds", nargs="+", metavar="FOLD",
        help="the student's folds, or all; default: every one of splits_final.json",
    )  # fmt: skip
    parser.add_argument(
        "--name", required=True, metavar="NAME", help="of the maps: the student's teacher.maps"
    )
    add_teacher(parser.add_argument_group("teacher"))
    parser.add_argument(
        "--set", dest="assignments", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
        help="more options of the teacher, e.g. teacher.keys=2000 teacher.voxels=all",
    )  # fmt: skip
    parser.add_argument("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="default: cuda")
    parser.add_argument("--disable_tta", action="store_true", help="don't mirror; faster, less accurate")
    parser.add_argument("--overwrite", action="store_true", help="make up-to-date maps anew, too")


def run(args: argparse.Namespace) -> None:
    """Make the maps and say what was done."""
    import re

    import torch

    from nnunet_dml._checks import InputError, problem
    from nnunet_dml.nnunet.offline_teacher import teach
    from nnunet_dml.nnunet.option_groups import TEACHING
    from nnunet_dml.nnunet.options import parse_assignments, validate

    if not args.teacher:
        raise InputError(problem("--teacher", expected="the teacher's folder", found="none"))
    if not re.fullmatch(r"[\w.-]+", args.name):
        expected = "letters, digits, '.', '_' and '-'"
        raise InputError(problem("--name", expected=expected, found=args.name))
    check_device(args.device)
    asked = parse_assignments(args.assignments, teacher_assignments(args))
    read = [f"teacher.{name}" for name in TEACHING]
    if foreign := [name for group in asked for key in asked[group] if (name := f"{group}.{key}") not in read]:
        expected = f"what teaching reads ({', '.join(read)})"
        raise InputError(problem("--set", expected=expected, found=", ".join(foreign)))
    options = validate(asked, where="--set").teacher
    rows = teach(
        args.dataset,
        name=args.name,
        options=options,
        plans_name=args.plans,
        configuration=args.configuration,
        folds=None
        if args.folds is None
        else [it if it == "all" else fold_number(it, expected=FOLDS) for it in args.folds],
        device=torch.device(args.device),
        mirroring=not args.disable_tta,
        overwrite=args.overwrite,
    )
    for row in rows:
        print(f"fold {row['fold']}: {row['made']} made, {row['kept']} kept; in {row['folder']}")
        print(
            f"  teacher's ECE on the training cases {row['ece']:.2%}, calibrated {row['ece_calibrated']:.2%}"
        )
    print(f"Train with `nnunet-dml configure … --set teacher.maps={args.name}` and nnUNetTrainerDML_KD.")
