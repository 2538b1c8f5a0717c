#!/usr/bin/env bash
# The experiments of docs/results/brain-growth.md, on the CPU:
#   bash scripts/brain_growth.sh QUBIQ_BRAIN_GROWTH_FOLDER [ARM …]
# Needs nnU-Net's three folders in the environment and the package installed. An arm is one of the names below; default: all.
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
nnunet-dml preprocess -d 501 -c 2d --fusion weighted uniform staple random

common=(training.epochs=30 training.iterations=50 training.val_iterations=10 training.seed=1234)
declare -A trainer plans
arm() { # arm NAME TRAINER PLANS [OPTION …]: a narrow network, batches of 8, 1500 iterations
  trainer[$1]="$2" plans[$1]="$3"
  nnunet-dml configure -d 501 -o "$3" --batch-size 8 --features 16 32 64 128 128 --set "${common[@]}" "${@:4}" --overwrite
}
arm stock nnUNetTrainerConfigured nnUNetPlans_cpu # stock nnU-Net on the majority vote
arm random nnUNetTrainerDML nnUNetPlans_random labels.source=random
arm uniform nnUNetTrainerDML nnUNetPlans_uniform labels.source=uniform
arm weighted nnUNetTrainerDML nnUNetPlans_weighted labels.source=weighted
arm staple nnUNetTrainerDML nnUNetPlans_staple labels.source=staple
arm ls nnUNetTrainerDML_LS nnUNetPlans_cpu # label smoothing of the majority vote, ε 0.1
arm bls nnUNetTrainerDML_BLS nnUNetPlans_cpu # the same near boundaries only, k 3, ε 0.5
arm weighted_nods nnUNetTrainerDML nnUNetPlans_weighted_nods labels.source=weighted loss.deep_supervision=false

eval "$(nnunet-dml env)"
export nnUNet_n_proc_DA=0
arms=("$@")
[ ${#arms[@]} -gt 0 ] || arms=(stock random uniform weighted staple ls bls weighted_nods)
for name in "${arms[@]}"; do
  model="$nnUNet_results/$dataset/${trainer[$name]}__${plans[$name]}__2d"
  for fold in 0 1 2 3 4; do
    [ -f "$model/fold_$fold/validation/summary.json" ] ||
      nnUNetv2_train 501 2d "$fold" -tr "${trainer[$name]}" -p "${plans[$name]}" --npz -device cpu --c
  done
  nnunet-dml evaluate -d 501 --model "$model" -o "$model/evaluation"
done
