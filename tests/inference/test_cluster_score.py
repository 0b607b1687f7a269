"""The score test by clusters: against t-tests, and for donors that have nearly no counts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sc_glm.inference.cluster_score import cluster_score_tests

CONDITION = np.array([[0.0, 1.0]])


def of_poisson_sums(sums, design, cells=40.0):
    """Scores and information of groups' Poisson counts, at the common mean; genes x groups."""
    mean = sums.mean(axis=1, keepdims=True) / cells
    scores = (sums - cells * mean)[..., None] * design
    weights = np.broadcast_to(cells * mean, sums.shape)
    information = weights[..., None, None] * design[:, :, None] * design[:, None]
    return scores, information


def two_conditions(first, second):
    condition = np.repeat([1.0, 0.0], [first, second])
    return np.c_[np.ones(first + second), condition]


def draw(n_genes, design, mean, donor_sd, *, seed, effect=0.0):
    """Draw counts of donors whose log means differ."""
    rng = np.random.default_rng(seed)
    log_mean = np.log(mean) + rng.normal(0, donor_sd, (n_genes, len(design)))
    return rng.poisson(np.exp(log_mean + effect * design[:, 1])).astype(float)


@pytest.mark.parametrize("n", [3, 5])
def test_equal_groups_are_those_of_a_t_test(n):
    """If donors vary more than cells do, the statistic is that of their sums."""
    sums = np.random.default_rng(0).gamma(2.0, 500.0, (50, 2 * n))
    scores, information = of_poisson_sums(sums, two_conditions(n, n))
    found = cluster_score_tests(scores, information, CONDITION)
    expected = stats.ttest_ind(sums[:, :n], sums[:, n:], axis=1)
    assert_allclose(found.df_denominator, 2 * n - 2, rtol=1e-6)
    assert_allclose(found.statistic, expected.statistic**2, rtol=1e-6)
    assert_allclose(np.exp(found.log_p_values()), expected.pvalue, rtol=1e-6)
    assert_array_equal(np.sign(found.step[:, 0]), np.sign(expected.statistic))


def test_groups_of_unequal_number_have_welchs_variance():
    sums = np.random.default_rng(1).gamma(2.0, 500.0, (20, 7))
    found = cluster_score_tests(*of_poisson_sums(sums, two_conditions(2, 5)), CONDITION)
    expected = stats.ttest_ind(sums[:, :2], sums[:, 2:], axis=1, equal_var=False)
    assert_allclose(found.statistic, expected.statistic**2, rtol=1e-6)


@pytest.mark.parametrize("test", [CONDITION, np.eye(3)[1:]])
def test_coordinates_do_not_matter(test):
    rng = np.random.default_rng(2)
    design = np.c_[np.ones(9), np.repeat(np.eye(3), 3, axis=0)[:, 1:]]
    sums = rng.gamma(2.0, 300.0, (20, 9))
    test = test if test.shape[1] == 3 else np.array([[0.0, 1.0, 0.0]])
    expected = cluster_score_tests(*of_poisson_sums(sums, design), test)
    turned = rng.normal(size=(3, 3))  # new coordinates are turned^-1 times the old ones
    found = cluster_score_tests(*of_poisson_sums(sums, design @ turned), test @ turned)
    mixed = cluster_score_tests(
        *of_poisson_sums(sums, design), rng.normal(size=(len(test),) * 2) @ test
    )
    for other in (found, mixed):
        assert_allclose(other.statistic, expected.statistic, rtol=1e-6)
        assert_allclose(other.df_denominator, expected.df_denominator, rtol=1e-6)


def test_groups_in_another_order_and_genes_in_another_order():
    sums = np.random.default_rng(3).gamma(2.0, 300.0, (10, 8))
    scores, information = of_poisson_sums(sums, two_conditions(4, 4))
    expected = cluster_score_tests(scores, information, CONDITION)
    order = np.random.default_rng(4).permutation(8)
    found = cluster_score_tests(scores[::-1, order], information[::-1, order], CONDITION)
    assert_allclose(found.statistic, expected.statistic[::-1], rtol=1e-9)


