"""`nnunet-dml configure`: options of a training, kept in a plans file of its own."""

from __future__ import annotations

import argparse

from nnunet_dml.cli._arguments import add_teacher, teacher_assignments

HELP = "Write a plans file with options of labels, loss, schedule and width; no preprocessing is repeated."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Named as nnU-Net's own where it has the same thing."""
    parser.add_argument("-d", dest="dataset", metavar="DATASET", help="id or name of the data set")
    parser.add_argument(
        "-p", dest="plans", default="nnUNetPlans", metavar="PLANS", help="plans to start from"
    )
    parser.add_argument("-o", dest="output", metavar="PLANS", help="name of the plans to write")
    parser.add_argument(
        "-c",
        dest="configurations",
        nargs="+",
        metavar="CONFIGURATION",
        help="which get another batch size or width (default: all)",
    )
    parser.add_argument(
        "--set",
        dest="assignments",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="set an option, e.g. labels.source=uniform training.epochs=100",
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="another batch size")
    width = parser.add_mutually_exclusive_group()
    width.add_argument(
        "--scale-features",
        type=float,
        metavar="FACTOR",
        help="factor on the channels of every stage, e.g. 0.5",
    )
    width.add_argument("--features", type=int, nargs="+", metavar="N", help="channels of every stage")
    teacher = parser.add_argument_group("distillation", "short for --set teacher.…")
    add_teacher(teacher)
    parser.add_argument("--overwrite", action="store_true", help="replace plans of that name")
    parser.add_argument("--list", action="store_true", help="print all options and leave")


def run(args: argparse.Namespace) -> None:
    """List the options or write the plans."""
    from nnunet_dml._checks import InputError
    from nnunet_dml.nnunet.options import listing, parse_assignments

    if args.list:
        for name, kind, default, description in listing():
            print(f"{name}  ({kind}; default {default})\n    {description}")
        return
    missing = [flag for flag, value in (("-d", args.dataset), ("-o", args.output)) if not value]
    if missing:
        raise InputError(
            f"expected {' and '.join(missing)}. `nnunet-dml configure -d 501 -o nnUNetPlans_uniform --set labels.source=uniform` is an example."
        )
    from nnunet_dml.nnunet.configure import configure

    written = configure(
        args.dataset,
        source=args.plans,
        target=args.output,
        options=parse_assignments([*args.assignments, *teacher_assignments(args)]),
        configurations=args.configurations,
        batch_size=args.batch_size,
        scale_features=args.scale_features,
        features=args.features,
        overwrite=args.overwrite,
    )
    trainer = " -tr nnUNetTrainerDML_KD" if args.teacher else ""
    print(f"Wrote {written}. Train with `nnUNetv2_train …{trainer} -p {args.output}`.")
