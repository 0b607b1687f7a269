#!/usr/bin/env bash
# R 4.2.2 (Debian 12: r-base-core) beside formulaic 1.2.2 and pandas 2.3.3 (PyPI), Python 3.11.
#
# The same ordered factor in the same formula is two codings. R gives an ordered factor
# orthogonal polynomials (a linear and a quadratic term); formulaic gives an ordered pandas
# categorical treatment contrasts, differences from the first level, as if it were not ordered.
# The fit is the same, no coefficient is. Each has the other's coding when asked for it.
#
# Output seen:
#   R          x:                       .L .Q
#   formulaic  x:                       [T.mid] [T.high]
#   R          C(x, contr.treatment):   mid high
#   formulaic  C(x, contr.poly):        [.L] [.Q]
#
# Source: ?contrasts and ?options of R ("contrasts", for ordered factors contr.poly); guide to
# contrasts of formulaic (treatment is the default of every categorical).
# Date: 2026-11-30. Needs: Rscript.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
  formulaic==1.2.2 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1

Rscript --vanilla - >"$folder/R" <<'R'
x <- ordered(c("low", "mid", "high"), levels = c("low", "mid", "high"))
cat(sub("^x", "", colnames(model.matrix(~x))[-1]), "\n")
names <- colnames(model.matrix(~x, contrasts.arg = list(x = contr.treatment(levels(x)))))[-1]
cat(sub("^x", "", names), "\n")
R
"$folder/venv/bin/python" - "$folder/R" <<'PYTHON'
import sys
from pathlib import Path

import pandas as pd
from formulaic import model_matrix

levels = ["low", "mid", "high"]
cells = pd.DataFrame({"x": pd.Categorical(levels, levels, ordered=True)})
in_r = [line.split() for line in Path(sys.argv[1]).read_text().splitlines()]


def coded(formula, expression):
    return [name.removeprefix(expression) for name in model_matrix(formula, cells).columns[1:]]


table = [
    ("R", "x", in_r[0], [".L", ".Q"]),
    ("formulaic", "x", coded("~ x", "x"), ["[T.mid]", "[T.high]"]),
    ("R", "C(x, contr.treatment)", in_r[1], ["mid", "high"]),
    (
        "formulaic",
        "C(x, contr.poly)",
        coded("~ C(x, contr.poly)", "C(x, contr.poly)"),
        ["[.L]", "[.Q]"],
    ),
]
for package, expression, found, _ in table:
    print(f"{package:10} {expression + ':':24} {' '.join(found)}")
if any(found != expected for _, _, found, expected in table):
    raise SystemExit("Differs: see the columns above.")
PYTHON
