"""Covariances and degrees of freedom, against their definitions written out for each gene."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.linalg import block_diag, fractional_matrix_power
from scipy.special import digamma

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.inference import wald_test
from sc_glm.inference.covariance_estimators import covariance_estimator, estimate_covariance
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.linear_combinations import LinearCombinations

N, DONORS = 180, 9
RNG = np.random.default_rng(3)
DONOR = np.sort(RNG.integers(0, DONORS, N))
X = pd.DataFrame(
    {"treated": (DONOR % 2).astype(float), "depth": RNG.normal(size=N), "late": RNG.random(N) < 0.4}
).astype(float)
MEAN = np.exp(1 + 0.4 * X["depth"].to_numpy() + RNG.normal(0, 0.5, DONORS)[DONOR])[:, None]
Y = RNG.negative_binomial(3, 3 / (3 + MEAN * np.array([0.5, 1.0, 4.0])))
TESTS = {
    "one": np.array([[[0, 1.0, 0, 0, 0]]]),
    "within": np.array([[[0, 0, 1.0, -1.0, 0]]]),
    "two": np.array([[[0, 1.0, 0, 0, 0], [0, 0, 1.0, 0, 0]]]),
    "size": np.array([[[0, 0, 0, 0, 1.0]]]),
}


@pytest.fixture(scope="module")
def fitted():
    return FittedData.of(NegBinRegressor(tol=1e-10).fit(X, Y), X, Y)


def found(fitted, test, kind, groups=None, weights=None):
    estimator, counts = covariance_estimator(kind, fitted, groups, weights)
    combinations = LinearCombinations.of(test, estimator.designs)
    return combinations, estimate_covariance(fitted, counts, estimator, combinations)


def of_coefficients(fitted, kind, groups=None, weights=None):
    combinations, known = found(fitted, np.eye(5)[:, None], kind, groups, weights)
    to_coef = combinations.theta_matrix[:, 0]
    return to_coef @ known.covariance @ to_coef.T


def of_groups(fitted, gene):
    """Return the groups' scores and expected information, and the observed information of all.

    The parameters are the coefficients and the log size; derivatives are those of the log-mass.
    """
    D = torch.tensor(np.c_[np.ones(N), X.to_numpy()])
    point = torch.tensor(np.concatenate([x.to_numpy()[:, gene] for x in fitted.params.values()]))
    y = torch.tensor(Y[:, gene], dtype=torch.float64)

    def log_mass(parameters):
        mu, r = torch.exp(D @ parameters[:4]), torch.exp(parameters[4])
        counted = torch.lgamma(y + r) - torch.lgamma(r) - torch.lgamma(y + 1)
        return counted + r * torch.log(r / (r + mu)) + y * torch.log(mu / (r + mu))

    jacobian = torch.autograd.functional.jacobian(log_mass, point).numpy()
    hessian = torch.autograd.functional.hessian(lambda x: log_mass(x).sum(), point).numpy()
    D, mu, r = D.numpy(), np.exp((D @ point[:4]).numpy()), np.exp(float(point[4]))
    k = np.arange(3000.0)[:, None]
    of_size = r * (digamma(k + r) - digamma(r) + np.log(r / (r + mu)) + (mu - k) / (r + mu))
    on_size = (stats.nbinom.pmf(k, r, r / (r + mu)) * of_size**2).sum(axis=0)
    members = [donor == DONOR for donor in range(DONORS)]
    expected = [
        block_diag(D[own].T @ (D[own] * (r * mu / (r + mu))[own, None]), on_size[own].sum())
        for own in members
    ]
    return [jacobian[own].sum(axis=0) for own in members], expected, -hessian


@pytest.mark.parametrize("name", TESTS)
def test_clusters_are_as_bell_and_mccaffrey_define_them(fitted, name):
    """For each gene by itself: matrix powers, and the covariance of every pair of groups."""
    _, known = found(fitted, TESTS[name], "cluster", DONOR)
    covariances = of_coefficients(fitted, "cluster", DONOR)
    test = TESTS[name][0]
    q = len(test)
    for gene in range(3):
        scores, own, observed = of_groups(fitted, gene)
        inverse, whole = np.linalg.inv(observed), np.linalg.inv(sum(own))
        enlarging = [fractional_matrix_power(np.eye(5) - share @ whole, -0.5).real for share in own]
        adjusted = [a @ score for a, score in zip(enlarging, scores, strict=True)]
        covariance = inverse @ sum(np.outer(s, s) for s in adjusted) @ inverse
        scale = np.sqrt(np.diag(covariance))
        # The table of the expected information of the size has three digits.
        assert_allclose(
            covariances[gene] / np.outer(scale, scale),
            covariance / np.outer(scale, scale),
            rtol=0,
            atol=2e-3,
        )

        # The covariance of what groups add, z = test B A s, if the model is right
        rows = [test @ inverse @ a for a in enlarging]
        pairs = {
            (g, h): rows[g] @ ((g == h) * own[g] - own[g] @ whole @ own[h]) @ rows[h].T
            for g in range(DONORS)
            for h in range(DONORS)
        }
        expected = sum(pairs[g, g] for g in range(DONORS))
        white = fractional_matrix_power(expected, -0.5).real
        pairs = {key: white @ value @ white for key, value in pairs.items()}
        spread = sum(np.trace(x) ** 2 + np.trace(x @ x) for x in pairs.values())
        assert known.df[gene, 0] == pytest.approx(q * (q + 1) / spread, rel=2e-3)
    assert not known.full_leverage.any()


def test_donors_of_equal_designs_have_equal_leverages():
    """One donor of large counts dominates the observed information, and the counts alone."""
    donor = np.repeat(np.arange(12), 40)
    rng = np.random.default_rng(0)
    level = np.exp(np.where(donor == 3, 2.5, 0.0))
    y = rng.negative_binomial(2, 2 / (2 + 5 * level))[:, None]
    treated = pd.DataFrame({"treated": (donor % 2).astype(float)})
    own = FittedData.of(NegBinRegressor(tol=1e-10).fit(treated, y), treated, y)
    estimator, counts = covariance_estimator("cluster", own, donor, None)
    test = np.array([[[0, 1.0, 0]]])
    combinations = LinearCombinations.of(test, estimator.designs)
    known = estimate_covariance(own, counts, estimator, combinations)
    assert known.df[0, 0] == pytest.approx(10, abs=0.05)
    means = y[:, 0].reshape(12, 40).mean(axis=1)
    # CR2 of the ratio of means: the variance of six relative means, twice
    relative = [means[odd::2] / means[odd::2].mean() for odd in (0, 1)]
    expected = sum(x.var(ddof=1) / 6 for x in relative)
    coef = combinations.theta_matrix[0, 0]
    assert coef @ known.covariance[0] @ coef == pytest.approx(expected, rel=0.01)


def test_a_penalty_is_no_group_of_full_leverage():
    """A shrunken coefficient has information of its penalty, which no group has."""
    model = NegBinRegressor(alpha=30.0, tol=1e-10).fit(X, Y)
    own = FittedData.of(model, X, Y)
    estimator, counts = covariance_estimator("cluster", own, DONOR, None)
    combinations = LinearCombinations.of(np.eye(5)[:, None], estimator.designs)
    known = estimate_covariance(own, counts, estimator, combinations)
    assert not known.full_leverage.any()
    assert (known.df[:, 1] > 3).all()


def test_many_levels():
    """Indicators of many levels are a basis of their own: the covariance is the same without."""
    plate = np.random.default_rng(5).integers(0, 40, N)
    cells = X.assign(**{f"plate{i}": (plate == i).astype(float) for i in range(1, 40)})
    obs, counts = X.assign(plate=plate.astype(str)), Y + 1  # no level without counts
    many = make_pipeline(FormulaTransformer("~ treated + depth + plate"), NegBinRegressor(tol=1e-9))
    few = NegBinRegressor(tol=1e-9)
    found = wald_test(many.fit(obs, counts), obs, counts, "depth", kind="cluster", groups=DONOR)
    design = cells[["treated", "depth", *cells.columns[3:]]]
    few = few.fit(design, counts)
    expected = wald_test(few, design, counts, "depth", kind="cluster", groups=DONOR)
    assert (found["reason"] == "").all()
    for column in ("estimate", "standard_error", "df_denominator"):
        assert_allclose(found[column], expected[column], rtol=1e-4)


def test_families_without_a_known_expected_information_have_leverages_of_the_observed(
    fitted, monkeypatch
):
    """A covariate of the mean has nearly the same errors with both."""
    name = "sc_glm.inference.covariance_estimators.has_expected_information"
    expected = of_coefficients(fitted, "cluster", DONOR)
    monkeypatch.setattr(name, lambda _: False)
    observed = of_coefficients(fitted, "cluster", DONOR)
    variances = [np.einsum("gkk->gk", x)[:, :4] for x in (observed, expected)]
    assert_allclose(variances[0], variances[1], rtol=0.25)
    assert not np.allclose(variances[0], variances[1], rtol=1e-3)


def test_degrees_of_freedom_are_about_those_of_donors(fitted):
    """Between 5 and 4 donors there are 7 at most; a covariate of cells has nearly one for each."""
    between = found(fitted, TESTS["one"], "cluster", DONOR)[1].df
    within = found(fitted, TESTS["within"], "cluster", DONOR)[1].df
    assert (between < DONORS - 2 + 0.2).all()
    assert (between > 3).all()
    assert (within > between).all()


def test_many_small_groups_are_the_sandwich(fitted):
    """Each cell by itself differs from HC0 by its leverage alone."""
    robust = of_coefficients(fitted, "robust")
    alone = of_coefficients(fitted, "cluster", np.arange(N))
    ratio = np.einsum("gkk->gk", alone) / np.einsum("gkk->gk", robust)
    assert (ratio > 1).all()
    assert (ratio < 1.3).all()


def test_groups_names_and_order_do_not_matter(fitted):
    expected = of_coefficients(fitted, "cluster", DONOR)
    for groups in (
        [f"donor {d}" for d in DONOR],
        pd.Categorical(DONOR[::-1], categories=range(20))[::-1],
        pd.Series(10.0 - DONOR),
    ):
        assert_allclose(of_coefficients(fitted, "cluster", groups), expected, rtol=1e-9)
    order = np.random.default_rng(0).permutation(N)
    moved = FittedData.of(fitted.regressor, X.iloc[order], Y[order])
    found = of_coefficients(moved, "cluster", DONOR[order])
    assert_allclose(found, expected, rtol=1e-7, atol=1e-12)


def test_weights(fitted):
    """Weights of two are each cell twice, to the observed information; to scores they are not."""
    weights = np.random.default_rng(1).integers(0, 3, N)
    weighted = NegBinRegressor(tol=1e-10).fit(X, Y, sample_weight=weights)
    rows = np.repeat(np.arange(N), weights)
    X2, Y2 = X.iloc[rows].reset_index(drop=True), Y[rows]
    repeated = FittedData.of(NegBinRegressor(tol=1e-10).fit(X2, Y2), X2, Y2)
    one = FittedData.of(weighted, X, Y)
    assert_allclose(
        of_coefficients(one, "observed", weights=weights),
        of_coefficients(repeated, "observed"),
        rtol=1e-6,
    )
    # A cell's repetitions together are one group.
    assert_allclose(
        of_coefficients(one, "cluster", np.arange(N), weights=weights),
        of_coefficients(repeated, "cluster", rows),
        rtol=1e-6,
    )
    doubled = NegBinRegressor(tol=1e-10).fit(X, Y, sample_weight=np.full(N, 2.0))
    twice = of_coefficients(FittedData.of(doubled, X, Y), "robust", weights=np.full(N, 2.0))
    assert_allclose(twice, of_coefficients(fitted, "robust"), rtol=1e-6)


def test_a_coefficient_of_one_group_has_full_leverage():
    """A column of one donor's cells fits that donor exactly: no other donor shows how it varies."""
    alone = X.assign(first=(DONOR == 0).astype(float))
    fitted = FittedData.of(NegBinRegressor().fit(alone, Y), alone, Y)
    estimator, counts = covariance_estimator("cluster", fitted, DONOR, None)
    known = estimate_covariance(
        fitted, counts, estimator, LinearCombinations.of(np.eye(6)[:, None], estimator.designs)
    )
    features = [*fitted.params["mean"].index, "size"]
    assert_array_equal(known.full_leverage, np.tile([name == "first" for name in features], (3, 1)))


