"""Functions of a fitted model and its data take an AnnData, in the layer of the fit."""

import pickle
from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal, assert_series_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold

from sc_glm import (
    FormulaTransformer,
    NegBinRegressor,
    ZINBRegressor,
    diagnostics,
    inference,
    make_pipeline,
    metrics,
    moderation,
    plots,
    selection,
)
from sc_glm import adata as scg
from sc_glm.datasets import make_counts
from sc_glm.inference.fitted_model import FittedData

pytestmark = pytest.mark.usefixtures("pyplot")

FORMULA = "~ pseudotime + cell_type"


def pipeline(formula=FORMULA):
    return make_pipeline(FormulaTransformer(formula), NegBinRegressor())


def likelihood_ratio(model, X, y=None):
    reduced = clone(model).set_params(
        **{
            name: "~ pseudotime"
            for name in model.get_params()
            if name.endswith("formulatransformer__mean")
        }
    )
    if y is not None:
        reduced.fit(X, y)
    else:
        cells = X[:, model.params_["mean"].columns].copy()  # as the larger model was fitted
        if isinstance(model, scg.AnnDataRegressor):
            reduced.fit(cells)
        else:
            scg.fit(cells, reduced, layer="counts")
    return inference.likelihood_ratio_test(reduced, model, X, y)


def compared(model, X, y=None):
    cv = KFold(2, shuffle=True, random_state=0)
    return selection.compare_models({"a": model, "b": model}, X, y, cv=cv)


def moderated(model, X, y=None):
    return moderation.moderate_dispersion(model, X, y).table


def chosen(model, X, y=None):
    return selection.choose_model(compared(model, X, y))


def residual_array(model, X, y=None):
    blocks = diagnostics.residual_blocks(model, X, y, random_state=0)
    return np.hstack([values for _, values in blocks])


def drawn(name, **options):
    def call(model, X, y=None):
        display = getattr(plots, name).from_estimator(model, X, y, **options)
        return {key: value for key, value in vars(display).items() if not key.endswith("_")}

    return call


CALLS = {
    inference: {
        "aic": inference.aic,
        "bic": inference.bic,
        "coefficient_table": inference.coefficient_table,
        "confidence_intervals": inference.confidence_intervals,
        "covariance": inference.covariance,
        "differential_expression": lambda model, X, y=None: inference.differential_expression(
            model, X, y, {"a": ("cell_type", "b", "rest"), "b": "cell_type", "c": "pseudotime = 0"}
        ),
        "gene_summary": lambda model, X, y=None: str(inference.gene_summary(model, X, y, "gene_2")),
        "likelihood_ratio_test": likelihood_ratio,
        "marginal_comparisons": lambda model, X, y=None: inference.marginal_comparisons(
            model, X, y, "cell_type"
        ),
        "marginal_means": lambda model, X, y=None: inference.marginal_means(
            model, X, y, "cell_type"
        ),
        "prediction_intervals": inference.prediction_intervals,
        "predictions": inference.predictions,
        "standard_errors": inference.standard_errors,
        "wald_test": lambda model, X, y=None: inference.wald_test(model, X, y, "pseudotime"),
    },
    diagnostics: {
        "deviance_residuals": diagnostics.deviance_residuals,
        "goodness_of_fit": lambda *data: diagnostics.goodness_of_fit(*data, random_state=0),
        "pearson_residuals": diagnostics.pearson_residuals,
        "quantile_residuals": lambda *data: diagnostics.quantile_residuals(*data, random_state=0),
        "residual_blocks": residual_array,
        "zero_test": diagnostics.zero_test,
    },
    moderation: {"moderate_dispersion": moderated},
    selection: {"choose_model": chosen, "compare_models": compared},
    plots: {
        "CovariateDisplay": drawn("CovariateDisplay", gene="gene_1", covariate="pseudotime"),
        "CurveHeatmapDisplay": drawn("CurveHeatmapDisplay", covariate="pseudotime"),
        "MeanFoldChangeDisplay": drawn("MeanFoldChangeDisplay", contrast="pseudotime"),
        "MeanVarianceDisplay": drawn("MeanVarianceDisplay"),
        "PValueDisplay": drawn("PValueDisplay", contrast="pseudotime"),
        "QuantileQuantileDisplay": drawn("QuantileQuantileDisplay", random_state=0),
        "RootogramDisplay": drawn("RootogramDisplay", genes=["gene_1", "gene_2"]),
        "SimulatedSummariesDisplay": drawn("SimulatedSummariesDisplay", random_state=0),
        "VolcanoDisplay": drawn("VolcanoDisplay", contrast="pseudotime"),
    },
    metrics: {name: getattr(metrics, name) for name in metrics.__all__ if "scorer" in name},
}
RESULTS = {"GeneSummary", "DispersionTrend", "ModeratedDispersion", "style"}  # take no model
OF_INFLATED_MODELS = {"zero_probability"}
OF_SUMS = {"quasi_likelihood_test"}  # takes a formula, not a fitted model
EVERY = {name: call for calls in CALLS.values() for name, call in calls.items()}
ROWS_BY_GENE = ["wald_test", "likelihood_ratio_test", "goodness_of_fit", "zero_test"]
ROWS_BY_GENE += ["moderate_dispersion", "aic", "bic", "choose_model"]

