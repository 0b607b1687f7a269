"""Cells, counts and settings that several tests of estimators share."""

import numpy as np
import pytest
import scipy.sparse as sp

from sc_glm import FormulaTransformer
from sc_glm.datasets import make_counts
from tests.references import REGRESSORS

BOTH = pytest.mark.parametrize("regressor", REGRESSORS.values())


# Settings under which two runs agree as far as arithmetic allows.
TIGHT = {"tol": 1e-10}


def simulated(seed=0, n_cells=150, n_genes=4, **formulas):
    return make_counts(
        n_cells,
        n_genes,
        random_state=seed,
        **({"mean": "~ pseudotime", "dispersion": "~ cell_type"} | formulas),
    )


def design_of(data):
    return FormulaTransformer(**data.formulas).fit_transform(data.obs)


def dense(counts):
    return counts.toarray() if sp.issparse(counts) else np.asarray(counts)


X_VALID, Y_VALID = np.arange(8.0)[:, None], np.arange(8)
