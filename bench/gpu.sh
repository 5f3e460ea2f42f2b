#!/usr/bin/env bash
# Everything that only a GPU can show, in under ten minutes: bench/gpu.sh [PYTHON]
#
# Needs an NVIDIA GPU, and a Python with PyTorch, Triton and this package. MODELS names models (bundled), TEXT a text to
# code (SPEC.md), RESULTS where rows are appended (bench/results.csv), PICTURES where pictures go (docs/pictures).
set -uo pipefail

cd "$(dirname "$0")/.."
python=${1:-python}
models=${MODELS:-bundled}
text=${TEXT:-llmzip/format/SPEC.md}
results=${RESULTS:-bench/results.csv}
pictures=${PICTURES:-docs/pictures}
failed=0

has() { "$python" -c "import $1" 2>/dev/null; }

# No step takes more than four minutes, nor more than what is left of ten.
step() {
    local left=$((570 - SECONDS))
    if ((left < 10)); then
        echo "LEFT OUT, no time: $*"
        failed=1
        return
    fi
    echo "== $*"
    timeout $((left < 240 ? left : 240)) "$@" || { echo "FAILED ($?): $*"; failed=1; }
}

picture() {
    if has matplotlib; then echo --picture "$pictures/$1.png"; fi
}

"$python" -c 'import torch; assert torch.cuda.is_available(), "no GPU that torch can use"' || exit 1
# Archives equal and opened on either device, then speed against lanes and windows.
step "$python" -m bench.device --models "$models" --text "$text" --windows 256,1024 --repeats 1 --results "$results" \
    $(picture device)
# Kernels of the engine and of training: equal first, then time against eager and compiled PyTorch and the floor.
step "$python" -m bench.kernels --repeats 3 --compile-for 90 --results "$results" $(picture kernels)
if has pytest; then
    step "$python" -m pytest -q -m 'not slow' tests/kernels tests/exact/test_cuda*.py
    step "$python" -m pytest -q -m slow tests/exact/test_golden.py
fi
if command -v compute-sanitizer >/dev/null; then
    scratch=$(mktemp -d)
    # Each instruction takes tens of times as long here.
    head -c 600 "$text" >"$scratch/text"
    for tool in memcheck racecheck; do
        step compute-sanitizer --tool "$tool" --error-exitcode 1 "$python" -m bench.device --text "$scratch/text" \
            --lanes 3 --windows 128 --together 2 --tokens 256 --repeats 1 --results "$scratch/results.csv"
    done
fi
exit $failed
