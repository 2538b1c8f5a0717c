#!/usr/bin/env bash
# Reports of the models of brain_growth.sh, each before and after calibration, and their comparison:
#   bash scripts/brain_growth_report.sh OUT MODEL_FOLDER …
# Needs nnU-Net's three folders in the environment, the package installed, and models trained with --npz on all folds.
# The models' folders are not changed: what belongs to the calibration is made in copies below OUT.
set -euo pipefail
mkdir -p "$1"
out="$(cd "$1" && pwd)"
here="$(cd "$(dirname "$0")" && pwd)"
shift
evaluations=()
for model in "$@"; do
  name="$(basename "$model")"
  copy="$out/models/$name"
  mkdir -p "$copy"
  cp "$model"/{plans,dataset}.json "$copy/"
  for fold in "$model"/fold_?; do
    mkdir -p "$copy/$(basename "$fold")/validation"
    cp -u "$fold"/validation/*.npz "$copy/$(basename "$fold")/validation/"
  done
  nnunet-dml calibrate fit "$copy" -d 501
  nnunet-dml calibrate apply "$copy" --cross-fitted -o "$out/calibrated/$name"
  nnunet-dml evaluate -d 501 --model "$copy" -o "$out/evaluations/$name"
  nnunet-dml evaluate -d 501 --model "$out/calibrated/$name" -o "$out/evaluations/${name}_calibrated"
  nnunet-dml report "$out/evaluations/$name" --calibrated "$out/evaluations/${name}_calibrated" -o "$out/$name.html"
  evaluations+=("$out/evaluations/$name")
done
python "$here/check_evaluation.py" "${evaluations[@]}"
nnunet-dml compare "${evaluations[@]}"
nnunet-dml report "${evaluations[@]}" -o "$out/comparison.html" --markdown "$out/comparison.md"
