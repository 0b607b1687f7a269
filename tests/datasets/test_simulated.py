import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import stats

from sc_glm.datasets import make_counts
from sc_glm.distributions import NB, ZINB
from sc_glm.formula import FormulaTransformer

EVERY_PART = {
    "mean": "~ bs(pseudotime, df=4) + cell_type",
    "dispersion": "~ 0 + cell_type",
    "zero_inflation": "~ batch",
    "offset": "np.log(size_factor)",
}


@pytest.mark.parametrize("make", [int, np.random.RandomState, np.random.default_rng])
def test_reproducible(make):
    first, second = (make_counts(30, 4, **EVERY_PART, random_state=make(1)) for _ in range(2))
    assert_frame_equal(first.obs, second.obs)
    assert_frame_equal(first.counts, second.counts)
    for part in first.params:
        assert_frame_equal(first.params[part], second.params[part])
    assert not make_counts(30, 4, random_state=make(2)).counts.equals(first.counts)


def test_layout():
    data = make_counts(30, 4, **EVERY_PART, random_state=0)
    genes = ["gene_0", "gene_1", "gene_2", "gene_3"]
    assert data.obs.columns.tolist() == ["pseudotime", "cell_type", "batch", "size_factor"]
    assert data.counts.shape == data.dist.shape == (30, 4)
    assert data.counts.index.equals(data.obs.index)
    assert set(data.counts.dtypes) == {np.dtype(np.int64)}
    assert data.formulas == EVERY_PART
    assert list(data.params) == ["mean", "dispersion", "zero_inflation"]
    assert data.params["dispersion"].index.tolist() == [f"cell_type[{x}]" for x in "abc"]
    assert data.params["zero_inflation"].index.tolist() == ["Intercept", "batch[T.y]"]
    for table in (data.counts, *data.params.values()):
        assert table.columns.tolist() == genes


def test_parameters_make_the_distributions():
    data = make_counts(30, 4, **EVERY_PART, random_state=0)
    design = FormulaTransformer(**data.formulas).fit_transform(data.obs)
    predictors = {
        part: design[[f"{part}__{name}" for name in table.index]].to_numpy() @ table.to_numpy()
        for part, table in data.params.items()
    }
    offset = np.log(data.obs["size_factor"].to_numpy())[:, None]
    assert isinstance(data.dist, ZINB)
    assert_allclose(data.dist.mu, np.exp(predictors["mean"] + offset))
    assert_allclose(data.dist.r, np.exp(predictors["dispersion"]))
    assert_allclose(data.dist.pi, 1 / (1 + np.exp(-predictors["zero_inflation"])))


@pytest.mark.parametrize("zero_inflation", [None, "~ cell_type"])
def test_counts_follow_the_distributions(zero_inflation):
    data = make_counts(4000, 6, zero_inflation=zero_inflation, random_state=0)
    assert isinstance(data.dist, NB if zero_inflation is None else ZINB)
    counts, dist = data.counts.to_numpy(), data.dist
    z = (counts - dist.mean()).sum(axis=0) / np.sqrt(dist.var().sum(axis=0))
    assert np.abs(z).max() < 4
    zeros, p = (counts == 0).sum(axis=0), dist.prob_zero()
    assert (np.abs(zeros - p.sum(axis=0)) < 4 * np.sqrt((p * (1 - p)).sum(axis=0))).all()
    # The probability integral transform, made continuous, is uniform.
    u = np.random.default_rng(0).random(counts.shape)
    transformed = dist.cdf(counts - 1) + u * dist.pmf(counts)
    assert stats.kstest(transformed.ravel(), "uniform").pvalue > 1e-3


def test_parts_without_a_formula_are_intercepts():
    data = make_counts(20, 3, mean=None, random_state=0)
    assert list(data.params) == ["mean", "dispersion"]
    for table in data.params.values():
        assert table.index.tolist() == ["Intercept"]
    assert_array_equal(data.dist.mu, np.tile(data.dist.mu[0], (20, 1)))


def test_effects_do_not_depend_on_units():
    formulas = ["~ pseudotime", "~ {1000 * pseudotime}"]
    data = [make_counts(50, 5, mean=mean, random_state=0) for mean in formulas]
    assert_allclose(data[0].dist.mu, data[1].dist.mu)
    none = make_counts(50, 5, effect_scale=0.0, random_state=0)
    assert_array_equal(none.params["mean"].to_numpy()[1:], 0)


def test_looks_like_single_cells():
    data = make_counts(1000, 200, random_state=0)
    assert 0.3 < (data.counts == 0).to_numpy().mean() < 0.8


def test_levels_without_a_cell():
    data = make_counts(1, 2, random_state=0)
    assert data.counts.shape == (1, 2)
    assert data.params["mean"].filter(regex="cell_type", axis="index").empty
    data = make_counts(3, 2, mean="~ cell_type * batch", random_state=0)
    both = data.params["mean"].filter(regex=":", axis="index")
    assert len(both) == 2
    assert (both == 0).any(axis=1).sum() >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 0}, "n_samples must be at least 1, got 0"),
        ({"n_targets": -1}, "n_targets must be at least 1, got -1"),
        ({"effect_scale": np.nan}, "effect_scale must be .* got nan"),
        ({"mean": "~ age"}, "mean='~ age': X has no column 'age'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_counts(**arguments)
