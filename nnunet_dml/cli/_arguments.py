"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import os


def add_processes(parser: argparse.ArgumentParser) -> None:
    """`-np`, as in nnU-Net's own commands."""
    text = os.environ.get("nnUNet_def_n_proc", "")
    parser.add_argument(
        "-np",
        "--num-processes",
        dest="processes",
        type=int,
        default=int(text) if text.isdigit() else 2,
        metavar="N",
        help="worker processes (default: $nnUNet_def_n_proc, else 2)",
    )
