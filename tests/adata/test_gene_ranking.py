"""Ranked genes: the structure that scanpy writes, and what its functions read of it."""

import importlib
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sc_glm import adata as scg
from sc_glm.adata import gene_ranking
from sc_glm.inference import differential_expression
from tests.adata.cells import GENES, assert_unchanged, pipeline

pytestmark = pytest.mark.usefixtures("asked", "pyplot")

LEVELS = ["Ngn3 high EP", "a/b β", "c"]
# Of GENES: a gene that only this level has, one that it lacks, one without a test, one like others
LOG2 = np.array([np.inf, -2.0, np.nan, 0.5])
LOG10_P = np.array([-400.0, -320.0, np.nan, -1.0])


def table_of_tests(contrasts):
    """Return a table of tests as `differential_expression` does, whose numbers are set."""
    tables = []
    for place, name in enumerate(contrasts):
        log2, log10_p = np.roll(LOG2, place), np.roll(LOG10_P, place)
        p_value = np.maximum(10.0**log10_p, np.finfo(float).tiny)
        columns = {
            "contrast": name,
            "fraction": np.roll([0.9, 0.0, 0.2, 0.5], place),
            "fraction_reference": np.roll([0.0, 0.3, 0.1, 0.5], place),
            "log2_fold_change": log2,
            "p_value": p_value,
            "log10_p_value": log10_p,
            "p_adjusted": np.minimum(4 * p_value, 1.0),
        }
        tables.append(pd.DataFrame(columns, index=pd.Index(GENES, name="gene")))
    return pd.concat(tables)


@pytest.fixture
def asked(monkeypatch):
    """What the tests of genes are asked for; their numbers are set."""
    calls = []

    def tests_of_genes(model, X, y=None, contrast=None, **options):
        calls.append({"model": model, "X": X, "y": y, "contrast": contrast, **options})
        return table_of_tests(contrast)

    monkeypatch.setattr(gene_ranking, "differential_expression", tests_of_genes)
    return calls


@pytest.fixture
def cells(adata):
    adata.X = adata.layers["logcounts"]
    return adata


@pytest.fixture
def model(cells):
    return scg.fit(cells, pipeline("~ cell_type"), layer="counts")


def test_each_level_is_compared_with_the_rest(cells, model, asked):
    before = cells.copy()
    scg.rank_genes(cells, model, "cell_type", kind="cluster", groups="donor", method="wald")
    assert_unchanged(cells, before, "rank_genes_groups")
    (call,) = asked
    assert call["model"] is model
    assert call["X"] is cells
    assert call["contrast"] == {level: ("cell_type", level, "rest") for level in LEVELS}
    assert (call["kind"], call["groups"], call["method"]) == ("cluster", "donor", "wald")
    ranked = cells.uns["rank_genes_groups"]
    assert ranked["params"] == {
        "groupby": "cell_type",
        "reference": "rest",
        "method": "wald",
        "use_raw": False,
        "layer": "counts",
        "corr_method": "benjamini-hochberg",
    }
    assert ranked.keys() == {"params", "names", "scores", "logfoldchanges", "pvals", "pvals_adj"}
    for name in ranked.keys() - {"params"}:
        assert ranked[name].dtype.names == tuple(LEVELS)
        assert ranked[name].shape == (len(GENES),)


def test_genes_are_by_falling_score_and_those_without_a_test_are_last(cells, model):
    scg.rank_genes(cells, model, "cell_type")
    ranked = cells.uns["rank_genes_groups"]
    level = LEVELS[0]
    assert list(ranked["names"][level]) == [GENES[i] for i in (0, 3, 1, 2)]
    scores = ranked["scores"][level]
    assert_array_equal(ranked["logfoldchanges"][level], LOG2[[0, 3, 1, 2]].astype("float32"))
    assert_allclose(scores[1], stats.norm.isf(0.1 / 2), rtol=1e-6)
    # Logarithms of two-sided tails give the p-values back, where these underflow, too.
    log_p = np.log(2) + stats.norm.logsf(np.abs(scores[[0, 2]].astype(float)))
    assert_allclose(log_p / np.log(10), [-400.0, -320.0], rtol=1e-6)
    assert scores[2] < 0
    assert np.isnan(scores[3])
    assert (ranked["pvals"][level][:3] > 0).all()
    assert list(ranked["names"][LEVELS[1]]) == [GENES[i] for i in (1, 0, 2, 3)]