every_function = pytest.mark.parametrize("name", EVERY)
every_function_of_counts = pytest.mark.parametrize(
    "name", [name for name in EVERY if name != "CurveHeatmapDisplay"]
)


@pytest.fixture(scope="module")
def data():
    return make_counts(120, 14, mean=FORMULA, random_state=3)


@pytest.fixture(scope="module")
def adata(data):
    """Counts are in a layer; X is normalised, as in most files."""
    obs = data.obs.set_axis([f"cell{cell}" for cell in data.obs.index])
    obs["donor"] = [f"donor{cell % 8}" for cell in range(len(obs))]
    counts = sp.csr_matrix(data.counts, dtype=float)
    cells = AnnData(counts.log1p(), obs=obs, var=pd.DataFrame(index=data.counts.columns))
    cells.layers["counts"] = counts
    return cells


@pytest.fixture(scope="module")
def models(adata):
    """Models of the AnnData, fitted in each way."""
    in_place = pipeline()
    scg.fit(adata.copy(), in_place, layer="counts")
    return {
        "fit": in_place,
        "AnnDataRegressor": scg.AnnDataRegressor(pipeline(), layer="counts").fit(adata),
    }


@pytest.fixture(scope="module")
def of_frames(adata):
    return pipeline().fit(adata.obs, adata.to_df("counts"))


@pytest.fixture(scope="module")
def expected(of_frames, adata):
    found = {}

    def of(name):
        if name not in found:
            found[name] = EVERY[name](of_frames, adata.obs, adata.to_df("counts"))
        return found[name]

    return of


def assert_same(found, expected):
    """Compare two results of any of the functions."""
    tolerance = {"rtol": 1e-5, "atol": 1e-7}
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, pd.DataFrame):
        assert_frame_equal(found, expected, **tolerance)
    elif isinstance(expected, pd.Series):
        assert_series_equal(found, expected, **tolerance)
    elif np.asarray(expected).dtype.kind == "f":
        assert_allclose(found, expected, **tolerance)
    else:
        assert_array_equal(found, expected)


def with_another_gene(adata):
    """Cells that have another gene before those of the fit."""
    counts = adata.layers["counts"]
    more = sp.hstack([sp.csr_matrix(np.ones((len(counts.indptr) - 1, 1))), counts], format="csr")
    names = ["other", *adata.var_names]
    wider = AnnData(more.log1p(), obs=adata.obs, var=pd.DataFrame(index=names))
    wider.layers["counts"] = more
    return wider


