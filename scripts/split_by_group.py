"""Write nnU-Net's splits_final.json so that the cases of one patient are never on both sides.

    python scripts/split_by_group.py 17 '(patient[0-9]+)_.*'

The group of a case is what the pattern's parentheses match in its name. Five folds over the groups, by nnU-Net's own
function and seed; an existing splits_final.json is not overwritten. Needs nnUNet_preprocessed, and the data set planned.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.crossval_split import generate_crossval_split
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="id or name")
    parser.add_argument("pattern", help="regular expression with one pair of parentheses around the group")
    arguments = parser.parse_args()
    name = maybe_convert_to_dataset_name(arguments.dataset)
    cases = sorted(get_filenames_of_train_images_and_targets(str(Path(nnUNet_raw) / name)))
    found = {case: re.fullmatch(arguments.pattern, case) for case in cases}
    unmatched = [case for case, match in found.items() if match is None]
    if unmatched:
        sys.exit(f"{name}: the pattern {arguments.pattern} does not match {', '.join(unmatched[:5])}")
    groups = {case: match[1] for case, match in found.items() if match}
    folds = generate_crossval_split(sorted(set(groups.values())), seed=12345, n_splits=5)
    splits = [
        {side: [case for case in cases if groups[case] in fold[side]] for side in ("train", "val")}
        for fold in folds
    ]
    with (Path(nnUNet_preprocessed) / name / "splits_final.json").open("x", encoding="utf-8") as file:
        json.dump(splits, file, indent=2)
    for number, fold in enumerate(folds):
        counts = ", ".join(
            f"{side} {len(fold[side])} groups, {len(splits[number][side])} cases" for side in ("train", "val")
        )
        print(f"fold {number}: {counts}")
