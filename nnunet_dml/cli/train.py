"""`nnunet-dml train`: `nnUNetv2_train` with the trainers found."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from nnunet_dml.cli.env import VARIABLE, plugin_path

HELP = "Run nnUNetv2_train with the trainers found; all arguments are handed on unchanged (train -h: nnU-Net's help)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything goes to nnU-Net."""
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of nnUNetv2_train")


def run(args: argparse.Namespace) -> int:
    """Hand on what a parser kept."""
    return hand_on(args.arguments)


def hand_on(arguments: Sequence[str]) -> int:
    """Run nnU-Net's command in this process."""
    os.environ[VARIABLE] = plugin_path()
    from nnunet_dml.nnunet.stock_commands import nnunetv2_train

    nnunetv2_train(arguments)
    return 0
