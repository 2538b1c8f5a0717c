# Sourced with DATA and WORK by the scripts on real data: nnU-Net's three folders below WORK, which is made, and its way to the trainers.

data="$(cd "$1" && pwd)"
mkdir -p "$2"
work="$(cd "$2" && pwd)"
here="$(cd "$(dirname "$0")" && pwd)"
export nnUNet_raw="$work/raw" nnUNet_preprocessed="$work/preprocessed" nnUNet_results="$work/results" nnUNet_def_n_proc=2
mkdir -p "$nnUNet_raw" "$nnUNet_preprocessed" "$nnUNet_results"
eval "$(nnunet-dml env)"
once() { [ -e "$1" ] || "${@:2}"; } # once WHAT_IT_MAKES COMMAND …
