#!/usr/bin/env bash
# Loss and loader against nnU-Net's own, in one run:
#   bash benchmarks/speed.sh -d 501 [-c 2d] [-p nnUNetPlans]      the arguments of loader_speed.py
set -euo pipefail
here="$(dirname "$0")"
python "$here/loss_speed.py"
python "$here/loader_speed.py" "$@"
