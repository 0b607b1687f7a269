#!/usr/bin/env bash
# SciPy 1.17.1 (PyPI), Python 3.11.
#
# Logarithms of tail probabilities are finite far out for some distributions and -inf for others.
# stats.norm.logsf(60) is right. That of chi2 with one degree of freedom at 60**2, which is the same
# tail on both sides, is -inf, and so is that of t with a million degrees of freedom. Ranks and
# plots by -log10(p) of strong effects then have ties at infinity. The logarithms exist.
#
# Output seen:
#   norm.logsf(60) + log(2)    -1804.32
#   chi2.logsf(3600, 1)        -inf
#   f.logsf(3600, 1, 1e6)      -inf
#   t.logsf(60, 1e6)           -inf
#
# Source: scipy/stats/_distn_infrastructure.py: where a distribution has no logsf of its own, it is
# the logarithm of sf, which is zero below 1e-308.
# Date: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 scipy==1.17.1

"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from scipy import stats

tails = {
    "norm.logsf(60) + log(2)": stats.norm.logsf(60) + np.log(2),
    "chi2.logsf(3600, 1)": stats.chi2.logsf(3600, 1),
    "f.logsf(3600, 1, 1e6)": stats.f.logsf(3600, 1, 1e6),
    "t.logsf(60, 1e6)": stats.t.logsf(60, 1e6),
}
for name, value in tails.items():
    print(f"{name:26} {value:.2f}")

normal, *others = tails.values()
if not np.isclose(normal, -1804.32, atol=0.01):
    raise SystemExit("Differs: the normal distribution's tail.")
if not np.isneginf(others).all():
    raise SystemExit("Differs: some of the others are finite now.")
PYTHON
