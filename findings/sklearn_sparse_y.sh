#!/usr/bin/env bash
# scikit-learn 1.9.1 (PyPI), Python 3.11.
#
# cross_val_score and cross_validate refuse a sparse y before any estimator sees it, while
# GridSearchCV passes it on to the estimator: an estimator of many sparse
# targets can be searched over, but not scored by these functions. A grid search over an empty
# grid gives the same scores of the folds.
#
# Output seen:
#   cross_val_score:  InvalidParameterError
#   cross_validate:   InvalidParameterError
#   GridSearchCV:     scores of the folds [6.0, 6.0]
#
# Source: sklearn/model_selection/_validation.py, the decorator validate_params of both functions:
# y is "array-like" or None, X also "sparse matrix".
# Date: 2026-11-30.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
  scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1

"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate


class Cells(BaseEstimator):
    """Scores how many cells it is given."""

    def fit(self, X, y):
        return self

    def score(self, X, y):
        return float(y.shape[0])


X, y = np.zeros((12, 1)), csr_matrix(np.eye(12, 3))
errors = []
for function in (cross_val_score, cross_validate):
    try:
        function(Cells(), X, y, cv=KFold(2))
        errors.append("none")
    except ValueError as error:
        errors.append(type(error).__name__)
    print(f"{function.__name__ + ':':17} {errors[-1]}")
search = GridSearchCV(Cells(), {}, cv=KFold(2)).fit(X, y)
scores = [float(search.cv_results_[f"split{fold}_test_score"][0]) for fold in range(2)]
print(f"GridSearchCV:     scores of the folds {scores}")

if errors != ["InvalidParameterError"] * 2 or scores != [6.0, 6.0]:
    raise SystemExit("Differs: see above.")
PYTHON