def test_equal_counts_are_not_without_variance():
    """Three donors with one count each, against three without: donors do not differ at all."""
    sums = np.repeat([[0.0, 1.0]], 3, axis=1)
    found = cluster_score_tests(*of_poisson_sums(sums, two_conditions(3, 3)), CONDITION)
    # The one-step estimate of -2 has the variance 2 / (3 * 0.5) of independent Poisson counts.
    assert_allclose(found.step, -2.0)
    assert_allclose(found.statistic, 4 / (4 / 3), rtol=1e-6)


@pytest.mark.parametrize(("n", "mean"), [(3, 1.0), (4, 0.7), (6, 0.5), (10, 0.3)])
@pytest.mark.parametrize("donor_sd", [0.1, 0.7])
def test_few_counts_reject_no_true_hypothesis_too_often(n, mean, donor_sd):
    """Given the number of counts, of which all may be in one condition by chance."""
    design = two_conditions(n, n)
    sums = draw(20_000, design, mean, donor_sd, seed=5)
    total = sums.sum(axis=1)
    sums, total = sums[total >= 2], total[total >= 2]
    silent = (sums[:, :n].sum(axis=1) == 0) | (sums[:, n:].sum(axis=1) == 0)
    found = cluster_score_tests(*of_poisson_sums(sums, design), CONDITION)
    assert (found.reason == "").all()
    p = np.exp(found.log_p_values())
    for low, high in ((2, 4), (5, 7), (8, np.inf)):
        which = (total >= low) & (total <= high)
        assert np.mean(p[which] < 0.05) < 0.055
        assert np.mean(p[which] < 0.01) < 0.011
    assert silent.sum() > 200
    # Without counts in one condition, the probability of that is 2 * 2^-total.
    assert np.mean(silent & (p < 0.05)) < 0.03


def test_a_condition_silenced_by_an_effect_is_found():
    design = two_conditions(6, 6)
    sums = draw(500, design, 15.0, 0.3, seed=6, effect=-6.0)
    found = cluster_score_tests(*of_poisson_sums(sums, design), CONDITION)
    assert (found.step < 0).all()
    assert np.mean(np.exp(found.log_p_values()) < 0.01) > 0.9


def test_reasons():
    design = np.c_[two_conditions(3, 3), np.arange(6) == 2]
    sums = np.random.default_rng(7).gamma(2.0, 300.0, (3, 6))
    scores, information = of_poisson_sums(sums, design)
    one = cluster_score_tests(scores, information, np.array([[0.0, 0.0, 1.0]]))
    assert (one.reason == "one group decides").all()
    assert np.isnan(one.log_p_values()).all()
    others = cluster_score_tests(scores, information, np.array([[0.0, 1.0, 0.0]]))
    assert (others.reason == "").all()

    scores[1, 2, 0] = np.nan
    information[2, :, 1], information[2, :, :, 1] = 0.0, 0.0
    broken = cluster_score_tests(scores, information, np.array([[0.0, 1.0, 0.0]]))
    assert_array_equal(broken.reason, ["", "no information", "no information"])
    assert_allclose(broken.statistic[0], others.statistic[0])
    assert np.isnan(broken.statistic[1:]).all()


def test_one_donor_of_a_level_decides_a_joint_test():
    """Its score is zero after the step, so it shows nothing of the variance of its level."""
    level = np.array([0, 0, 1, 1, 2])
    sums = np.random.default_rng(8).gamma(2.0, 300.0, (3, 5))
    design = np.c_[np.ones(5), np.eye(3)[level][:, 1:]]
    found = cluster_score_tests(*of_poisson_sums(sums, design), np.eye(3)[1:])
    assert (found.reason == "one group decides").all()
    assert np.isnan(found.df_denominator).all()


def test_too_few_groups():
    """Four donors with two factors leave one degree of freedom, and a joint test needs two."""
    sums = np.random.default_rng(9).gamma(2.0, 300.0, (3, 4))
    design = np.c_[np.ones(4), [0, 0, 1, 1], [0, 1, 0, 1]]
    found = cluster_score_tests(*of_poisson_sums(sums, design), np.eye(3)[1:])
    assert (found.reason == "too few groups").all()
    assert np.isnan(found.statistic).all()
    one = cluster_score_tests(*of_poisson_sums(sums, design), np.eye(3)[1:2])
    assert (one.reason == "").all()
    assert_allclose(one.df_denominator, 1.0)
