"""Reading nnU-Net's checkpoints: what is damaged, something else, or holds code, is refused."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version

from nnunet_dml._checks import InputError, problem, some
from nnunet_dml.nnunet.plain_pickles import DTYPES, GLOBALS

FINAL = "checkpoint_final.pth"
_CAN_NAME_GLOBALS = Version(torch.__version__) >= Version("2.6")  # as NumPy 1 and 2 call them


def _plain_content(path: Path) -> Any:
    """What a file of torch's holds: tensors and plain values, nnU-Net's NumPy numbers among them, no code.

    Before torch 2.6 code would be run: there only who gave the file can be trusted, which a user named as a model.
    """
    if not _CAN_NAME_GLOBALS:
        return torch.load(path, map_location="cpu", weights_only=False, mmap=True)
    known: list[Any] = [*DTYPES, *((it, name) for name, it in GLOBALS.items())]
    with torch.serialization.safe_globals(known):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def load_checkpoint(path: Path, *, todo: str) -> dict[str, Any]:
    """A checkpoint of nnU-Net, checked as far as it can be alone; its weights stay on disk, mapped to memory.

    Args:
        path: The file.
        todo: What to do where it is not whole, for the message.

    Raises:
        InputError: The file is damaged, no checkpoint of nnU-Net's, holds code (from torch 2.6 on), or has weights
            that are not finite.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()  # torch does not check the sums
        if bad is not None:
            raise zipfile.BadZipFile(bad)
        content = _plain_content(path)
    except OSError:
        raise
    except Exception as error:  # unpickling damaged bytes can raise anything
        if named := re.search(r"(?:GLOBAL|Unsupported class) (\S+)", str(error)):
            expected, found = "a checkpoint of weights and plain values", f"one that calls {named[1]}"
            raise InputError(problem(path, expected=expected, found=found, todo=todo)) from None
        found = f"one that cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
        raise InputError(problem(path, expected="a checkpoint", found=found, todo=todo)) from None
    try:
        weights, arguments = content["network_weights"], content["init_args"]
        complete = {"plans", "configuration", "fold", "dataset_json"} <= arguments.keys()
        complete &= isinstance(content["trainer_name"], str) and bool(weights)
        complete &= all(isinstance(arguments[key], dict) for key in ("plans", "dataset_json"))
        diverged = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    except (KeyError, TypeError, AttributeError):
        complete, diverged = False, []
    if not complete:
        expected = "a checkpoint of nnU-Net"
        raise InputError(problem(path, expected=expected, found="something else", todo=todo))
    if diverged:
        found = f"NaN or infinity in {some(diverged, 3)}"
        raise InputError(problem(path, expected="finite weights", found=found, todo=todo))
    return content
