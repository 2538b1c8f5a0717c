"""`nnunet-dml train`: `nnUNetv2_train` with the trainers found."""

from __future__ import annotations

import argparse
import os

from nnunet_dml.cli.env import VARIABLE, plugin_path

HELP = "Run nnUNetv2_train with the trainers found; all arguments are handed on unchanged."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything goes to nnU-Net."""
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of nnUNetv2_train")


def run(args: argparse.Namespace) -> None:
    """Run nnU-Net's command in this process."""
    os.environ[VARIABLE] = plugin_path()
    from nnunet_dml.nnunet.stock_commands import nnunetv2_train

    nnunetv2_train(args.arguments)
