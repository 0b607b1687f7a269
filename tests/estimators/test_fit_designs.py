"""Cells with equal covariates, whose counts are summed, against cells one by one."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm._counts.equal_rows import group_rows
from sc_glm._solver import gene_block
from sc_glm.estimators import fit_designs
from tests.estimators.simulations import BOTH, TIGHT


def categorical(n_cells=400, seed=3):
    """Return columns of few values, and counts of 6 ordinary genes and 6 hard ones."""
    rng = np.random.default_rng(seed)
    group, batch = rng.integers(0, 4, n_cells), rng.integers(0, 2, n_cells)
    dummies = {f"g{k}": (group == k).astype(float) for k in range(4)}
    columns = pd.DataFrame({"one": 1.0, "batch": batch, **dummies, "depth": 0.5 * batch - 0.2})
    mu = np.exp(rng.normal(0.5, 1, 6) + rng.normal(0, 0.7, (4, 6))[group])
    size = np.exp(rng.normal(0.5, 0.4, 6) + rng.normal(0, 0.4, (4, 6))[group])
    y = rng.negative_binomial(size, size / (size + mu)) * (rng.uniform(size=mu.shape) > 0.2)
    rare = np.eye(n_cells)[7] * 3
    silent = np.where(group == 2, 0, rng.poisson(2, n_cells))
    even, high = rng.binomial(4, 0.5, n_cells), rng.poisson(200, n_cells)
    halves = rng.poisson(1, n_cells) / 2
    return columns, np.column_stack([y, 0 * rare, rare, silent, even, high, halves]).astype(float)


BY_GROUP = ["one", "g0", "g1", "g2", "g3"]  # one column too many


FEW_ROWS = {
    "group means": (NegBinRegressor, {"mean": BY_GROUP}, {}),
    "one row": (NegBinRegressor, {"mean": ["one"]}, {}),
    "one row of two parts": (ZINBRegressor, {"mean": ["one"]}, {}),
    "group sizes": (NegBinRegressor, {"mean": BY_GROUP, "dispersion": BY_GROUP}, {}),
    "group inflations": (ZINBRegressor, {"mean": BY_GROUP, "zero_inflation": BY_GROUP}, {}),
    "all by two factors": (
        ZINBRegressor,
        {
            "mean": [*BY_GROUP, "batch"],
            "dispersion": ["one", "batch"],
            "zero_inflation": BY_GROUP,
            "offset": ["depth"],
        },
        {},
    ),
    "offset and ridge": (
        NegBinRegressor,
        {"mean": ["one", "batch", "g0"], "dispersion": ["one", "g1"], "offset": ["depth"]},
        {"alpha": 0.01},
    ),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", FEW_ROWS)
def test_rows_of_equal_cells_give_the_fit_of_single_cells(monkeypatch, name, weighted):
    regressor, parts, options = FEW_ROWS[name]
    columns, y = categorical()
    X = pd.DataFrame({f"{part}__{c}": columns[c] for part, own in parts.items() for c in own})
    weights = None
    if weighted:
        weights = np.random.default_rng(4).uniform(0.2, 2, len(y))
        weights[::9] = 0
    few = regressor(**TIGHT, **options).fit(X, y, sample_weight=weights)
    rows = group_rows(X.to_numpy())
    assert rows is not None
    monkeypatch.setattr(fit_designs, "group_rows", lambda _: None)
    each = regressor(**TIGHT, **options).fit(X, y, sample_weight=weights)

    assert_allclose(few.log_likelihood_, each.log_likelihood_, rtol=1e-9, atol=1e-9)
    assert_array_equal(few.status_, each.status_)
    assert len(set(few.status_)) > 1
    own = 1.0 if weights is None else weights[:, None]
    assert_allclose(few.log_likelihood_, (own * few.log_prob(X, y)).sum(0), rtol=1e-9, atol=1e-8)
    inner = few.status_ == "converged"
    for part, table in few.params_.items():
        assert_array_equal(few.undetermined_[part], each.undetermined_[part])
        assert_array_equal(few.aliased_[part], each.aliased_[part])
        assert_allclose(table.loc[:, inner], each.params_[part].loc[:, inner], rtol=1e-4, atol=1e-5)
    # With a single count, the mean is arbitrary where zero inflation explains all.
    several = (y > 0).sum(0) != 1
    means = few.predict(X)[:, several], each.predict(X)[:, several]
    assert_allclose(*means, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:Most values of y are not integers:UserWarning")
@pytest.mark.parametrize("name", ["group sizes", "group inflations"])
def test_fits_by_rows_do_not_depend_on_other_genes_or_on_order(name, tmp_path):
    """To the last digit, and whatever order the cells are in, as counts are summed by row."""
    regressor, parts, _ = FEW_ROWS[name]
    columns, y = categorical(120)
    X = pd.DataFrame({f"{part}__{c}": columns[c] for part, own in parts.items() for c in own})
    together = regressor(checkpoint_dir=tmp_path).fit(X, y)
    again = regressor(checkpoint_dir=tmp_path).fit(X, y)
    pairs = [(slice(None), again)]
    pairs += [([g], regressor().fit(X, y[:, [g]])) for g in (0, 6, 7, 8, 11)]
    pairs.append((slice(None), regressor(batch_size=5).fit(X, sp.csr_array(y))))
    later = np.argsort(group_rows(X.to_numpy()), kind="stable")  # no row's first cell moves ahead
    pairs.append((slice(None), regressor().fit(X.iloc[later], y[later])))
    for genes, other in pairs:
        for part, table in together.params_.items():
            assert_array_equal(table.to_numpy()[:, genes], other.params_[part].to_numpy())
        for attribute in ("log_likelihood_", "n_iter_", "status_"):
            assert_array_equal(getattr(together, attribute)[genes], getattr(other, attribute))


@BOTH
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_few_distinct_rows_in_single_precision(regressor):
    columns, y = categorical()
    X = columns[["g0", "g1", "g2", "batch"]]
    single, double = (regressor(dtype=d).fit(X, y) for d in ("float32", "float64"))
    assert_allclose(single.log_likelihood_, double.log_likelihood_, rtol=1e-4, atol=1e-3)


def test_a_warm_start_where_few_rows_are_distinct():
    columns, y = categorical()
    X = columns[["g0", "g1", "g2"]]
    model = NegBinRegressor(warm_start=True).fit(X, y[:, :6])
    before = model.log_likelihood_
    model.fit(X, y[:, :6])
    assert_allclose(model.log_likelihood_, before, rtol=1e-9)
    assert (model.n_iter_ <= 2).all()


def test_cells_with_equal_covariates_are_read_once(monkeypatch):
    """What a pass costs is the number of distinct counts in each row."""
    seen = []
    build_problem = gene_block.build_problem

    def spy(*args):
        problem = build_problem(*args)
        seen.append((problem.counts.shape, problem.counts.nnz, len(args[2].offset)))
        return problem

    monkeypatch.setattr(gene_block, "build_problem", spy)
    columns, y = categorical()
    NegBinRegressor().fit(columns[["g0", "g1"]], y[:, :3])
    ((shape, n_counts, n_rows),) = seen
    assert shape == (3, 3)
    assert n_rows == 3
    rows = 2 * columns["g0"] + columns["g1"]
    distinct = {(g, rows[i], y[i, g]) for i, g in zip(*np.nonzero(y[:, :3]), strict=True)}
    assert n_counts == len(distinct)


def test_equal_rows_are_not_seen_where_the_offset_is_continuous(monkeypatch):
    seen = []
    monkeypatch.setattr(gene_block.Tally, "of", seen.append)
    columns, y = categorical()
    X = pd.DataFrame({"mean__g0": columns["g0"], "offset__depth": np.linspace(-1, 1, len(y))})
    NegBinRegressor().fit(X, y[:, :3])
    assert seen == []


def test_an_offset_that_is_not_a_logarithm_names_the_row():
    columns, y = categorical()
    X = pd.DataFrame({"mean__one": columns["one"], "offset__depth": 0.0})
    X.loc[123, "offset__depth"] = 5e4
    with pytest.raises(ValueError, match="The offset is 50000 in row 123"):
        NegBinRegressor().fit(X, y)
