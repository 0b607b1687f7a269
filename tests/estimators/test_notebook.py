"""What notebooks show of models, beside scikit-learn's diagram."""

import html

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn import config_context
from sklearn.base import clone
from sklearn.utils import estimator_html_repr

from sc_glm import (
    FormulaTransformer,
    NegBinRegressor,
    Pipeline,
    ZINBRegressor,
    make_pipeline,
)
from sc_glm.adata import AnnDataRegressor
from sc_glm.estimators.notebook import status_table

X = pd.DataFrame({"x": np.linspace(0, 1, 60)}, index=[f"c{i}" for i in range(60)])
ODD = "<b>HLA & A</b>"
Y = pd.DataFrame({"good": np.random.default_rng(0).negative_binomial(2, 0.2, 60), ODD: 0})
Y.index = X.index
ADATA = AnnData(Y.to_numpy(float), obs=X, var=pd.DataFrame(index=Y.columns))

MODELS = {
    "NegBinRegressor": (NegBinRegressor(alpha=0.1), (X, Y)),
    "ZINBRegressor": (ZINBRegressor(alpha=0.1), (X, Y)),
    "Pipeline": (make_pipeline(FormulaTransformer("~ x"), NegBinRegressor(alpha=0.1)), (X, Y)),
    "AnnDataRegressor": (
        AnnDataRegressor(make_pipeline(FormulaTransformer("~ x"), NegBinRegressor())),
        (ADATA,),
    ),
}


def shown(model):
    """HTML by either of the ways that notebooks ask for it, which agree but for their ids."""
    bundle = model._repr_mimebundle_()
    assert bundle["text/plain"] == repr(model)
    own, other = model._repr_html_(), bundle["text/html"]
    assert own.partition("</script>")[2] == other.partition("</script>")[2]
    return own


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", MODELS)
def test_a_fitted_model_shows_the_statuses_of_genes(name):
    model, data = MODELS[name]
    before = shown(model)
    assert name in before
    assert "Cells: " not in before
    after = shown(clone(model).fit(*data))
    assert "Cells: 60, genes: 2" in after
    rows = after[after.index("Cells: ") :]
    assert "<td>all zero</td>" in rows
    assert html.escape(ODD) in rows
    assert ODD not in after
    assert "good" not in rows  # a gene that needs no care


@pytest.mark.parametrize("name", [*MODELS, "FormulaTransformer"])
def test_the_plain_repr_is_scikit_learns(name):
    model = FormulaTransformer("~ x") if name == "FormulaTransformer" else MODELS[name][0]
    assert repr(model).startswith(f"{name}(")
    same = eval(repr(model))  # noqa: S307 - of this test
    assert repr(same) == repr(model)


def test_a_transformer_is_shown_as_scikit_learn_does():
    model = FormulaTransformer("~ x")
    for estimator in (model, clone(model).fit(X)):
        assert len(estimator._repr_html_()) == len(estimator_html_repr(estimator))


def test_a_pipeline_that_has_no_steps_yet():
    assert len(Pipeline([])._repr_html_()) == len(estimator_html_repr(Pipeline([])))


def test_display_text_shows_no_diagram():
    model = NegBinRegressor().fit(X, Y["good"])
    with config_context(display="text"):
        assert not hasattr(model, "_repr_html_")
        assert set(model._repr_mimebundle_()) == {"text/plain"}


def test_the_first_names_of_a_status():
    names = np.array([f"g{i}" for i in range(9)], dtype=object)
    table = status_table(np.array(["separated"] * 9, dtype=object), names, 7)
    assert "Cells: 7, genes: 9" in table
    assert "g4, ..." in table
    assert "g5" not in table
    fine = status_table(np.array(["converged"] * 9, dtype=object), names, 7)
    assert "such as" not in fine
