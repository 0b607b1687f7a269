#!/usr/bin/env bash
# statsmodels 0.15.0 (PyPI), Python 3.11.
#
# predict() of new cells after a fit with offset= does one of two opposite things. Poisson,
# NegativeBinomial and ZeroInflatedNegativeBinomialP leave the offset out: new cells are predicted
# at an offset of 0, also when they are the cells of the fit. NegativeBinomialP and
# GeneralizedPoisson add the offsets of the cells of the fit, in their order: an error for another
# number of cells, and for the same number the depths of other cells. Only offset= given again
# to predict() is right in all of them.
#
# Output seen (500 cells of the fit; then its first 3 cells; then all of them in reverse order):
#   Poisson                        3 cells: offset 0         reversed: offset 0
#   NegativeBinomial               3 cells: offset 0         reversed: offset 0
#   ZeroInflatedNegativeBinomialP  3 cells: offset 0         reversed: offset 0
#   NegativeBinomialP              3 cells: ValueError       reversed: offsets of other cells
#   GeneralizedPoisson             3 cells: ValueError       reversed: offsets of other cells
#
# Source: docstring of statsmodels.discrete.discrete_model.CountModel.predict (offset "if exog is
# None ... If not, uses 0"); code of NegativeBinomialP.predict and GeneralizedPoisson.predict,
# which take getattr(self, "offset", 0) whatever exog is.
# Date: 2026-11-30.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
  statsmodels==0.15.0 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1

"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import statsmodels.api as sm

rng = np.random.default_rng(0)
x, depth = rng.normal(size=500), np.exp(rng.normal(0, 0.7, 500))
X, offset = sm.add_constant(x), np.log(depth)
y = rng.negative_binomial(2, 2 / (2 + depth * np.exp(1 + 0.3 * x)))


def described(result, X, own):
    """Say which offsets a prediction has."""
    candidates = {"offset 0": 0 * own, "the right offsets": own, "offsets of other cells": offset}
    try:
        predicted = result.predict(X)
    except ValueError:
        return "ValueError"
    for name, tried in candidates.items():
        if len(tried) == len(X) and np.allclose(predicted, result.predict(X, offset=tried)):
            return name
    return "something else"


expected = {
    "Poisson": ("offset 0", "offset 0"),
    "NegativeBinomial": ("offset 0", "offset 0"),
    "ZeroInflatedNegativeBinomialP": ("offset 0", "offset 0"),
    "NegativeBinomialP": ("ValueError", "offsets of other cells"),
    "GeneralizedPoisson": ("ValueError", "offsets of other cells"),
}
differs = []
for name, behaviour in expected.items():
    fit = getattr(sm, name)(y, X, offset=offset).fit(disp=0, maxiter=500)
    found = described(fit, X[:3], offset[:3]), described(fit, X[::-1], offset[::-1])
    print(f"{name:30} 3 cells: {found[0]:16} reversed: {found[1]}")
    if found != behaviour:
        differs.append(name)
if differs:
    raise SystemExit(f"Differs: {differs}")
PYTHON