def test_a_reference_and_a_number_of_genes(cells, model, asked):
    scg.rank_genes(cells, model, "cell_type", reference="c", n_genes=2, pts=True, key_added="deg")
    ranked = cells.uns["deg"]
    assert ranked["params"]["reference"] == "c"
    assert asked[0]["contrast"] == {level: ("cell_type", level, "c") for level in LEVELS[:2]}
    assert ranked["names"].shape == (2,)
    assert ranked["names"].dtype.names == tuple(LEVELS[:2])
    assert list(ranked["pts"].columns) == LEVELS
    assert "pts_rest" not in ranked
    assert_array_equal(ranked["pts"]["c"], [0.0, 0.3, 0.1, 0.5])


def test_fractions_are_of_all_genes(cells, model):
    scg.rank_genes(cells, model, "cell_type", n_genes=1, pts=True)
    ranked = cells.uns["rank_genes_groups"]
    assert list(ranked["pts"].index) == GENES
    assert_array_equal(ranked["pts"][LEVELS[0]], [0.9, 0.0, 0.2, 0.5])
    assert_array_equal(ranked["pts_rest"][LEVELS[0]], [0.0, 0.3, 0.1, 0.5])


@pytest.mark.parametrize(
    ("contrast", "names"),
    [
        (("cell_type", "c", "a/b β"), ("cell_type", "a/b β")),
        (
            {"x": ("cell_type", "c", "rest"), "y": ("cell_type", "a/b β", "c")},
            ("cell_type", "contrast"),
        ),
        (
            {"x": ("cell_type", "c", "rest"), "y": "`cell_type[T.c]` = 0"},
            ("contrast", "contrast"),
        ),
    ],
)
def test_contrasts_of_several_kinds(cells, model, asked, contrast, names):
    scg.rank_genes(cells, model, contrast)
    params = cells.uns["rank_genes_groups"]["params"]
    assert (params["groupby"], params["reference"]) == names
    expected = {"c": contrast} if isinstance(contrast, tuple) else contrast
    assert asked[0]["contrast"] == expected


def test_levels_that_are_numbers_have_names(cells, asked):
    cells.obs["batch"] = np.arange(cells.n_obs) % 2
    model = scg.fit(cells, pipeline("~ C(batch)"), layer="counts")
    scg.rank_genes(cells, model, "batch")
    assert asked[0]["contrast"] == {"0": ("batch", 0, "rest"), "1": ("batch", 1, "rest")}


def test_views_and_models_of_every_kind(cells):
    model = scg.AnnDataRegressor(pipeline("~ cell_type"), layer="counts").fit(cells)
    view = cells[:, ::-1]
    scg.rank_genes(view, model, "cell_type")
    assert not view.is_view
    assert "rank_genes_groups" in view.uns
    assert "rank_genes_groups" not in cells.uns
    assert view.uns["rank_genes_groups"]["params"]["layer"] == "counts"


def test_wrong_questions(cells, model):
    def refused(match, *contrast, error=ValueError, **options):
        with pytest.raises(error, match=match):
            scg.rank_genes(cells, model, *contrast, **options)

    refused("no column 'cell_typ'. Did you mean 'cell_type'", "cell_typ")
    refused("reference='d' is not a level of 'cell_type'", "cell_type", reference="d")
    refused("contrast must be the name", 3, error=TypeError)
    refused("dict of strings", {}, error=TypeError)
    refused("cannot hold a key", "cell_type", key_added="a/b")
    cells.obs["one"] = "a"
    refused("'one' has 1 level", "one")
    with pytest.raises(TypeError, match="must be an AnnData"):
        scg.rank_genes(model, cells, "cell_type")
    assert "rank_genes_groups" not in cells.uns


def test_fractions_need_two_levels(cells, model, monkeypatch):
    table = table_of_tests({"x": ""}).drop(columns=["fraction", "fraction_reference"])
    monkeypatch.setattr(gene_ranking, "differential_expression", lambda *_, **__: table)
    with pytest.raises(ValueError, match="the contrast 'x' does not compare two levels"):
        scg.rank_genes(cells, model, {"x": "`cell_type[T.c]` = 0"}, pts=True)


def test_a_file_keeps_it(cells, model, tmp_path):
    scg.rank_genes(cells, model, "cell_type", pts=True)
    del cells.layers["counts"]
    uns = {"rank_genes_groups": cells.uns["rank_genes_groups"]}
    plain = anndata.AnnData(cells.X, obs=cells.obs[["cell_type"]], var=cells.var[[]], uns=uns)
    renamed = {"a/b β": "ab"}
    plain.obs["cell_type"] = plain.obs["cell_type"].cat.rename_categories(renamed)
    path = tmp_path / "cells.h5ad"
    names = [renamed.get(name, name) for name in LEVELS]
    for field in ("names", "scores", "logfoldchanges", "pvals", "pvals_adj"):
        uns["rank_genes_groups"][field].dtype.names = tuple(names)
    for field in ("pts", "pts_rest"):
        uns["rank_genes_groups"][field].columns = names
    plain.write_h5ad(path)
    again = anndata.read_h5ad(path).uns["rank_genes_groups"]
    for field in ("scores", "logfoldchanges", "pvals", "pvals_adj"):
        for name in names:
            assert_array_equal(again[field][name], uns["rank_genes_groups"][field][name])


