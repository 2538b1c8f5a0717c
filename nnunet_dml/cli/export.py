"""`nnunet-dml export`: a trained model as a zip for a nnU-Net without this package."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "Pack a trained model into a zip that nnU-Net installs and predicts with, without this package."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Named as nnU-Net's own where it has the same thing."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="results folder of a trained model; with -d its name TRAINER__PLANS__CONFIGURATION in nnUNet_results",
    )
    parser.add_argument("-o", dest="output", required=True, type=Path, metavar="ZIP", help="file to write")
    parser.add_argument("-d", dest="dataset", metavar="DATASET", help="id or name of the data set")
    parser.add_argument(
        "-f", dest="folds", nargs="+", metavar="FOLD", help="0, 1, … or all (default: all numbered folds)"
    )
    parser.add_argument(
        "-chk",
        dest="checkpoint",
        default="checkpoint_final.pth",
        metavar="NAME",
        help="checkpoint of each fold (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> None:
    """Write the zip; say what is in it and how to use it."""
    from nnunet_dml.evaluation.calibrated import store
    from nnunet_dml.evaluation.predictions import find_model
    from nnunet_dml.nnunet.export import export

    folder = find_model(args.model, args.dataset)
    calibrator = store.files_to_give_away(folder)
    models = export(
        folder,
        args.output,
        extras=calibrator,
        folds=args.folds,
        checkpoint=args.checkpoint,
        overwrite=args.overwrite,
    )
    print(f"Written: {args.output} ({args.output.stat().st_size / 1e6:.1f} MB)")
    for model in models:
        record = model.record
        print(
            f"  {record['dataset']}, {record['configuration']}, folds {', '.join(record['folds'])}: "
            f"{record['trainer']} as {record['stock_trainer']}; checkpoints {model.bytes_before / 1e6:.1f} → "
            f"{model.bytes_after / 1e6:.1f} MB"
        )
        for note in model.notes:
            print(f"  {note}")
    if calibrator:
        print("  and its calibrator, which `nnunet-dml predict` applies where this package is installed, too")
    print("On a machine with nnU-Net; a model of this name there is overwritten:")
    print(f"  nnUNetv2_install_pretrained_model_from_zip {args.output.name}")
    previous = ""
    for model in models:
        record = model.record
        out = f"OUT_{record['configuration']}" if len(models) > 1 else "OUT"
        final = record["checkpoint"] == "checkpoint_final.pth"
        print(
            f"  nnUNetv2_predict -i IN -o {out} -d {record['dataset']} -tr {record['stock_trainer']} -p {record['plans']} "
            f"-c {record['configuration']} -f {' '.join(record['folds'])}"
            + ("" if final else f" -chk {record['checkpoint']}")
            + (f" -prev_stage_predictions {previous}" if previous else "")
        )
        previous = out