FORMS = {
    "as fitted": lambda adata: adata,
    "genes reversed": lambda adata: adata[:, ::-1].copy(),
    "view with genes permuted": lambda adata: adata[:, np.random.default_rng(0).permutation(14)],
    "another gene": with_another_gene,
}


def test_every_public_function_is_here():
    for room, calls in CALLS.items():
        if room is not metrics:  # its functions take distributions
            assert {*room.__all__} - RESULTS - OF_INFLATED_MODELS - OF_SUMS == {*calls}


def test_probabilities_of_structural_zeros_are_of_the_layer(adata):
    counts = adata.to_df("counts")
    steps = FormulaTransformer("~ pseudotime"), ZINBRegressor()
    model = scg.fit(adata.copy(), make_pipeline(*steps), layer="counts")
    found = diagnostics.zero_probability(model, adata[:, ::-1])
    expected = diagnostics.zero_probability(model, adata.obs, counts)
    assert_allclose(found, expected, rtol=1e-9)


@every_function
@pytest.mark.parametrize("kind", ["fit", "AnnDataRegressor"])
def test_an_anndata_gives_the_result_of_its_covariates_and_counts(
    name, kind, models, adata, expected
):
    assert_same(EVERY[name](models[kind], adata), expected(name))


@every_function
@pytest.mark.parametrize("form", [form for form in FORMS if form != "as fitted"])
def test_genes_are_found_by_name(name, form, models, adata, expected):
    found = EVERY[name](models["fit"], FORMS[form](adata))
    if name in ("compare_models", "choose_model"):  # they fit all genes that they are given
        order = expected(name).index if name == "choose_model" else expected(name)["gene"].unique()
        if name == "choose_model":
            found = found.loc[order]
        else:
            found = found.set_index("gene").loc[order].reset_index()
    assert_same(found, expected(name))


@every_function_of_counts
def test_counts_of_named_genes_in_another_order_are_refused(name, of_frames, adata):
    if name in ("compare_models", "choose_model"):
        return  # they fit the counts that they are given
    counts = adata.to_df("counts")
    permuted = counts[counts.columns[[1, 0, *range(2, 14)]]]
    if name == "likelihood_ratio_test":
        reduced = pipeline("~ pseudotime").fit(adata.obs, counts)
        with pytest.raises(ValueError, match="found 'gene_1' where 'gene_0' was"):
            inference.likelihood_ratio_test(reduced, of_frames, adata.obs, permuted)
        return
    with pytest.raises(ValueError, match="found 'gene_1' where 'gene_0' was"):
        EVERY[name](of_frames, adata.obs, permuted)


@pytest.mark.parametrize("name", ROWS_BY_GENE)
def test_rows_are_named_by_gene(name, expected, data):
    index = expected(name).index
    assert index.name == "gene"
    assert list(index) == list(data.counts.columns)


@pytest.mark.parametrize("name", ["coefficient_table", "confidence_intervals", "compare_models"])
def test_long_tables_have_a_column_of_genes(name, expected, data):
    assert list(expected(name)["gene"].unique()) == list(data.counts.columns)


@pytest.mark.parametrize("name", CALLS[diagnostics])
def test_new_cells_are_read_from_the_layer(name, models, of_frames, adata):
    cells = adata[adata.obs["pseudotime"] < 0.7]
    found = EVERY[name](models["fit"], cells)
    assert_same(found, EVERY[name](of_frames, cells.obs, cells.to_df("counts")))


@every_function_of_counts
def test_a_model_of_arrays_does_not_guess_the_layer(name, of_frames, adata):
    call = EVERY[name]
    if name == "likelihood_ratio_test":
        call = partial(inference.likelihood_ratio_test, of_frames)
    with pytest.raises(ValueError, match=r"fitted to arrays|nor fitted by sc_glm\.adata\.fit"):
        call(of_frames, adata)


