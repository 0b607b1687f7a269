#!/usr/bin/env bash
# torch 2.13.0 (PyPI), Python 3.11, on an x86-64 processor with AVX2, with g++.
#
# ATEN_CPU_CAPABILITY=default asks torch for code without vector instructions, as one does to see
# whether results depend on the processor. torch.compile keeps its code in a folder, and does not
# tell there for which capability it was made. Code that was kept without the variable is taken
# again with it, and is then compiled without the headers that it needs: an error. With a folder of
# its own (TORCHINDUCTOR_CACHE_DIR) the same program runs.
#
# Output seen:
#   no capability named, empty folder     runs
#   default, the same folder              CppCompileError
#   default, empty folder                 runs
#
# Source: torch/_inductor/codecache.py, FxGraphHashDetails: the key of a kept graph has torch's own
# settings in it, the variable is none of them; torch/_inductor/cpu_vec_isa.py reads the variable.
# Date: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
  torch==2.13.0 numpy==2.4.6 setuptools

cat > "$folder/program.py" <<'PYTHON'
import torch


@torch.compile
def double_and_shift(x):
    return torch.where(x > 0, x.exp(), x.sigmoid()).clamp_max(9.0)


try:
    double_and_shift(torch.linspace(-3, 3, 1001, dtype=torch.float64))
    print("runs")
except Exception as error:
    inner = getattr(error, "inner_exception", error)
    print(type(inner).__name__)
PYTHON

try() {
    TORCHINDUCTOR_CACHE_DIR="$folder/$1" "$folder/venv/bin/python" -W ignore "$folder/program.py" 2> /dev/null
}
unset ATEN_CPU_CAPABILITY
first=$(try one)
export ATEN_CPU_CAPABILITY=default
again=$(try one)
alone=$(try two)
echo "no capability named, empty folder     $first"
echo "default, the same folder              $again"
echo "default, empty folder                 $alone"

if [[ $first != runs || $alone != runs ]]; then
    echo "Differs: the program does not run with a folder of its own." >&2
    exit 1
fi
if [[ $again == runs ]]; then
    echo "Differs: what was kept for another capability does no harm." >&2
    exit 1
fi