@pytest.mark.parametrize(
    ("kind", "groups", "message"),
    [
        ("sandwich", None, "kind must be one of"),
        ("cluster", None, r"kind='cluster' needs groups, .*groups=obs\['donor'\]\.$"),
        ("robust", DONOR, "kind='robust' takes no groups"),
        ("cluster", DONOR[1:], rf"groups has the shape \({N - 1},\), expected \({N},\)"),
        ("cluster", "donor", "X has no column 'donor'"),
        ("cluster", 1, rf"groups has the shape \(\), expected \({N},\): a label for each"),
        ("cluster", np.zeros(N), "groups are all the same"),
        ("cluster", np.where(DONOR == 4, np.nan, DONOR), "groups has no value in row"),
        ("cluster", [np.nan, *map(str, DONOR[1:])], "groups has no value in row 0"),
    ],
)
def test_what_is_refused(fitted, kind, groups, message):
    with pytest.raises(ValueError, match=message):
        covariance_estimator(kind, fitted, groups, None)


def test_groups_of_another_order_are_refused():
    labelled = X.set_axis([f"cell{i}" for i in range(N)])
    own = FittedData.of(NegBinRegressor().fit(labelled, Y), labelled, Y)
    groups = pd.Series(DONOR, index=labelled.index)
    covariance_estimator("cluster", own, groups, None)
    with pytest.raises(ValueError, match="rows of groups have the labels of X in another order"):
        covariance_estimator("cluster", own, groups[::-1], None)


