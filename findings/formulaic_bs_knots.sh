#!/usr/bin/env bash
# formulaic 1.2.2 (PyPI), Python 3.11.
#
# bs(x, knots=[5, 3]) takes the knots in the order in which they are given and makes columns that
# span another space than those of knots=[3, 5], though the spline is the same. A model with them
# has another likelihood. There is no error, and no warning. R's splines::bs sorts its knots.
#
# Output seen:
#   largest distance of a column of [5, 3] from the span of those of [3, 5]: 0.516
#
# Source: formulaic/transforms/basis_spline.py: knots are joined with the bounds as they are, and
# Cox and de Boor's recursion needs them to increase; seen in formulaic.model_matrix.
# Date: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
  formulaic==1.2.2 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1

"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pandas as pd
from formulaic import model_matrix

cells = pd.DataFrame({"x": np.linspace(0.0, 10.0, 51)})
sorted_, turned = (
    np.asarray(model_matrix(f"1 + bs(x, knots={knots})", cells)) for knots in ([3, 5], [5, 3])
)
coef = np.linalg.lstsq(sorted_, turned, rcond=None)[0]
distance = np.abs(turned - sorted_ @ coef).max()
print(f"largest distance of a column of [5, 3] from the span of those of [3, 5]: {distance:.3f}")

if distance < 0.01:
    raise SystemExit("Differs: both orders of the knots span the same columns.")
PYTHON
