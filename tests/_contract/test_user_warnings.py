"""Warnings point at the user's line, whichever package calls."""

import threading
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline as stock_make_pipeline

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm import adata as scg
from sc_glm._contract.user_warnings import warn
from sc_glm.adata import AnnDataRegressor
from sc_glm.selection import compare_models

X = pd.DataFrame({"a": np.tile([0.0, 1.0], 20)}, index=[f"cell {i}" for i in range(40)])
SILENT = np.where(X["a"] == 1, 0, np.tile([1, 2, 0, 5], 10))[:, None]


def adata(counts):
    return AnnData(counts.astype(float), obs=X)


def pipeline(make=make_pipeline):
    return make(FormulaTransformer("~ a"), NegBinRegressor())


GRID = {"alpha": [0.0, 1e-9]}
CALLS = {
    "fit": lambda y: NegBinRegressor().fit(X, y),
    "pipeline": lambda y: pipeline().fit(X, y),
    "a stock pipeline": lambda y: pipeline(stock_make_pipeline).fit(X, y),
    "a search": lambda y: GridSearchCV(NegBinRegressor(), GRID, cv=2).fit(X, y),
    "cross-validation": lambda y: cross_val_score(pipeline(), X, y, cv=2),
    "adata.fit": lambda y: scg.fit(adata(y), pipeline()),
    "AnnDataRegressor": lambda y: AnnDataRegressor(pipeline()).fit(adata(y)),
    "a search of AnnData": lambda y: GridSearchCV(
        AnnDataRegressor(NegBinRegressor()), {"model__alpha": [0.0, 1e-9]}, cv=2
    ).fit(adata(y)),
}


@pytest.mark.parametrize("counts", [SILENT, SILENT / 3], ids=["separated", "no counts"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_warnings_point_at_the_line_of_the_user(call, counts):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(counts)
    kind = ConvergenceWarning if counts is SILENT else UserWarning
    assert any(w.category is kind for w in caught)
    assert {w.filename for w in caught} == {__file__}
    first = call.__code__.co_firstlineno
    assert all(first <= w.lineno <= first + 2 for w in caught)


def test_warnings_of_comparisons_point_at_the_line_of_the_user():
    models = {"short": NegBinRegressor(max_iter=1)}
    y = np.random.default_rng(0).poisson(3, (40, 2)) + 40 * (np.arange(40) == 3)[:, None]
    with pytest.warns(ConvergenceWarning) as caught:
        compare_models(models, X, y, cv=2)
    assert [w.filename for w in caught] == [__file__]


def test_a_warning_is_shown_once_for_each_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            warn("mind")
        warn("mind")
    assert len(caught) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FutureWarning, match="mind"):
            warn("mind", FutureWarning)


def test_without_a_line_of_the_user_a_warning_points_at_the_outermost_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=warn, args=("mind",))
        thread.start()
        thread.join()
    assert [str(w.message) for w in caught] == ["mind"]
