import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.plots import SimulatedSummariesDisplay

pytestmark = pytest.mark.usefixtures("pyplot")


@pytest.fixture(scope="module")
def data():
    return make_counts(300, 6, random_state=0)


@pytest.fixture(scope="module")
def model(data):
    steps = FormulaTransformer(**data.formulas), NegBinRegressor()
    return make_pipeline(*steps).fit(data.obs, data.counts)


def check(summaries, counts, correlated):
    assert_allclose(summaries["mean"], counts.mean(axis=0))
    assert_allclose(summaries["variance"], counts.var(axis=0))
    assert_allclose(summaries["zeros"], (counts == 0).mean(axis=0))
    correlation = np.corrcoef(np.log1p(counts[:, correlated]).T)
    pairs = np.triu_indices(len(correlated), 1)
    assert_allclose(summaries["correlation"], correlation[pairs], atol=1e-12)


def test_summaries_are_those_of_the_counts_and_of_a_sample(model, data):
    display = SimulatedSummariesDisplay.from_estimator(model, data.obs, data.counts, random_state=5)
    check(display.observed, data.counts.to_numpy(), range(6))
    check(display.simulated, model.sample(data.obs, random_state=5), range(6))


def test_panels_show_observed_against_simulated_summaries(model, data):
    display = SimulatedSummariesDisplay.from_estimator(model, data.obs, data.counts, random_state=5)
    assert len(display.ax_) == len(display.lines_) == 4
    fields = "mean", "variance", "zeros", "correlation"
    for ax, line, field in zip(display.ax_, display.lines_, fields, strict=True):
        pairs = np.c_[display.observed[field], display.simulated[field]]
        assert_array_equal(line.get_xydata(), pairs)
        assert line in ax.lines
        diagonal = next(other for other in ax.lines if other is not line)
        assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
        assert_allclose(diagonal.get_xdata(), ax.get_xlim())
        assert_allclose(ax.get_xlim(), ax.get_ylim())
        assert ax.get_xlim()[0] < pairs.min() <= pairs.max() < ax.get_xlim()[1]


def test_some_genes_in_their_order(model, data):
    genes = ["gene_4", "gene_0", "gene_2"]
    display = SimulatedSummariesDisplay.from_estimator(
        model, data.obs, data.counts, genes=genes, random_state=5
    )
    check(display.observed, data.counts[genes].to_numpy(), range(3))
    check(display.simulated, model.sample(data.obs, random_state=5)[:, [4, 0, 2]], range(3))


def test_correlations_are_of_the_genes_with_the_largest_means(model, data, monkeypatch):
    monkeypatch.setattr("sc_glm.plots.summaries._MAX_CORRELATED_GENES", 3)
    display = SimulatedSummariesDisplay.from_estimator(model, data.obs, data.counts, random_state=5)
    top = np.sort(np.argsort(-data.counts.mean().to_numpy())[:3])
    check(display.observed, data.counts.to_numpy(), top)


def test_genes_without_variation_have_no_correlation(model, data):
    counts = data.counts.assign(gene_0=0, gene_3=2)
    display = SimulatedSummariesDisplay.from_estimator(model, data.obs, counts, random_state=5)
    check(display.observed, counts.to_numpy(), [1, 2, 4, 5])
    notes = [ax.get_title(loc="right") for ax in display.ax_]
    assert notes == ["1 gene(s) at 0", "2 gene(s) at 0", "", ""]


def test_a_single_gene_has_no_pair(model, data):
    display = SimulatedSummariesDisplay.from_estimator(
        model, data.obs, data.counts, genes="gene_1", random_state=5
    )
    assert display.observed["correlation"].shape == (0,)
    assert [text.get_text() for text in display.ax_[3].texts] == ["nothing to show"]
    display.figure_.draw_without_rendering()