@pytest.fixture
def scanpy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies, when it is imported
        try:
            return importlib.import_module("scanpy")
        except ImportError:
            pytest.skip("scanpy is not installed")


@pytest.mark.filterwarnings("ignore")  # scanpy's own, of packages that it uses
def test_scanpy_reads_the_table(cells, model, scanpy):
    scg.rank_genes(cells, model, "cell_type", pts=True)
    table = scanpy.get.rank_genes_groups_df(cells, group=None)
    assert list(table["group"].unique()) == LEVELS
    assert len(table) == 3 * len(GENES)
    one = scanpy.get.rank_genes_groups_df(cells, group=LEVELS[0])
    assert list(one["names"]) == [GENES[i] for i in (0, 3, 1, 2)]
    assert_array_equal(one["pct_nz_group"], [0.9, 0.5, 0.0, 0.2])
    assert_array_equal(one["pct_nz_reference"], [0.0, 0.5, 0.3, 0.1])
    assert one["logfoldchanges"].iloc[0] == np.inf
    significant = scanpy.get.rank_genes_groups_df(
        cells, group=LEVELS[0], pval_cutoff=0.05, log2fc_min=1
    )
    assert list(significant["names"]) == [GENES[0]]


@pytest.mark.filterwarnings("ignore")
def test_scanpy_reads_the_tests_of_genes(cells, model, monkeypatch, scanpy):
    monkeypatch.setattr(gene_ranking, "differential_expression", differential_expression)
    scg.rank_genes(cells, model, "cell_type", pts=True)
    for level in LEVELS:
        table = scanpy.get.rank_genes_groups_df(cells, group=level).set_index("names")
        contrast = ("cell_type", level, "rest")
        expected = differential_expression(model, cells, contrast=contrast).loc[table.index]
        for name, column in {
            "logfoldchanges": "log2_fold_change",
            "pvals": "p_value",
            "pvals_adj": "p_adjusted",
            "pct_nz_group": "fraction",
            "pct_nz_reference": "fraction_reference",
        }.items():
            assert_allclose(table[name], expected[column], rtol=1e-6, err_msg=name)
        # Without clusters, a test of one contrast is a normal one.
        assert_allclose(table["scores"], expected["statistic"], rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_the_structure_is_that_of_scanpy(cells, model, scanpy):
    scg.rank_genes(cells, model, "cell_type", pts=True)
    scanpy.tl.rank_genes_groups(cells, "cell_type", use_raw=False, pts=True, key_added="its")
    ours, its = cells.uns["rank_genes_groups"], cells.uns["its"]
    assert ours.keys() == its.keys()
    assert ours["params"].keys() == its["params"].keys()
    for name in ("names", "scores", "logfoldchanges", "pvals", "pvals_adj"):
        assert type(ours[name]) is type(its[name])
        assert ours[name].dtype == its[name].dtype
    for name in ("pts", "pts_rest"):
        assert ours[name].shape == its[name].shape
        assert_array_equal(ours[name].index, its[name].index)
        assert_array_equal(ours[name].columns, its[name].columns)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "plot",
    [
        "rank_genes_groups",
        "rank_genes_groups_dotplot",
        "rank_genes_groups_matrixplot",
        "rank_genes_groups_heatmap",
        "rank_genes_groups_stacked_violin",
        "rank_genes_groups_tracksplot",
    ],
)
def test_scanpy_draws_it(cells, model, scanpy, plot):
    scg.rank_genes(cells, model, "cell_type")
    options = {} if plot == "rank_genes_groups" else {"dendrogram": False}
    getattr(scanpy.pl, plot)(cells, n_genes=2, show=False, **options)


@pytest.mark.filterwarnings("ignore")
def test_dots_show_fold_changes(cells, model, scanpy):
    scg.rank_genes(cells, model, "cell_type")
    axes = scanpy.pl.rank_genes_groups_dotplot(
        cells,
        n_genes=2,
        values_to_plot="logfoldchanges",
        vmin=-4,
        vmax=4,
        show=False,
        dendrogram=False,
    )
    labels = [text.get_text() for text in axes["mainplot_ax"].get_xticklabels()]
    assert labels[:2] == [GENES[0], GENES[3]]
