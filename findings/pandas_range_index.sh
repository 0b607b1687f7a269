#!/usr/bin/env bash
# pandas 3.1.1 (PyPI), Python 3.12 (PYTHON=python3.12).
#
# A table without labels counts its rows by a RangeIndex. Up to pandas 2, sorting or choosing rows
# made plain integer labels of the numbers, so that a RangeIndex told a table whose rows were never
# touched. pandas 3 keeps evenly spaced numbers as a RangeIndex: a sorted table has
# RangeIndex(3, -1, -1). Code that takes every RangeIndex for "no labels" pairs the rows of such a
# table with another one by position.
#
# Output seen:
#   as made                 RangeIndex(start=0, stop=4, step=1)
#   sort_values("x")        RangeIndex(start=3, stop=-1, step=-1)
#   every other row         RangeIndex(start=1, stop=5, step=2)
#   rows in no even order   Index([2, 0, 3, 1], dtype='int64')
#
# Source: pandas' notes on 3.0: RangeIndex.take and others return a RangeIndex where they can.
# Date: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check pandas==3.1.1 numpy==2.5.5

"$folder/venv/bin/python" - <<'PYTHON'
import pandas as pd

cells = pd.DataFrame({"x": [0.4, 0.3, 0.2, 0.1]})
found = {
    "as made": cells.index,
    'sort_values("x")': cells.sort_values("x").index,
    "every other row": cells[cells["x"].isin([0.3, 0.1])].index,
    "rows in no even order": cells.iloc[[2, 0, 3, 1]].index,
}
for name, index in found.items():
    print(f"{name:23} {index}")

if [isinstance(index, pd.RangeIndex) for index in found.values()] != [True, True, True, False]:
    raise SystemExit("Differs: other tables have a RangeIndex.")
if not found['sort_values("x")'].equals(pd.Index([3, 2, 1, 0])):
    raise SystemExit("Differs: the sorted table's labels.")
PYTHON
