#!/usr/bin/env bash
# The experiments of docs/results/brain-growth.md, on the CPU:
#   bash scripts/brain_growth.sh QUBIQ_BRAIN_GROWTH_FOLDER [ARM …]
# Needs nnU-Net's three folders in the environment and the package installed. An arm is a plans name below; default: all.
# A training that is finished is not repeated; one that was stopped is resumed. About 5 minutes a fold on two cores.
set -euo pipefail
source="$1"
shift
export nnUNet_def_n_proc=2
dataset=Dataset501_BrainGrowth

if [ ! -d "$nnUNet_raw/$dataset" ]; then
  nnunet-dml convert raters "$source" --dataset 501_BrainGrowth --layout qubiq --task 1 --channel-names MR
fi
if [ ! -d "$nnUNet_preprocessed/$dataset/nnUNetPlans_2d" ]; then
  nnUNetv2_plan_and_preprocess -d 501 -c 2d --verify_dataset_integrity -npfp 2 -np 2
fi
nnunet-dml preprocess -d 501 -c 2d --fusion weighted uniform

common=(training.epochs=30 training.iterations=50 training.val_iterations=10 training.seed=1234)
arm() { # arm PLANS OPTION …: a narrow network, batches of 8, 1500 iterations
  local plans="$1"
  shift
  nnunet-dml configure -d 501 -o "$plans" --batch-size 8 --features 16 32 64 128 128 --set "${common[@]}" "$@" --overwrite
}
arm nnUNetPlans_cpu
arm nnUNetPlans_weighted labels.source=weighted
arm nnUNetPlans_weighted_nods labels.source=weighted loss.deep_supervision=false
arm nnUNetPlans_uniform labels.source=uniform
arm nnUNetPlans_uniform_nods labels.source=uniform loss.deep_supervision=false

eval "$(nnunet-dml env)"
export nnUNet_n_proc_DA=0
arms=("$@")
[ ${#arms[@]} -gt 0 ] || arms=(nnUNetPlans_cpu nnUNetPlans_weighted nnUNetPlans_weighted_nods nnUNetPlans_uniform nnUNetPlans_uniform_nods)
for plans in "${arms[@]}"; do
  trainer=nnUNetTrainerDML
  [ "$plans" = nnUNetPlans_cpu ] && trainer=nnUNetTrainerConfigured # stock nnU-Net on the majority vote
  model="$nnUNet_results/$dataset/${trainer}__${plans}__2d"
  for fold in 0 1 2 3 4; do
    [ -f "$model/fold_$fold/validation/summary.json" ] || nnUNetv2_train 501 2d "$fold" -tr "$trainer" -p "$plans" --npz -device cpu --c
  done
  nnunet-dml evaluate -d 501 --model "$model" -o "$model/evaluation"
done
