#!/usr/bin/env bash
# Five real data sets through the whole way, from raw files to a report and a model to give away, on the CPU, unattended:
#   bash scripts/all_data.sh DATA WORK [brain_growth|bubil|lidc|hippocampus|liver …]
# DATA holds qubiq/, bubil/, lidc-nodules/, Dataset004_Hippocampus/ and Dataset017_LiverSlices/; WORK is made and takes everything.
# Needs the package installed. Trainings are short (two folds of a narrow network): this is about the way, not about the figures.
# What is finished is not repeated.
set -euo pipefail
. "$(dirname "$0")/_folders.sh" "$1" "$2"
shift 2
mkdir -p "$work/logs"
quietly() { # quietly NAME COMMAND …: what it prints goes to a log, the end of which is shown if it fails
  "${@:2}" >"$work/logs/$1.txt" 2>&1 || { tail -n 20 "$work/logs/$1.txt" >&2; exit 1; }
}

plan() { # plan DATASET CONFIGURATION
  once "$nnUNet_preprocessed/$1/nnUNetPlans_$2" \
    quietly "plan_$1" nnUNetv2_plan_and_preprocess -d "${1:7:3}" -c "$2" --verify_dataset_integrity -npfp 2 -np 2
}
whole_way() { # whole_way DATASET CONFIGURATION TRAINER BATCH_SIZE WIDTH ITERATIONS: planned data → model → report
  local name="$1" configuration="$2" trainer="$3" model fold started=$SECONDS
  local out="$work/reports/$name"
  nnunet-dml doctor -d "$name" -c "$configuration" >"$work/logs/doctor_$name.txt"
  nnunet-dml configure -d "$name" -o short -c "$configuration" --batch-size "$4" --scale-features "$5" --overwrite --set \
    training.epochs=8 "training.iterations=$6" training.val_iterations=3 training.seed=1234 \
    training.momentum=0.95 training.learning_rate=0.05 training.bfloat16=auto
  model="$nnUNet_results/$name/${trainer}__short__$configuration"
  for fold in 0 1; do
    once "$model/fold_$fold/validation/summary.json" quietly "train_${name}_$fold" \
      env nnUNet_n_proc_DA=0 nnUNetv2_train "$name" "$configuration" $fold -tr "$trainer" -p short --npz -device cpu --c
  done
  nnunet-dml evaluate -d "$name" --model "$model" -o "$out/evaluation" >"$work/logs/evaluate_$name.txt"
  nnunet-dml calibrate fit "$model" -d "$name" >"$work/logs/calibrate_$name.txt"
  nnunet-dml calibrate apply "$model" -d "$name" --cross-fitted -o "$out/calibrated"
  nnunet-dml evaluate -d "$name" --model "$out/calibrated" -o "$out/evaluation_calibrated"
  nnunet-dml report "$out/evaluation" --calibrated "$out/evaluation_calibrated" -o "$out/report.html"
  nnunet-dml export "$model" -o "$out/model.zip" --overwrite
  echo "$name: report after $((SECONDS - started)) s: $out/report.html"
}

brain_growth() { # MR in 2D, 7 raters
  once "$nnUNet_raw/Dataset501_BrainGrowth" nnunet-dml convert raters "$data/qubiq" --dataset 501_BrainGrowth --layout qubiq \
    --subset brain-growth --task 1 --channel-names MR
  plan Dataset501_BrainGrowth 2d
  nnunet-dml preprocess -d 501 -c 2d
  nnunet-dml raters -d 501 -o "$work/reports/Dataset501_BrainGrowth/agreement"
  whole_way Dataset501_BrainGrowth 2d nnUNetTrainerDML 8 0.5 25
}
bubil() { # pictures of cells, 10 annotations
  once "$nnUNet_raw/Dataset502_Bubil" nnunet-dml convert raters "$data/bubil" --dataset 502_Bubil --layout folders
  plan Dataset502_Bubil 2d
  nnunet-dml preprocess -d 502 -c 2d
  nnunet-dml raters -d 502 -o "$work/reports/Dataset502_Bubil/agreement"
  whole_way Dataset502_Bubil 2d nnUNetTrainerDML 2 0.25 6
}
lidc() { # nodules in 3D, 3 or 4 radiologists; the images are made of their masks, for the database has none
  once "$work/lidc" python "$here/lidc_source.py" images "$data/lidc-nodules" "$work/lidc"
  once "$nnUNet_raw/Dataset503_Lidc" nnunet-dml convert raters "$work/lidc" --dataset 503_Lidc --layout folders
  plan Dataset503_Lidc 3d_fullres
  nnunet-dml preprocess -d 503 -c 3d_fullres
  nnunet-dml raters -d 503 -o "$work/reports/Dataset503_Lidc/agreement"
  whole_way Dataset503_Lidc 3d_fullres nnUNetTrainerDML 2 0.25 10
}
hippocampus() { # MR in 3D, one rater: labels smoothed near boundaries
  once "$nnUNet_raw/Dataset004_Hippocampus" cp -r "$data/Dataset004_Hippocampus" "$nnUNet_raw/"
  plan Dataset004_Hippocampus 3d_fullres
  whole_way Dataset004_Hippocampus 3d_fullres nnUNetTrainerDML_BLS 2 0.25 10
}
liver() { # CT slices, one rater, split by patient
  once "$nnUNet_raw/Dataset017_LiverSlices" cp -r "$data/Dataset017_LiverSlices" "$nnUNet_raw/"
  plan Dataset017_LiverSlices 2d
  nnunet-dml split -d 17 --groups '(patient[0-9]+)_.*'
  whole_way Dataset017_LiverSlices 2d nnUNetTrainerDML_BLS 4 0.25 15
}

[ $# -gt 0 ] || set -- brain_growth bubil lidc hippocampus liver
for part in "$@"; do "$part"; done
echo "All of it in $SECONDS s."
