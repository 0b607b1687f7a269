#!/usr/bin/env bash
# formulaic 1.2.2 (PyPI), Python 3.11.
#
# Among the functions that a formula may call, exp2(x) is 2**x, log10(x) is the decimal logarithm,
# but exp10(x) is x**10: not the inverse of log10. There is no error, and no warning.
#
# Output seen:
#   x                 [0.0, 1.0, 2.0, 3.0]
#   exp2(x)           [1.0, 2.0, 4.0, 8.0]
#   exp10(x)          [0.0, 1.0, 1024.0, 59049.0]
#   exp10(log10(x))   [0.0, 0.0, 0.0006, 0.0063] of [1, 2, 3, 4], rounded to four places
#
# Source: formulaic/transforms/__init__.py: exp10 is a lambda that raises its argument to the tenth
# power; seen in the columns of formulaic.model_matrix.
# Date: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
  formulaic==1.2.2 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1

"$folder/venv/bin/python" - <<'PYTHON'
import pandas as pd
from formulaic import model_matrix


def column(expression, values):
    matrix = model_matrix(f"0 + {expression}", pd.DataFrame({"x": values}))
    return [round(float(x), 4) for x in matrix.iloc[:, 0]]


x = [0.0, 1.0, 2.0, 3.0]
seen = [column("exp2(x)", x), column("exp10(x)", x), column("exp10(log10(x))", [1.0, 2.0, 3.0, 4.0])]
print(f"{'x':17} {x}")
for name, values in zip(("exp2(x)", "exp10(x)", "exp10(log10(x))"), seen, strict=True):
    print(f"{name:17} {values}")

if seen[0] != [1.0, 2.0, 4.0, 8.0]:
    raise SystemExit("Differs: exp2(x) is not 2**x.")
if seen[1] != [0.0, 1.0, 1024.0, 59049.0] or seen[2][0] != 0.0:
    raise SystemExit("Differs: exp10(x) is not x**10 any more.")
PYTHON