def test_the_block_size_and_jobs_do_not_matter(fitted, monkeypatch):
    expected = of_coefficients(fitted, "cluster", DONOR)
    monkeypatch.setattr("sc_glm.inference.covariance_estimators.MAX_CLUSTER_ENTRIES", 1)
    fitted.regressor.n_jobs = 2
    try:
        assert_allclose(of_coefficients(fitted, "cluster", DONOR), expected, rtol=1e-12)
    finally:
        fitted.regressor.n_jobs = None


def test_a_gene_without_numbers_harms_no_other(fitted):
    model = copy.deepcopy(fitted.regressor)
    model.params_["mean"]["y1"] = np.nan
    for kind, groups in (("observed", None), ("robust", None), ("cluster", DONOR)):
        estimator, counts = covariance_estimator(kind, fitted, groups, None)
        combinations = LinearCombinations.of(np.eye(5)[:, None], estimator.designs)
        broken = estimate_covariance(FittedData.of(model, X, Y), counts, estimator, combinations)
        assert_array_equal(broken.at_maximum, [True, False, True])
        expected = estimate_covariance(fitted, counts, estimator, combinations)
        assert_allclose(broken.covariance[::2], expected.covariance[::2])


def test_a_coefficient_of_one_cell_has_full_leverage():
    """A level of one cell is fitted exactly: its score is zero, and so would its variance be."""
    counted = np.argsort(-Y.min(axis=1), kind="stable")  # no gene is zero there
    for n_cells, full_leverage in ((1, True), (5, False)):
        few = X.assign(few=np.isin(np.arange(N), counted[:n_cells]).astype(float))
        fitted = FittedData.of(NegBinRegressor().fit(few, Y), few, Y)
        estimator, counts = covariance_estimator("robust", fitted, None, None)
        known = estimate_covariance(
            fitted, counts, estimator, LinearCombinations.of(np.eye(6)[:, None], estimator.designs)
        )
        features = [*fitted.params["mean"].index, "size"]
        expected = [full_leverage and name == "few" for name in features]
        assert_array_equal(known.full_leverage, np.tile(expected, (3, 1)))
        of_few = known.df[:, features.index("few")]
        assert (of_few < 2 * n_cells).all()
        assert (known.df[:, features.index("depth")] > 40).all()
