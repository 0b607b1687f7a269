"""The summary of one gene: the numbers of inference's other functions, as text and in notebooks."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, inference, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.datasets import make_counts
from sc_glm.inference import gene_summary

DATA = make_counts(200, 4, offset="np.log(size_factor)", random_state=3)
OBS = DATA.obs.set_axis([f"c{i}" for i in range(200)])
COUNTS = DATA.counts.set_axis(OBS.index).assign(**{"<i>off</i>": 0})
COUNTS.loc[OBS["cell_type"] == "a", "gene_0"] = 0
DONOR = np.arange(200) % 12


def formulas(regressor=None):
    design = FormulaTransformer("~ pseudotime + cell_type", "~ 1", offset="np.log(size_factor)")
    return make_pipeline(design, regressor or NegBinRegressor())


@pytest.fixture(scope="module")
def model():
    with pytest.warns(match="all zero"):
        return formulas().fit(OBS, COUNTS)


@pytest.mark.parametrize("kind", ["observed", "robust", "cluster"])
@pytest.mark.parametrize("gene", ["gene_0", "gene_1", "<i>off</i>"])
def test_numbers_are_those_of_the_tables(model, kind, gene):
    options = {"kind": kind, "groups": DONOR if kind == "cluster" else None}
    summary = gene_summary(model, OBS, COUNTS, gene, **options)
    table = inference.coefficient_table(model, OBS, COUNTS, **options)
    intervals = inference.confidence_intervals(model, OBS, COUNTS, **options)
    table = table.assign(lower=intervals["lower"], upper=intervals["upper"])
    table = table[table["gene"] == gene]
    assert list(summary.coefficients) == list(table["part"].unique())
    for part, own in summary.coefficients.items():
        expected = table[table["part"] == part].set_index("feature")[list(own)]
        assert_frame_equal(own, expected, rtol=1e-8)
    assert summary.aic == pytest.approx(inference.aic(model, OBS, COUNTS)[gene])
    assert summary.bic == pytest.approx(inference.bic(model, OBS, COUNTS)[gene])
    assert summary.log_likelihood == model.summary().loc[gene, "log_likelihood"]
    assert summary.status == model.summary().loc[gene, "status"]
    assert summary.n_positive == (COUNTS[gene] > 0).sum()
    assert summary.mean_count == pytest.approx(COUNTS[gene].mean())


def test_text(model):
    lines = str(gene_summary(model, OBS, COUNTS, "gene_1")).splitlines()
    assert lines[0].startswith("gene_1: converged (")
    for name, start in [("cells", "200, of which"), ("AIC", ""), ("BIC", ""), ("mean count", "")]:
        assert [line for line in lines if line.startswith(name) and start in line]
    columns = [line.split() for line in lines if "estimate" in line]
    assert len(columns) == 2  # one table for each part
    assert columns[0] == ["estimate", "standard", "error", "z", "p-value", "2.5", "%", "97.5", "%"]
    assert "reason" not in str(lines)
    intervals = inference.confidence_intervals(model, OBS, COUNTS)
    own = intervals.query("gene == 'gene_1' and feature == 'pseudotime'")[["lower", "upper"]]
    (line,) = [line for line in lines if line.startswith("pseudotime ")]
    ends = [float(word) for word in line.split()[-2:]]
    assert ends == pytest.approx(own.to_numpy()[0].tolist(), abs=1e-4)


def test_zeros_have_no_sign(model):
    summary = gene_summary(model, OBS, COUNTS, "<i>off</i>")
    assert "log-likelihood   0.00\n" in str(replace(summary, log_likelihood=-0.001))
    table = summary.coefficients["mean"].assign(estimate=0.0)
    text = str(replace(summary, coefficients={**summary.coefficients, "mean": table}))
    assert text.split("\ndispersion", maxsplit=1)[0].count(" 0.0000") == len(table)


def test_degrees_of_freedom_are_shown_if_any_are_finite(model):
    summary = gene_summary(model, OBS, COUNTS, "gene_1")
    table = summary.coefficients["dispersion"]
    mixed = pd.concat([table.rename({"Intercept": "a"}), table.assign(df=7.0)])
    lines = str(replace(summary, coefficients={"dispersion": mixed})).splitlines()
    assert {"t", "df"} < set(lines[-3].split())
    assert lines[-2].split()[4] == "inf"
    assert lines[-1].split()[4] == "7.0"


def test_few_groups_are_shown_with_their_degrees_of_freedom(model):
    text = str(gene_summary(model, OBS, COUNTS, "gene_1", kind="cluster", groups=DONOR))
    assert " t " in text
    assert " df " in text
    assert f"groups of cells (CR2), {len(set(DONOR))} groups\n" in text


def test_groups_are_counted_as_the_covariance_has_them(model):
    labels = [1 if i % 12 == 0 else "1" if i % 12 == 1 else int(i % 12) + 1 for i in range(200)]
    summary = gene_summary(model, OBS, COUNTS, "gene_1", kind="cluster", groups=labels)
    assert summary.n_groups == 12


def test_one_size_is_shown_as_overdispersion(model):
    summary = gene_summary(model, OBS, COUNTS, "gene_1")
    log_size = summary.coefficients["dispersion"]["estimate"].loc["Intercept"]
    assert f"overdispersion   {np.exp(-log_size):.4g} (1/r)\n" in str(summary)
    regressed = make_pipeline(FormulaTransformer("~ 1", "~ pseudotime"), NegBinRegressor())
    counts = COUNTS[["gene_1"]]
    text = str(gene_summary(regressed.fit(OBS, counts), OBS, counts, "gene_1"))
    assert "overdispersion" not in text


def test_a_missing_number_has_a_reason(model):
    summary = gene_summary(model, OBS, COUNTS, "gene_0")
    assert summary.status == "separated"
    known = summary.coefficients["mean"]["reason"] == ""
    assert dict(known) == {
        "Intercept": False,
        "pseudotime": True,
        "cell_type[T.b]": False,
        "cell_type[T.c]": False,
    }
    (line,) = [row for row in str(summary).splitlines() if row.startswith("cell_type[T.b]")]
    assert line.split() == ["cell_type[T.b]", "separated"]


def test_names_are_escaped_in_notebooks(model):
    html = gene_summary(model, OBS, COUNTS, "<i>off</i>")._repr_html_()
    assert "&lt;i&gt;off&lt;/i&gt;: all zero" in html
    assert "<i>" not in html
    assert html.count("<table") == 3
    X = OBS[["pseudotime"]].set_axis(["<u>x</u>"], axis=1)
    plain = NegBinRegressor().fit(X, COUNTS["gene_1"])
    html = gene_summary(plain, X, COUNTS["gene_1"], "gene_1")._repr_html_()
    assert "&lt;u&gt;x&lt;/u&gt;" in html
    assert "<u>" not in html


def test_models_that_wrap_others(model):
    adata = AnnData(COUNTS.to_numpy(float), obs=OBS, var=pd.DataFrame(index=COUNTS.columns))
    with pytest.warns(match="all zero"):
        wrapped = AnnDataRegressor(formulas()).fit(adata)
    expected = str(gene_summary(model, OBS, COUNTS, "gene_2"))
    assert str(gene_summary(wrapped, adata, gene="gene_2")) == expected


def test_summaries_may_be_compared_and_kept_in_sets(model):
    one, other = (gene_summary(model, OBS, COUNTS, "gene_1") for _ in range(2))
    assert len({one, other, one}) == 2
    assert one != other


def test_weights():
    weights = np.arange(200) % 3
    repeated = np.repeat(np.arange(200), weights)
    counts = COUNTS[["gene_1", "gene_2"]]
    model = formulas().fit(OBS, counts, negbinregressor__sample_weight=weights)
    summary = gene_summary(model, OBS, counts, "gene_2", sample_weight=weights)
    rows = OBS.iloc[repeated].reset_index(drop=True), counts.iloc[repeated].reset_index(drop=True)
    other = gene_summary(formulas().fit(*rows), *rows, "gene_2")
    assert summary.n_cells == (weights > 0).sum()
    assert summary.n_positive == (counts["gene_2"][weights > 0] > 0).sum()
    assert summary.mean_count == pytest.approx(other.mean_count)
    assert summary.bic == pytest.approx(other.bic)


def test_no_criterion_where_the_likelihood_is_not_at_its_maximum():
    counts = COUNTS[["gene_1", "gene_2", "gene_3"]]
    penalised = formulas(NegBinRegressor(alpha=0.1)).fit(OBS, counts)
    summary = gene_summary(penalised, OBS, counts, "gene_1")
    assert_array_equal([summary.aic, summary.bic], np.nan)
    assert "AIC              none, as the fit is penalised" in str(summary)
    assert np.isfinite(summary.coefficients["mean"]["standard_error"]).all()


def test_all_parts_are_named():
    counts = COUNTS[["gene_1"]]
    with_zeros = formulas(ZINBRegressor()).fit(OBS, counts)
    text = str(gene_summary(with_zeros, OBS, counts, "gene_1"))
    for heading in ("mean (log mu)", "dispersion (log r, ", "zero_inflation (logit pi)"):
        assert f"\n{heading}" in text


def test_what_is_refused(model):
    with pytest.raises(
        ValueError, match=r"genes of the fit: \['gene1'\]. Names similar to 'gene1': .*gene_1"
    ):
        gene_summary(model, OBS, COUNTS, "gene1")
    for wrong in (None, 1, ["gene_1", "gene_2"]):
        with pytest.raises(TypeError, match="needs the name of a gene"):
            gene_summary(model, OBS, COUNTS, wrong)
    with pytest.raises(ValueError, match="must be those of the fit"):
        gene_summary(model, OBS, COUNTS + 1, "gene_1")
