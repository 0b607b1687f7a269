#!/usr/bin/env bash
# formulaic 1.2.2 (PyPI), Python 3.11.
#
# Columns of poly(x, 2) are named [1] and [2], by their degree, as in R. Those of
# poly(x, 2, raw=True) are named [0] and [1]: [1] is the square there. A hypothesis or a table
# that takes [1] for the linear term is off by one, and is no error, as the name exists.
#
# Output seen:
#   poly(x, 2)            ['poly(x, 2)[1]', 'poly(x, 2)[2]']
#   poly(x, 2, raw=True)  ['poly(x, 2, raw=True)[0]', 'poly(x, 2, raw=True)[1]']
#   the column [1] of raw powers of [0, 1, 2, 3]: [0.0, 1.0, 4.0, 9.0]
#
# Source: formulaic/transforms/poly.py: raw powers are returned as an array, which is named by
# positions from 0, orthogonal ones with names from 1.
# Date: 2026-11-30.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
  formulaic==1.2.2 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1

"$folder/venv/bin/python" - <<'PYTHON'
import pandas as pd
from formulaic import model_matrix

x = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
orthogonal = model_matrix("~ 0 + poly(x, 2)", x)
raw = model_matrix("~ 0 + poly(x, 2, raw=True)", x)
second = "poly(x, 2, raw=True)[1]"
print("poly(x, 2)           ", list(orthogonal))
print("poly(x, 2, raw=True) ", list(raw))
print("the column [1] of raw powers of [0, 1, 2, 3]:", raw[second].tolist())

if [name[-3:] for name in [*orthogonal, *raw]] != ["[1]", "[2]", "[0]", "[1]"]:
    raise SystemExit("Differs: names of the columns.")
if raw[second].tolist() != [0.0, 1.0, 4.0, 9.0]:
    raise SystemExit("Differs: [1] is not the square.")
PYTHON
