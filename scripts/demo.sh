#!/usr/bin/env bash
# From several raters to an evaluated soft-label model, on a phantom, on the CPU:
#   bash scripts/demo.sh [FOLDER]      results go to FOLDER (default: demo-results)
set -euo pipefail
mkdir -p "${1:-demo-results}"
results="$(cd "${1:-demo-results}" && pwd)"
. "$(dirname "$0")/_environment.sh"
echo "Installing into .venv …"
make_environment

start=$SECONDS
export nnUNet_raw="$results/raw" nnUNet_preprocessed="$results/preprocessed" nnUNet_results="$results/models"
export nnUNet_def_n_proc=2
mkdir -p "$nnUNet_raw" "$nnUNet_preprocessed" "$nnUNet_results"
step() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

step python scripts/make_phantom.py "$results/phantom" --cases 15 --raters 5 --size 64
step nnunet-dml convert raters "$results/phantom" --dataset 901_Phantom --layout qubiq --task 1 --overwrite
step nnUNetv2_plan_and_preprocess -d 901 -c 2d --verify_dataset_integrity -npfp 2 -np 2
step nnunet-dml preprocess -d 901 -c 2d
# a short training of a narrow network; leave this out, and -p below, for nnU-Net's own size and 1000 epochs
step nnunet-dml configure -d 901 -o nnUNetPlans_demo --scale-features 0.25 --batch-size 8 --overwrite \
  --set training.epochs=6 training.iterations=25 training.val_iterations=5 training.seed=1
eval "$(nnunet-dml env)"
export nnUNet_n_proc_DA=0 # no worker processes: fastest on few cores
step nnUNetv2_train 901 2d 0 -tr nnUNetTrainerDML -p nnUNetPlans_demo --npz -device cpu
step nnunet-dml evaluate -d 901 --model nnUNetTrainerDML__nnUNetPlans_demo__2d -o "$results/evaluation"

printf '\nDone in %d s (without the installation).\n' "$((SECONDS - start))"
echo "Model:      $nnUNet_results/Dataset901_Phantom/nnUNetTrainerDML__nnUNetPlans_demo__2d"
echo "Evaluation: $results/evaluation (cases.csv, summary.json)"
