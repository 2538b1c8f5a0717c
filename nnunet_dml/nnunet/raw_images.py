"""Reading a case's images by nnU-Net's own reader, without its silence about truncated files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_dml._checks import InputError, problem
from nnunet_dml._images import NOT_FINITE, check_whole
from nnunet_dml.nnunet.soft_maps import first_line


def read_images(
    reader: Any, paths: Sequence[Path], *, case: str, todo: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Read the channels of a case.

    Args:
        reader: nnU-Net's.
        paths: A file per channel, or one that holds all.
        case: Its name, for the message.
        todo: What to do where they are bad, for the message.

    Returns:
        (channels, *spatial) and nnU-Net's properties.

    Raises:
        InputError: A file is missing or damaged, they do not fit together, or hold values that are `NOT_FINITE`.
    """
    for path in paths:
        check_whole(path)
    try:
        images, properties = reader.read_images([str(path) for path in paths])
    except Exception as error:  # nnU-Net's readers raise whatever their libraries do
        expected = f"images of {case} that nnU-Net can read"
        raise InputError(problem(paths[0], expected=expected, found=first_line(error), todo=todo)) from None
    if bad := int(np.count_nonzero(~np.isfinite(images))):
        found = f"{bad} voxels that are {NOT_FINITE}"
        raise InputError(problem(paths[0], expected="finite numbers", found=found, todo=todo))
    return images, properties
