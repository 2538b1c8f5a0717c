"""Reading, comparing and writing image files with SimpleITK, without its silent failures.

SimpleITK reads a truncated `.nii.gz`, `.nii`, `.gipl`, `.bmp` or multi-page `.tif` as if it were whole, and
writes the first four on a full disk without an error. So the length of every file is checked when it is read,
and what is written is read back.
"""

from nnunet_dml._images.endings import ENDINGS, PICTURES, ending_of_dataset, split_ending
from nnunet_dml._images.files import check_name, check_whole, quiet, read, write
from nnunet_dml._images.grid import TOLERANCE, Grid, misfits
from nnunet_dml._images.masks import NOT_FINITE, count_not_finite, mask_of, read_mask, whole_numbers

__all__ = [
    "ENDINGS", "NOT_FINITE", "PICTURES", "TOLERANCE", "Grid", "check_name", "check_whole", "count_not_finite", "ending_of_dataset",
    "mask_of", "misfits", "quiet", "read", "read_mask", "split_ending", "whole_numbers", "write",
]  # fmt: skip
