#!/usr/bin/env bash
# torch 2.13.0 (PyPI), NumPy 2.4.6, Python 3.11, on an x86-64 processor with AVX2.
#
# torch.sigmoid of equal numbers in one tensor of float64 may have different last digits: the result
# depends on where in the tensor a number stands. So the value for a cell changes with the number of
# cells next to it, on one thread of one processor. It happens with torch's kernels for AVX2, which
# many processors use. The kernels without vector instructions do not show it, and torch.exp,
# torch.log and torch.log1p of the same numbers do not either.
#
# Output seen, of 2000 numbers that are each repeated eleven times in a tensor:
#   avx2     sigmoid   49 have more than one value; exp 0, log 0, log1p 0
#   default  sigmoid    0 have more than one value; exp 0, log 0, log1p 0
#
# Source: aten/src/ATen/native/cpu/UnaryOpsKernel.cpp, sigmoid_kernel: whole vectors go through one
# implementation of the exponential function, the elements that are left through another.
# Date: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check torch==2.13.0 numpy==2.4.6

cat > "$folder/program.py" <<'PYTHON'
import numpy as np
import torch

torch.set_num_threads(1)
numbers = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


def n_ambiguous(name, values):
    repeated = (torch.full((11,), x, dtype=torch.float64) for x in values.tolist())
    return sum(len(np.unique(getattr(torch, name)(x).numpy())) > 1 for x in repeated)


print(n_ambiguous("sigmoid", numbers), *(n_ambiguous(f, numbers.abs()) for f in ("exp", "log", "log1p")))
PYTHON

for capability in avx2 default; do
    found=$(ATEN_CPU_CAPABILITY=$capability "$folder/venv/bin/python" "$folder/program.py")
    read -r sigmoid exp log log1p <<< "$found"
    printf '%-8s sigmoid %4d have more than one value; exp %d, log %d, log1p %d\n' \
        "$capability" "$sigmoid" "$exp" "$log" "$log1p"
    if [[ $exp$log$log1p != 000 ]]; then
        echo "Differs: other functions depend on the place in a tensor, too." >&2
        exit 1
    fi
    if [[ $capability == avx2 && $sigmoid -eq 0 ]]; then
        echo "Differs: sigmoid does not depend on the place in a tensor." >&2
        exit 1
    fi
done
