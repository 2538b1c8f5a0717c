"""`nnunet-dml preprocess`: the raters' fused maps on nnU-Net's grid."""

from __future__ import annotations

import argparse
from typing import Any

from nnunet_dml.cli._arguments import add_processes

HELP = (
    "Fuse the raters into soft maps on nnU-Net's preprocessed grid, and preprocess the unlabelled images of "
    "imagesUnlabelledTr where there are any (after nnUNetv2_plan_and_preprocess)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Named as nnU-Net's own."""
    parser.add_argument(
        "-d", dest="dataset", required=True, metavar="DATASET", help="id or name of the data set"
    )
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", metavar="PLANS", help="plans identifier")
    parser.add_argument(
        "-c", dest="configurations", nargs="+", metavar="CONFIGURATION", help="default: all preprocessed"
    )
    parser.add_argument(
        "--fusion", nargs="+", metavar="FUSION",
        help="sources of labels, several side by side: majority, uniform, weighted (default; each rater by his Dice "
        "against the majority), staple (no rater may abstain), random (each rater's own labels), file (maps of your own in "
        "softlabelsTr); the default makes none where there are no raters but unlabelled images",
    )  # fmt: skip
    add_processes(parser)
    parser.add_argument("--overwrite", action="store_true", help="make up-to-date maps anew, too")


def run(args: argparse.Namespace) -> None:
    """Make the maps, preprocess the unlabelled images, and say what was done."""
    from nnunet_dml.nnunet.preprocess import default_fusions, preprocess
    from nnunet_dml.nnunet.unlabelled import has_images
    from nnunet_dml.nnunet.unlabelled_making import preprocess_unlabelled

    same: dict[str, Any] = {
        "plans_name": args.plans,
        "configurations": args.configurations,
        "num_processes": args.processes,
        "overwrite": args.overwrite,
    }
    fusions = default_fusions(args.dataset) if args.fusion is None else args.fusion
    if fusions:
        _say_maps(preprocess(args.dataset, fusions=fusions, **same))
    if has_images(args.dataset):
        for row in preprocess_unlabelled(args.dataset, **same):
            print(f"{row['configuration']}, unlabelled images: {_done(row['cases'])}; in {row['folder']}")
            if row["removed"]:
                print(
                    f"  {len(row['removed'])} cases removed whose images are gone: {', '.join(row['removed'])}"
                )


def _done(cases: dict[str, int]) -> str:
    """How many cases were made and why, and how many were kept."""
    kept = cases.pop("kept", 0)
    made, reasons = sum(cases.values()), ", ".join(f"{n} {why}" for why, n in cases.items())
    return f"{made} made ({reasons}), {kept} kept" if made else f"{kept} kept"


def _say_maps(rows: list[dict[str, Any]]) -> None:
    """What was done about the maps."""
    for row in rows:
        print(f"{row['configuration']}, {row['fusion']}: {_done(row['cases'])}; in {row['folder']}")
        what = "voxels where raters differ" if row["fusion"] == "random" else "fractional voxels"
        print(
            f"  {what} inside nnU-Net's bounding box: {row['fractional_raw']:.2%} in original space, "
            f"{row['fractional']:.2%} preprocessed and stored"
        )
        if row["fractional"] < 0.9 * row["fractional_raw"]:
            print("  (fractions within 1/510 of 0 or 1 are stored as 0 or 1)")
        for label, cases in (
            ("without raters (consensus used)", "without_raters"),
            ("with a single rater", "single_rater"),
        ):
            if row[cases]:
                print(f"  {len(row[cases])} cases {label}: {', '.join(row[cases])}")
