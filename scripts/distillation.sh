#!/usr/bin/env bash
# Distillation and semi-supervised training on real data, on the CPU; prints a table for each part:
#   bash scripts/distillation.sh DATA WORK [liver|hippocampus|ssl …]
# DATA holds Dataset017_LiverSlices/ and Dataset004_Hippocampus/; WORK is made and takes everything. Needs the package installed.
# A training that is finished is not repeated; one that was stopped is resumed.
set -euo pipefail
. "$(dirname "$0")/_folders.sh" "$1" "$2"
shift 2
train() { # train DATASET CONFIGURATION FOLD TRAINER PLANS
  once "$nnUNet_results/$1/$4__$5__$2/fold_$3/validation/summary.json" \
    env nnUNet_n_proc_DA=0 nnUNetv2_train "$1" "$2" "$3" -tr "$4" -p "$5" --npz -device cpu --c
}

# students of a teacher: hard labels alone; + cross-entropy with the teacher; + the Dice semimetric; + KDE
students() { # students DATASET CONFIGURATION PLANS_OF_THE_TEACHER, whose other options they have, too
  local teach=(--teacher "$1/nnUNetTrainerDML__$3__$2") none="teacher.calibration=none"
  nnunet-dml configure -d "$1" -p "$3" -o student --scale-features 0.25 --overwrite
  local plans=(nnunet-dml configure -d "$1" -p student --overwrite)
  "${plans[@]}" -o student_ce "${teach[@]}" --set $none teacher.overlap_label=1 teacher.overlap_teacher=0
  "${plans[@]}" -o student_dml "${teach[@]}" --set $none
  "${plans[@]}" -o student_temperature "${teach[@]}" --set teacher.calibration=temperature
  "${plans[@]}" -o student_kde "${teach[@]}" --calibration kde
}
distil() { # distil DATASET CONFIGURATION PLANS_OF_THE_TEACHER ARM …
  for fold in 0 1 2; do train "$1" "$2" $fold nnUNetTrainerDML "$3"; done
  students "$1" "$2" "$3"
  for fold in 0 1 2; do
    train "$1" "$2" $fold nnUNetTrainerDML student
    for it in "${@:4}"; do train "$1" "$2" $fold nnUNetTrainerDML_KD student_$it; done
  done
  local models=("$nnUNet_results/$1/nnUNetTrainerDML__student__$2" "$nnUNet_results/$1/nnUNetTrainerDML__$3__$2") model
  for it in "${@:4}"; do models+=("$nnUNet_results/$1/nnUNetTrainerDML_KD__student_${it}__$2"); done
  for model in "${models[@]}"; do nnunet-dml evaluate -d "$1" --model "$model" -o "$model/evaluation"; done
  python "$here/fold_table.py" "${models[@]/%//evaluation}" # differences to the student of hard labels, the first
}

liver() { # CT slices at half their resolution, split by patient
  once "$nnUNet_raw/Dataset017_LiverSlices" cp -r "$data/Dataset017_LiverSlices" "$nnUNet_raw/"
  local made="$nnUNet_preprocessed/Dataset017_LiverSlices"
  once "$made/dataset_fingerprint.json" nnUNetv2_extract_fingerprint -d 17 --verify_dataset_integrity -np 2
  once "$made/half.json" nnUNetv2_plan_experiment -d 17 -overwrite_target_spacing 999 2 2 -overwrite_plans_name half
  once "$made/half_2d" nnUNetv2_preprocess -d 17 -c 2d -plans_name half -np 2
  nnunet-dml split -d 17 --groups '(patient[0-9]+)_.*'
  nnunet-dml configure -d 17 -p half -o teacher --scale-features 0.5 --batch-size 8 --overwrite --set \
    training.epochs=40 training.iterations=25 training.val_iterations=5 training.seed=1234
  distil Dataset017_LiverSlices 2d teacher ce dml kde
}

hippocampus() { # MR in 3D
  once "$nnUNet_raw/Dataset004_Hippocampus" cp -r "$data/Dataset004_Hippocampus" "$nnUNet_raw/"
  local made="$nnUNet_preprocessed/Dataset004_Hippocampus"
  once "$made/nnUNetPlans_3d_fullres" nnUNetv2_plan_and_preprocess -d 4 -c 3d_fullres --verify_dataset_integrity -npfp 2 -np 2
  # with nnU-Net's momentum of 0.99 a student of this width learns next to nothing in 500 steps
  nnunet-dml configure -d 4 -o teacher --scale-features 0.5 --overwrite --set training.momentum=0.95 training.learning_rate=0.1 \
    training.epochs=20 training.iterations=25 training.val_iterations=5 training.seed=1234 training.bfloat16=auto
  distil Dataset004_Hippocampus 3d_fullres teacher ce dml kde
}

ssl() { # the same slices with labels of 5 training patients (a tenth), the others' images without
  local arms=("nnUNetTrainerDML few" "nnUNetTrainerDML_BLS few" "nnUNetTrainerDML_SSL few" "nnUNetTrainerDML_SSL later") arm
  for fold in 0 1 2; do
    local id=$((21 + fold)) name="Dataset02$((1 + fold))_LiverFew$fold"
    local made="$nnUNet_preprocessed/$name"
    once "$nnUNet_raw/$name" python "$here/few_labels.py" Dataset017_LiverSlices $fold '(patient[0-9]+)_.*' 5 "$name"
    once "$made/dataset_fingerprint.json" nnUNetv2_extract_fingerprint -d $id --verify_dataset_integrity -np 2
    once "$made/half.json" nnUNetv2_plan_experiment -d $id -overwrite_target_spacing 999 2 2 -overwrite_plans_name half
    once "$made/half_2d" nnUNetv2_preprocess -d $id -c 2d -plans_name half -np 2
    nnunet-dml configure -d $id -p half -o few --scale-features 0.25 --batch-size 8 --overwrite --set \
      training.epochs=40 training.iterations=25 training.val_iterations=5 training.seed=1234 training.bfloat16=auto
    nnunet-dml configure -d $id -p few -o later --overwrite --set unlabelled.start_epoch=15
    nnunet-dml preprocess -d $id -p few -c 2d
    for arm in "${arms[@]}"; do
      read -r trainer plans <<<"$arm"
      train "$name" 2d 0 "$trainer" "$plans"
      nnunet-dml evaluate -d $id --model "$nnUNet_results/$name/${trainer}__${plans}__2d" -o "$work/ssl/${trainer}_${plans}_$fold"
    done
  done
  local folders=()
  for arm in "${arms[@]}"; do # the three data sets as three folds
    arm="$work/ssl/${arm/ /_}"
    mkdir -p "$arm"
    for fold in 0 1 2; do
      sed -e "1{/^case,/{$([ $fold = 0 ] || echo d)}}" -e "s/^\([^,]*\),0,/\1,$fold,/" "${arm}_$fold/cases.csv"
    done >"$arm/cases.csv"
    folders+=("$arm")
  done
  python "$here/fold_table.py" "${folders[@]}"
}

for part in "${@:-liver hippocampus ssl}"; do for it in $part; do "$it"; done; done
