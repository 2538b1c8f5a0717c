"""Where images and masks lie in a folder: the layouts that `nnunet-dml convert` knows."""

from __future__ import annotations

from pathlib import Path

from nnunet_dml._checks import InputError
from nnunet_dml.nnunet.layouts import chase, curvas, flat, folders, qubiq
from nnunet_dml.nnunet.layouts.cases import Case, Found, check_folder
from nnunet_dml.nnunet.layouts.signs import LAYOUTS, only_layout

__all__ = ["LAYOUTS", "Case", "Found", "check_folder", "find_cases"]


def find_cases(
    src: Path,
    layout: str,
    *,
    task: int | None = None,
    subset: str | None = None,
    images: str | None = None,
    raters: str | None = None,
) -> Found:
    """Look for images and several raters' masks in a folder.

    Args:
        src: The folder.
        layout: One of `LAYOUTS`; `auto` takes the only one that the names in the folder point to, never `flat`.
        task: For `qubiq`: the number in `taskNN_segNN`. May be left out where there is one task only.
        subset: For `qubiq`: `brain-growth`, …; may be left out where there is one only.
        images: For `flat`: pattern of the images relative to `src`, with `{case}`; `*` stands for anything.
        raters: For `flat`: pattern of the masks, with `{case}` and `{rater}`.

    Raises:
        InputError: The folder is missing or of another layout, or an option is missing or does not fit.
    """
    check_folder(src)
    layout = only_layout(src) if layout == "auto" else layout
    if layout != "flat" and (images or raters):
        raise InputError("--images, --raters: expected only with --layout flat. Leave them out.")
    for option, value in (("--task", task), ("--subset", subset)):
        if layout != "qubiq" and value is not None:
            raise InputError(f"{option}: expected only with --layout qubiq. Leave it out.")
    if layout == "qubiq":
        return qubiq.find(src, task, subset)
    if layout == "flat":
        return flat.find(src, images, raters)
    return {"folders": folders, "curvas": curvas, "chase": chase}[layout].find(src)
