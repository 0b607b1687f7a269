#!/usr/bin/env bash
# anndata 0.13.4 (PyPI), which needs Python 3.12 or newer; PYTHON names it.
#
# Since 0.13, X is the layer named None. Code that copies all layers of one AnnData to another,
# as one does after a simulation to keep the observed counts beside the new ones, now replaces
# X as well, without a word: the simulated counts are gone. So does layers.update(). Handing all
# layers to the constructor beside an X is an error. Before 0.13 each left X alone.
#
# Output seen:
#   layers of the observed cells: [None, 'counts']
#   X after a loop over layers: 1.0, after layers.update: 1.0; it was 9.0
#   AnnData(X, layers=...): ValueError: If you provide `layers[None]` and `X`, they must be identical.
#
# Source: scverse/anndata, pull request 1707 ("Unify X and layers") and issue 244.
# Date: 2026-11-30.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.12}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
  anndata==0.13.4 numpy==2.5.5 pandas==3.1.1 scipy==1.18.1

"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import anndata
import numpy as np

observed = anndata.AnnData(np.full((3, 2), 1.0))
observed.layers["counts"] = np.full((3, 2), 5.0)
simulated = np.full((3, 2), 9.0)

by_loop = anndata.AnnData(simulated.copy())
for name in observed.layers:
    by_loop.layers[name] = observed.layers[name]
by_update = anndata.AnnData(simulated.copy())
by_update.layers.update(observed.layers)
try:
    anndata.AnnData(simulated.copy(), layers=dict(observed.layers))
    error = None
except ValueError as caught:
    error = caught

print("layers of the observed cells:", list(observed.layers))
print(
    f"X after a loop over layers: {by_loop.X[0, 0]},",
    f"after layers.update: {by_update.X[0, 0]}; it was {simulated[0, 0]}",
)
print(f"AnnData(X, layers=...): {type(error).__name__}: {error}")

if list(observed.layers) != [None, "counts"] or error is None:
    raise SystemExit("Differs: X is no layer.")
if by_loop.X[0, 0] != 1.0 or by_update.X[0, 0] != 1.0:
    raise SystemExit("Differs: X is kept.")
PYTHON
