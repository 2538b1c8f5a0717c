"""Make a data set of which only a part is labelled, from one that is split by group (`nnunet-dml split`).

    python scripts/few_labels.py Dataset017_LiverSlices FOLD '(patient[0-9]+)_.*' 5 Dataset021_LiverFew0

The validation cases of the fold keep their labels. Of its training groups (patients), 5 drawn at random with the fold as
seed keep theirs; the images of the others go to imagesUnlabelledTr. The new data set's splits_final.json has that one
fold. Needs nnUNet_raw and nnUNet_preprocessed.
"""

import argparse
import json
import random
import re
import shutil
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("source", "fold", "pattern", "groups", "target"):
        parser.add_argument(name, type=int if name in ("fold", "groups") else str)
    arguments = parser.parse_args()
    source, target = (Path(nnUNet_raw) / name for name in (arguments.source, arguments.target))
    splits = json.loads((Path(nnUNet_preprocessed) / arguments.source / "splits_final.json").read_text())
    training, validation = (splits[arguments.fold][side] for side in ("train", "val"))
    group_of = {case: re.fullmatch(arguments.pattern, case)[1] for case in training}
    drawn = random.Random(arguments.fold).sample(sorted(set(group_of.values())), arguments.groups)
    labelled = [case for case in training if group_of[case] in drawn]
    files = get_filenames_of_train_images_and_targets(str(source))
    for folder in ("imagesTr", "labelsTr", "imagesUnlabelledTr"):
        (target / folder).mkdir(parents=True)
    for case, it in files.items():
        if case in labelled or case in validation:
            shutil.copy(it["label"], target / "labelsTr")
        known = case in labelled or case in validation
        for image in it["images"]:
            shutil.copy(image, target / ("imagesTr" if known else "imagesUnlabelledTr"))
    described = json.loads((source / "dataset.json").read_text())
    described["numTraining"] = len(labelled) + len(validation)
    (target / "dataset.json").write_text(json.dumps(described, indent=1))
    made = Path(nnUNet_preprocessed) / arguments.target
    made.mkdir(parents=True, exist_ok=True)
    (made / "splits_final.json").write_text(json.dumps([{"train": labelled, "val": validation}], indent=1))
    print(
        f"{arguments.target}: labels of {len(labelled)} of {len(training)} training cases ({arguments.groups} of "
        f"{len(set(group_of.values()))} groups), {len(validation)} validation cases"
    )
