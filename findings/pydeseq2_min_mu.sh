#!/usr/bin/env bash
# pydeseq2 0.5.4 (PyPI), Python 3.11.
#
# DeseqDataSet(min_mu=0.5) is documented as a threshold for mean estimates in the fits of
# dispersions and fold changes. It decides the p-value of a gene without counts in one group:
# the estimate is infinite, the fit stops where fitted means reach min_mu, and so the fold change
# and its standard error are set by min_mu. Wald p-values go from 4e-17 at the default to 0.5 at
# 0.001, with the same counts. A gene with counts in both groups keeps its p-value.
#
# Output seen (6 against 6 samples; genes with mean 20 to 1000 in one group, none in the other):
#   min_mu   mean 20   mean 100  mean 1000   both groups
#      0.5   1.2e-06    6.2e-11    3.5e-17         0.175
#    0.001   6.0e-01    5.5e-01    4.9e-01         0.175
#    1e-06   9.5e-01    9.4e-01    9.3e-01         0.175
#
# Source: docstring of pydeseq2.dds.DeseqDataSet, parameter min_mu (default 0.5).
# Date: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
  pydeseq2==0.5.4 anndata==0.12.19 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1

"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import contextlib
import io

import numpy as np
import pandas as pd
from pydeseq2.dds import DeseqDataSet
from pydeseq2.ds import DeseqStats

n = 6
rng = np.random.default_rng(0)
names = [f"sample_{i}" for i in range(2 * n)]
metadata = pd.DataFrame({"condition": ["a"] * n + ["b"] * n}, index=names)
means = rng.gamma(2, 50, 200)
y = rng.negative_binomial(5, 5 / (5 + means), (2 * n, 200))
for gene, mean in enumerate([5, 20, 100, 400, 1000]):
    y[:, gene] = rng.negative_binomial(5, 5 / (5 + mean), 2 * n)
    y[n:, gene] = 0
counts = pd.DataFrame(y, index=names, columns=[f"gene_{i}" for i in range(200)])


def p_values(min_mu):
    """Return p-values of the Wald test of the condition."""
    with contextlib.redirect_stdout(io.StringIO()):
        data = DeseqDataSet(
            counts=counts, metadata=metadata, design="~condition", min_mu=min_mu, quiet=True
        )
        data.deseq2()
        tests = DeseqStats(data, contrast=["condition", "b", "a"], quiet=True)
        tests.summary()
    return tests.results_df["pvalue"]


found = {min_mu: p_values(min_mu) for min_mu in (0.5, 1e-3, 1e-6)}
print(f"{'min_mu':>8} {'mean 20':>9} {'mean 100':>10} {'mean 1000':>10} {'both groups':>13}")
for min_mu, p in found.items():
    print(f"{min_mu:8g} {p['gene_1']:9.1e} {p['gene_2']:10.1e} {p['gene_4']:10.1e} {p['gene_5']:13.3f}")

if not (found[0.5]["gene_4"] < 1e-10 and found[1e-3]["gene_4"] > 0.1):
    raise SystemExit("Differs: min_mu does not decide the p-value of a gene without counts.")
if not np.isclose(found[0.5]["gene_5"], found[1e-3]["gene_5"], rtol=0.01):
    raise SystemExit("Differs: min_mu changes the p-value of a gene with counts in both groups.")
PYTHON
