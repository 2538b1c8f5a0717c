"""`nnunet-dml convert`: data of other layouts into an nnU-Net raw dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_dml._checks import InputError, problem
from nnunet_dml.cli._arguments import add_processes

HELP = "Make an nnU-Net raw dataset from several raters' masks."

_EXAMPLES = """\
layouts:
  qubiq    SRC/case01/image.nii.gz, SRC/case01/task01_seg01.nii.gz, task01_seg02.nii.gz, ...
  folders  SRC/images/case01.png, SRC/raters/anna/case01.png, SRC/raters/bela/case01.png, ...
  flat     files named by two patterns with {case} and {rater}; * stands for anything within a name, a file
           that fits both patterns goes to the one with more literal text

Images named <case>_0000.*, <case>_0001.* are the channels of <case>, unless masks are named so too.
Masks must lie on the image's grid within SimpleITK's tolerances: spacing and origin 1e-6 of the voxel size,
direction 1e-6. Pictures (PNG, BMP, TIFF) are compared by size only.

examples:
  nnunet-dml convert raters qubiq/brain-growth --dataset 501_BrainGrowth --layout qubiq --task 1
  nnunet-dml convert raters cells --dataset 502_Cells --layout folders --labels nucleus=128 cell=255
  nnunet-dml convert raters SRC --dataset 503_Tumour --layout flat --images '{case}_img.nii.gz' \\
      --raters '{case}_{rater}.nii.gz' --channel-names CT --dry-run
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands of `convert`."""
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    text = (
        "Check images and masks, then write $nnUNet_raw/Dataset...: images, majority vote, each rater's mask."
    )
    raters = kinds.add_parser(
        "raters",
        help="images with one mask per rater",
        description=text,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    raters.add_argument("src", metavar="SRC", type=Path, help="folder of the images and masks")
    raters.add_argument("--dataset", required=True, metavar="ID_NAME", help="such as 501_BrainGrowth")
    raters.add_argument("--layout", required=True, choices=("qubiq", "folders", "flat"), help="see below")
    raters.add_argument(
        "--task", type=int, metavar="N", help="task of layout qubiq; needed where there are several"
    )
    raters.add_argument("--images", metavar="PATTERN", help="images of layout flat, relative to SRC")
    raters.add_argument("--raters", metavar="PATTERN", help="masks of layout flat, relative to SRC")
    raters.add_argument(
        "--channel-names", metavar="A,B", help="such as MR,T2; nnU-Net normalises by them (CT)"
    )
    raters.add_argument(
        "--labels",
        nargs="+",
        metavar="NAME=VALUE",
        help="what the masks' values mean; they become 1, 2, ... in this order (default: as found). The name ignore: "
        "the rater abstains there",
    )
    raters.add_argument(
        "--channels-last", action="store_true", help="the images' last axis holds channels (4D: always)"
    )
    raters.add_argument("--overwrite", action="store_true", help="replace the dataset if it exists")
    raters.add_argument(
        "--dry-run", action="store_true", help="check everything, print what was found, write nothing"
    )
    add_processes(raters)


def run(args: argparse.Namespace) -> int:
    """Convert, and print what was found and written."""
    from nnunet_dml.nnunet.convert import convert_raters

    result = convert_raters(
        args.src,
        dataset=args.dataset,
        layout=args.layout,
        task=args.task,
        images=args.images,
        raters=args.raters,
        channel_names=None
        if args.channel_names is None
        else [n.strip() for n in args.channel_names.split(",")],
        labels=None if args.labels is None else _parse_labels(args.labels),
        channels_last=args.channels_last,
        overwrite=args.overwrite,
        dry_run=args.dry_run,
        processes=args.processes,
    )
    print("\n".join(result.summary()))
    print(f"dry run: nothing written to {result.folder}" if args.dry_run else f"written to {result.folder}")
    return 0


def _parse_labels(items: list[str]) -> dict[str, int]:
    """`["tumour=1", "edema=2"]` as a dictionary."""
    labels: dict[str, int] = {}
    for item in items:
        name, _, value = item.partition("=")
        if not name or not value.isascii() or not value.isdigit() or name in labels:
            expected = "NAME=VALUE with each name once and a whole number"
            raise InputError(problem("--labels", expected=expected, found=repr(item)))
        labels[name] = int(value)
    return labels
