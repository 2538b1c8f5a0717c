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
    parser.add_argument(
        "--network",
        metavar="NAME",
        help="a network of segmentation_models_pytorch for 2D configurations, smp:ARCHITECTURE:ENCODER, e.g. "
        "smp:Unet:resnet50; encoders start from ImageNet, with :none behind the name from random weights",
    )
    parser.add_argument(
        "--recipe",
        choices=("paper", "paper-60"),
        help="the schedule of the Dice semimetric paper: SGD 0.01, momentum 0.9, weight decay 5e-4, batches of 8 "
        "(--batch-size: others), 150 epochs (paper-60: 60) of one pass over the training slices, 0.25 cross-entropy + 0.75 "
        "overlap (where the trainer has nnunet_dml's losses); --set comes after it; a --network sees patches resized to 256 × 256 (512 × 512)",
    )
    teacher = parser.add_argument_group("distillation", "short for --set teacher.…")
    add_teacher(teacher)
    parser.add_argument("--overwrite", action="store_true", help="replace plans of that name")
    parser.add_argument("--list", action="store_true", help="print all options and leave")


def run(args: argparse.Namespace) -> None:
    """List the options or write the plans."""
    from nnunet_dml._checks import InputError
    from nnunet_dml._files import read_json
    from nnunet_dml.nnunet.options import KEY, listing, parse_assignments

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
    from nnunet_dml.nnunet.plan_changes import Changes

    written = configure(
        args.dataset,
        source=args.plans,
        target=args.output,
        options=parse_assignments(args.assignments, teacher_assignments(args)),
        configurations=args.configurations,
        changes=Changes(args.batch_size, args.scale_features, args.features, args.network, args.recipe),
        overwrite=args.overwrite,
    )
    options = read_json(written)[KEY]
    trainer = " -tr nnUNetTrainerDML_KD" if {"model", "maps"} & options.get("teacher", {}).keys() else ""
    trainer = " -tr nnUNetTrainerDML_SSL" if options.get("unlabelled") else trainer
    print(f"Wrote {written}. Train with `nnUNetv2_train …{trainer} -p {args.output}`.")
