#!/usr/bin/env bash
# The runs of docs/results/modes.md, on the CPU:
#   bash scripts/modes.sh DATA WORK [lidc|hippocampus|bubil …]
# DATA holds lidc-nodules/, Dataset004_Hippocampus/ and bubil/; WORK is made and takes everything. Needs the package installed.
set -euo pipefail
. "$(dirname "$0")/_folders.sh" "$1" "$2"
shift 2
plan() { nnUNetv2_plan_and_preprocess -d "$1" -c "$2" --verify_dataset_integrity -npfp 2 -np 2 >"$work/plan_$1.log" 2>&1 || { tail "$work/plan_$1.log"; exit 1; }; }
train() { nnUNet_n_proc_DA=0 nnUNetv2_train "$@" -device cpu | grep -E "Training on|Mean Validation Dice|Epoch time" | tail -n 3; }

lidc() { # 111 nodules in 3D, 3 or 4 radiologists: every fusion
  python "$here/lidc_source.py" images "$data/lidc-nodules" "$work/lidc"
  nnunet-dml convert raters "$work/lidc" --dataset 503_Lidc --layout folders
  python "$here/lidc_source.py" maps "$nnUNet_raw/Dataset503_Lidc"
  plan 503 3d_fullres
  nnunet-dml preprocess -d 503 -c 3d_fullres --fusion majority uniform weighted staple random file
}

hippocampus() { # 3D, one rater: boundary label smoothing of labels and of regions, 500 iterations
  cp -r "$data/Dataset004_Hippocampus" "$nnUNet_raw/"
  cp -r "$data/Dataset004_Hippocampus" "$nnUNet_raw/Dataset014_HippocampusRegions"
  python - "$nnUNet_raw/Dataset014_HippocampusRegions/dataset.json" <<'PYTHON'
import json, sys
content = json.load(open(sys.argv[1]))
content |= {"labels": {"background": 0, "whole": [1, 2], "anterior": 1}, "regions_class_order": [2, 1]}
json.dump(content, open(sys.argv[1], "w"))
PYTHON
  for id in 4 14; do
    plan $id 3d_fullres
    nnunet-dml configure -d $id -o half --scale-features 0.5 \
      --set training.epochs=20 training.iterations=25 training.val_iterations=5 training.seed=1234
    train $id 3d_fullres 0 -tr nnUNetTrainerDML_BLS -p half
  done
  train 4 3d_fullres 0 -tr nnUNetTrainerDML -p half
}

bubil() { # 35 PNG pictures of cells, 10 annotations each: two epochs
  nnunet-dml convert raters "$data/bubil" --dataset 502_Bubil --layout folders
  plan 502 2d
  nnunet-dml preprocess -d 502 -c 2d --fusion weighted staple random
  nnunet-dml configure -d 502 -o nnUNetPlans_small --scale-features 0.125 --batch-size 2 \
    --set training.epochs=2 training.iterations=10 training.val_iterations=2 training.seed=1234
  train 502 2d 0 -tr nnUNetTrainerDML -p nnUNetPlans_small --npz
  nnunet-dml evaluate -d 502 --model nnUNetTrainerDML__nnUNetPlans_small__2d -o "$work/evaluation_bubil"
}

for part in "${@:-lidc hippocampus bubil}"; do for it in $part; do "$it"; done; done
