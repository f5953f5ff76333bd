#!/usr/bin/env bash
# Everything that wants a GPU, in one call: what bounds it, both stages, every size, the whole grid.
# Nothing is downloaded: models get random weights and corpora are made up, so speeds are real and
# scores mean nothing. Figures go to benchmarks/results/gpu/*.json; what fails is named at the end.
#
#     benchmarks/gpu.sh [PYTHON]                # of an environment with lsmprobe; by default .venv's
#     FRACTION=0.1 benchmarks/gpu.sh            # a tenth of the grid's clips, scaled up
set -uo pipefail
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}
out=benchmarks/results/gpu
failed=()
mkdir -p "$out"

"$python" - <<'CHECK' || exit 1
import sys, torch
sys.exit(0 if torch.cuda.is_available() else "There is no GPU: torch finds no CUDA device.")
CHECK

measure() { # NAME SCRIPT FLAG...
    local name=$1 script=$2
    shift 2
    echo "== $name"
    "$python" "benchmarks/$script" "$@" --json "$out/$name.json" || failed+=("$name")
}

measure limits limits.py --device cuda
measure sizes sizes.py --device cuda --clips 480
measure extraction extraction.py --device cuda --clips 480
measure probing probing.py --device cuda
measure grid grid.py --device cuda --fraction "${FRACTION:-1.0}"

[ ${#failed[@]} -eq 0 ] || { echo "These failed: ${failed[*]}"; exit 1; }
