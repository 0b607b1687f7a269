#!/usr/bin/env bash
# formulaic 1.2.2 (PyPI), Python 3.11.
#
# A column whose name is 1 (a cluster, say) cannot be used beside an intercept: in backquotes,
# which are there for such names, `1` is taken for the intercept, and the column is left out of
# the design without a word. Without an intercept the same name is the column.
#
# Output seen:
#   ~ `1` + z        ['Intercept', 'z']
#   ~ 0 + `1` + z    ['1', 'z']
#   ~ `one` + z      ['Intercept', 'one', 'z'], after the column is renamed
#
# Source: formulaic's guide to formulas (grammar): backquotes quote a name, and 1 is the intercept;
# seen in the columns of formulaic.model_matrix.
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

cells = pd.DataFrame({"1": [5.0, 4.0, 2.0, 1.0], "z": [0.0, 1.0, 3.0, 2.0]})
columns = {
    "~ `1` + z": list(model_matrix("~ `1` + z", cells)),
    "~ 0 + `1` + z": list(model_matrix("~ 0 + `1` + z", cells)),
    "~ `one` + z": list(model_matrix("~ `one` + z", cells.rename(columns={"1": "one"}))),
}
for formula, names in columns.items():
    print(f"{formula:16} {names}")

if list(columns.values()) != [["Intercept", "z"], ["1", "z"], ["Intercept", "one", "z"]]:
    raise SystemExit("Differs: see the columns above.")
PYTHON
