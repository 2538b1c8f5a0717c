"""`nnunet-dml env`: the line that lets nnU-Net find the trainers."""

from __future__ import annotations

import argparse
import os
import shlex

from nnunet_dml._folders import PLUGIN

HELP = 'Print the line that lets nnU-Net find the trainers: eval "$(nnunet-dml env)".'
VARIABLE = "nnUNet_extTrainer"


def plugin_path() -> str:
    """The value of `nnUNet_extTrainer`: our folder first, then whatever the user has there."""
    plugin = str(PLUGIN)
    others = [path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path and path != plugin]
    return os.pathsep.join([plugin, *others])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> None:
    """Print the export line."""
    print(f"export {VARIABLE}={shlex.quote(plugin_path())}")
