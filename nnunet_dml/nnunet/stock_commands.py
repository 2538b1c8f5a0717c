"""nnU-Net's own commands, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nnunetv2.run.run_training import run_training_entry


def nnunetv2_train(arguments: Sequence[str]) -> None:
    """`nnUNetv2_train` with these arguments."""
    sys.argv = ["nnUNetv2_train", *arguments]
    run_training_entry()
