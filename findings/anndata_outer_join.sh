#!/usr/bin/env bash
# anndata 0.12.19 (PyPI), Python 3.11. anndata 0.13.4 on Python 3.12 does the same.
#
# concat(join="outer") of data sets with different genes fills what was not measured by a value
# that depends on the kind of matrix: NaN in dense ones, 0 in sparse ones. The zeros look like
# counts: a gene that one data set lacks is as good as silent in its cells, and any model of
# counts takes the data set for an effect. With fill_value=np.nan a sparse result has NaN too.
#
# Output seen (gene C was not measured in the first data set):
#   dense:                     gene C in the first data set [nan, nan]
#   sparse:                    gene C in the first data set [0.0, 0.0]
#   sparse, fill_value=np.nan: gene C in the first data set [nan, nan]
#
# Source: documentation of anndata.concat, argument fill_value.
# Date: 2026-11-30.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
  anndata==0.12.19 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1

"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import anndata
import numpy as np
from scipy.sparse import csr_matrix, issparse


def joined(kind, **options):
    """Return what an outer join has of gene C in the data set that lacks it."""
    first, second = (anndata.AnnData(kind(np.full((2, 2), value))) for value in (1.0, 2.0))
    first.var_names, second.var_names = ["A", "B"], ["B", "C"]
    first.obs_names, second.obs_names = ["1", "2"], ["3", "4"]
    X = anndata.concat([first, second], join="outer", **options)[["1", "2"], ["C"]].X
    return (X.toarray() if issparse(X) else X).ravel().tolist()


found = {
    "dense:": joined(np.array),
    "sparse:": joined(csr_matrix),
    "sparse, fill_value=np.nan:": joined(csr_matrix, fill_value=np.nan),
}
for name, values in found.items():
    print(f"{name:26} gene C in the first data set {values}")

dense, sparse, filled = found.values()
if not (np.isnan(dense).all() and sparse == [0.0, 0.0] and np.isnan(filled).all()):
    raise SystemExit("Differs: the filled values are others.")
PYTHON