def test_covariates_of_an_anndata_go_with_counts_that_are_given(of_frames, models, adata):
    counts = adata.to_df("counts")
    for model in (of_frames, *models.values()):
        for X in (adata, adata.obs):
            table = inference.coefficient_table(model, X, counts)
            expected = inference.coefficient_table(of_frames, adata.obs, counts)
            assert_frame_equal(table, expected, rtol=1e-5)


def test_the_layer_is_that_of_the_last_fit(adata):
    model = scg.fit(adata.copy(), pipeline("~ 1"), layer="counts")
    assert model[-1].layer_ == "counts"
    assert pickle.loads(pickle.dumps(model))[-1].layer_ == "counts"  # noqa: S301
    cells = AnnData(adata.layers["counts"], obs=adata.obs, var=adata.var)
    assert scg.fit(cells, model)[-1].layer_ is None
    assert len(inference.aic(model, cells)) == 14
    model.fit(adata.obs, adata.to_df("counts"))
    assert not hasattr(model[-1], "layer_")
    with pytest.raises(ValueError, match="fitted to arrays"):
        inference.aic(model, cells)


def test_a_moderated_model_keeps_the_layer(models, adata):
    for model in models.values():
        result = moderation.moderate_dispersion(model, adata)
        assert len(inference.coefficient_table(result.model, adata)) == 14 * 5


def test_a_search_and_a_regressor_alone_know_the_layer(adata):
    grid = {"formulatransformer__mean": ["~ 1", "~ pseudotime"]}
    search = scg.fit(adata.copy(), GridSearchCV(pipeline(), grid, cv=2), layer="counts")
    best = search.best_estimator_
    counts = adata.to_df("counts")
    assert_series_equal(inference.aic(search, adata), inference.aic(best, adata.obs, counts))
    cells = adata.copy()
    cells.obs = cells.obs[["pseudotime"]]
    regressor = scg.fit(cells, NegBinRegressor(), layer="counts")
    expected = inference.aic(regressor, cells.obs, counts)
    assert_series_equal(inference.aic(regressor, cells), expected)


def test_missing_genes_and_layers_are_named(models, adata):
    with pytest.raises(ValueError, match=r"1 genes of the fit are not .*'gene_0'"):
        inference.aic(models["fit"], adata[:, 1:])
    without = adata.copy()
    del without.layers["counts"]
    with pytest.raises(ValueError, match="no layer 'counts'"):
        diagnostics.zero_test(models["fit"], without)


def test_another_matrix_than_the_layer_is_never_read(models, adata):
    """X holds logarithms, with which the fit would have another likelihood."""
    assert not np.isclose(adata.X.sum(), adata.layers["counts"].sum())
    counts = FittedData.of(models["fit"], adata).counts
    assert_array_equal(counts.dense(slice(None)), adata.layers["counts"].toarray())


BY_DONOR = {
    "differential_expression": lambda *data, **how: inference.differential_expression(
        *data, contrast=("cell_type", "b", "c"), **how
    ),
    "coefficient_table": inference.coefficient_table,
    "confidence_intervals": inference.confidence_intervals,
    "covariance": inference.covariance,
    "gene_summary": lambda *data, **how: str(inference.gene_summary(*data, gene="gene_2", **how)),
    "standard_errors": inference.standard_errors,
    "wald_test": lambda *data, **how: inference.wald_test(*data, constraint="pseudotime", **how),
}


@pytest.mark.parametrize("name", BY_DONOR)
def test_groups_may_be_the_name_of_a_column(name, models, of_frames, adata):
    call, counts = BY_DONOR[name], adata.to_df("counts")
    expected = call(of_frames, adata.obs, counts, kind="cluster", groups=adata.obs["donor"])
    assert_same(call(of_frames, adata.obs, counts, kind="cluster", groups="donor"), expected)
    assert_same(call(models["fit"], adata, kind="cluster", groups="donor"), expected)
    with pytest.raises(ValueError, match=r"groups='doner': X has no .* Did you mean"):
        call(models["fit"], adata, kind="cluster", groups="doner")


