#!/usr/bin/env bash
# The tests, in the same environment as the demo:
#   bash scripts/test.sh               all of them
#   bash scripts/test.sh -m "not slow" the quick ones
set -euo pipefail
. "$(dirname "$0")/_environment.sh"
make_environment dev
ruff check .
ruff format --check .
mypy nnunet_dml
export OMP_NUM_THREADS=1 # a core for each of two processes, not two
pytest -n 2 --dist loadfile --no-loadscope-reorder "$@" # tests of one file share what they prepare