def test_names_of_columns_need_a_frame(adata):
    X, y = adata.obs[["pseudotime"]].to_numpy(), adata.to_df("counts")
    model = NegBinRegressor().fit(X, y)
    with pytest.raises(ValueError, match="groups='donor' names a column, but X has no names"):
        inference.covariance(model, X, y, kind="cluster", groups="donor")


def test_folds_and_weights_by_the_name_of_a_column(models, adata):
    cells = adata.copy()
    cells.obs["copies"] = 1.0 + np.arange(120) % 3
    options = {"cv": 4, "groups": "donor", "sample_weight": "copies"}
    by_name = selection.compare_models({"a": models["fit"]}, cells, **options)
    options = {"cv": 4, "groups": cells.obs["donor"], "sample_weight": cells.obs["copies"]}
    by_value = selection.compare_models({"a": models["fit"]}, cells, **options)
    assert_frame_equal(by_name, by_value)
    model = scg.fit(cells, pipeline("~ 1"), layer="counts", sample_weight="copies")
    expected = inference.aic(model, cells, sample_weight=cells.obs["copies"])
    assert_series_equal(inference.aic(model, cells, sample_weight="copies"), expected)


def test_models_of_different_layers_are_not_compared(models, adata):
    cells = adata.copy()
    cells.layers["other"] = cells.layers["counts"].copy()
    other = scg.fit(cells, pipeline("~ 1"), layer="other")
    with pytest.raises(ValueError, match="different layers"):
        selection.compare_models({"a": models["fit"], "b": other}, cells, cv=2)
    mixed = {"a": models["fit"], "b": models["AnnDataRegressor"]}
    with pytest.raises(ValueError, match="only some are an AnnDataRegressor"):
        selection.compare_models(mixed, cells, cv=2)


def test_models_of_different_layers_are_not_nested(models, adata):
    cells = adata.copy()
    cells.layers["other"] = cells.layers["counts"] * 2
    other = scg.fit(cells, pipeline("~ 1"), layer="other")
    with pytest.raises(ValueError, match="fitted to different counts"):
        inference.likelihood_ratio_test(other, models["fit"], cells)


@pytest.mark.parametrize("storage", [sp.csr_matrix, sp.csc_matrix, lambda x: x.toarray()])
def test_counts_may_be_in_a_file(adata, of_frames, tmp_path, storage):
    cells = AnnData(storage(adata.layers["counts"]), obs=adata.obs, var=adata.var)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    model = scg.fit(backed, pipeline())
    counts = adata.to_df("counts")
    expected = inference.coefficient_table(of_frames, adata.obs, counts)
    assert_frame_equal(inference.coefficient_table(model, backed), expected, rtol=1e-5)
    found = diagnostics.pearson_residuals(model, backed[30:60])
    expected = diagnostics.pearson_residuals(of_frames, adata.obs[30:60], counts[30:60])
    assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    backed.file.close()


def test_a_regressor_of_an_anndata_predicts_from_covariates_too(models, of_frames, adata):
    model = models["AnnDataRegressor"]
    assert_allclose(model.predict(adata.obs), of_frames.predict(adata.obs), rtol=1e-6)
    assert_array_equal(model.predict(adata), model.predict(adata.obs))
    weights = adata.obs["pseudotime"]
    assert model.score(adata, sample_weight="pseudotime") == model.score(
        adata, sample_weight=weights
    )


def test_the_shortest_code_names_the_genes(adata):
    cells = adata.copy()
    cells.obs["log_depth"] = np.log(cells.layers["counts"].sum(axis=1).A1 + 1.0)
    steps = FormulaTransformer("~ cell_type", offset="log_depth"), NegBinRegressor()
    model = scg.fit(cells, make_pipeline(*steps), layer="counts")
    table = inference.coefficient_table(model, cells)
    assert list(table["gene"].unique()) == list(cells.var_names)
    assert_frame_equal(table, inference.coefficient_table(model, cells.obs, cells.to_df("counts")))
