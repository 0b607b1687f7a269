"""Presets of make_counts: resemblance to the real screens, and their true parameters."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal

from sc_glm import FormulaTransformer, NegBinRegressor
from sc_glm.datasets import make_counts
from sc_glm.datasets.presets import PRESETS
from sc_glm.distributions import ZINB
from sc_glm.inference import wald_test

# From doc/presets.txt: quantiles over the genes of the real screens at 5, 50 and 95 %, for pbmc at
# 50, 75 and 95 %. Variance over mean is without each gene's largest count, where cells of real
# screens have single counts of tens.
REAL = {
    "pbmc": {
        "shape": (2700, 3000),
        "levels": (0.5, 0.75, 0.95),
        "mean": (0.00037, 0.0152, 0.146),
        "zeros": (1.0, 1.0, 1.0),
        "variance": (0.999, 1.05, 1.72),
    },
    "pancreas": {
        "shape": (2087, 100),
        "levels": (0.05, 0.5, 0.95),
        "mean": (1.31, 3.02, 17.5),
        "zeros": (0.0746, 0.374, 0.705),
        "variance": (2.88, 5.64, 62.2),
    },
    "perturbation": {
        "shape": (5495, 72),
        "levels": (0.05, 0.5, 0.95),
        "mean": (0.0263, 1.62, 48.6),
        "zeros": (0.000282, 0.255, 0.975),
        "variance": (1.01, 1.63, 15.6),
    },
    "donors": {
        "shape": (2700, 500),
        "levels": (0.05, 0.5, 0.95),
        "mean": (0.0537, 0.121, 1.49),
        "zeros": (0.327, 0.896, 0.952),
        "variance": (0.996, 1.11, 4.94),
    },
}


def test_every_preset_has_its_real_screen():
    assert set(REAL) == set(PRESETS)


@pytest.mark.parametrize("preset", REAL)
@pytest.mark.parametrize("seed", [0, 1])
def test_looks_like_the_real_screen(preset, seed):
    real = REAL[preset]
    counts = make_counts(*real["shape"], preset=preset, random_state=seed).counts
    counts = counts.to_numpy(float, copy=True)
    zeros = (counts == 0).mean(axis=0)
    means = counts.mean(axis=0)
    counts[counts.argmax(axis=0), np.arange(counts.shape[1])] = np.nan
    left = np.nanmean(counts, axis=0)
    variance = (np.nanvar(counts, axis=0) / np.where(left > 0, left, 1))[means > 0]
    levels = real["levels"]
    assert_allclose(np.quantile(means, levels), real["mean"], rtol=0.35)
    assert_allclose(np.quantile(zeros, levels), real["zeros"], atol=0.08)
    low, middle, high = np.quantile(variance, levels) / real["variance"]
    assert 0.8 < low < 1.25
    assert 0.75 < middle < 1.4
    assert 0.4 < high < 2.0


def test_zeros_over_all_genes():
    counts = make_counts(2700, 3000, preset="pbmc", random_state=0).counts.to_numpy()
    assert_allclose((counts == 0).mean(), 0.974, atol=0.005)


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_make_the_distributions(preset):
    data = make_counts(300, 20, preset=preset, zero_inflation="~ size_factor", random_state=0)
    design = FormulaTransformer(**data.formulas).fit_transform(data.obs)
    predictors = {
        part: design[[f"{part}__{name}" for name in table.index]].to_numpy() @ table.to_numpy()
        for part, table in data.params.items()
    }
    log_mu = predictors["mean"] + np.log(data.obs["size_factor"].to_numpy())[:, None]
    assert ("donor_effects" in data) == (preset == "donors")
    if preset == "donors":
        log_mu += data.donor_effects.loc[data.obs["donor"]].to_numpy()
    assert isinstance(data.dist, ZINB)
    assert_allclose(data.dist.mu, np.exp(log_mu))
    assert_allclose(data.dist.r, np.exp(predictors["dispersion"]))
    assert_allclose(data.dist.pi, 1 / (1 + np.exp(-predictors["zero_inflation"])))
    assert data.counts.index.equals(data.obs.index)


@pytest.mark.parametrize("make", [int, np.random.RandomState, np.random.default_rng])
@pytest.mark.parametrize("preset", PRESETS)
def test_reproducible(preset, make):
    first, second = (make_counts(40, 5, preset=preset, random_state=make(1)) for _ in range(2))
    assert_frame_equal(first.obs, second.obs)
    assert_frame_equal(first.counts, second.counts)
    assert not make_counts(40, 5, preset=preset, random_state=make(2)).obs.equals(first.obs)


@pytest.mark.parametrize(
    ("preset", "formulas"),
    [
        ("pbmc", {"mean": None, "offset": None}),
        ("pancreas", {"mean": "~ pseudotime * cell_type", "dispersion": None}),
        ("perturbation", {"mean": "~ guide", "dispersion": "~ lane"}),
    ],
)
def test_means_stay_with_other_formulas(preset, formulas):
    usual = make_counts(200, 30, preset=preset, random_state=0)
    other = make_counts(200, 30, preset=preset, random_state=0, **formulas)
    for part, formula in formulas.items():
        usual_formula = "~ 1" if part != "offset" and formula is None else formula
        assert other.formulas[part] == usual_formula != usual.formulas[part]
    assert_allclose(other.dist.mu.mean(axis=0), usual.dist.mu.mean(axis=0))
    assert_frame_equal(other.obs, usual.obs)


@pytest.mark.parametrize("preset", PRESETS)
def test_effects_are_scaled(preset):
    none, once, twice = (
        make_counts(100, 30, preset=preset, effect_scale=scale, random_state=0).params["mean"]
        for scale in (0.0, 1.0, 2.0)
    )
    assert_array_equal(none.drop("Intercept"), 0)
    assert (once.drop("Intercept") != 0).any(axis=None)
    assert_allclose(twice.drop("Intercept"), 2 * once.drop("Intercept"))


def test_effects_do_not_depend_on_units():
    formulas = ["~ pseudotime", "~ {1000 * pseudotime}"]
    data = [make_counts(50, 5, preset="pancreas", mean=mean, random_state=0) for mean in formulas]
    assert_allclose(data[0].dist.mu, data[1].dist.mu)


def test_cells_of_blood():
    obs = make_counts(5000, 1, preset="pbmc", random_state=0).obs
    shares = obs["cell_type"].value_counts(normalize=True)
    assert_allclose(shares[["Naive CD4 T", "DC"]], [697 / 2638, 32 / 2638], rtol=0.3)
    depths = obs.groupby("cell_type", observed=True)["size_factor"].median()
    assert_allclose(depths["FCGR3A+ Mono"] / depths["B"], 1.75 / 0.8, rtol=0.15)


def test_clusters_lie_along_pseudotime():
    obs = make_counts(2000, 1, preset="pancreas", random_state=0).obs
    assert obs["pseudotime"].between(0, 1).all()
    means = obs.groupby("cell_type", observed=True)["pseudotime"].mean()
    assert_allclose(means, [0.04, 0.285, 0.59, 0.85], atol=0.03)


def test_guides_lower_their_gene_and_move_few_others():
    data = make_counts(8000, 72, preset="perturbation", random_state=0)
    guides = data.obs["guide"].cat.categories
    assert guides[0] == "non-targeting"
    assert len(guides) == 1 + 14 * 4
    assert 0.35 < (data.obs["guide"] == "non-targeting").mean() < 0.45
    effects = data.params["mean"].filter(like="guide", axis="index")
    others = []
    for i in range(14):
        own = effects.loc[[f"guide[T.gene_{i}-{k}]" for k in range(1, 5)]]
        assert own[f"gene_{i}"].between(-2, -0.5).all()
        # One pattern, by efficiencies between a half and all.
        assert np.linalg.matrix_rank(own) == 1
        ratio = own[f"gene_{i}"].max() / own[f"gene_{i}"].min()
        assert 0.5 <= ratio < 1
        others.append((own.drop(columns=f"gene_{i}").iloc[0] != 0).mean())
    assert 0.01 < np.mean(others) < 0.06
    # A guide is in few cells, and what it does is in the counts.
    assert data.obs["guide"].value_counts().median() < 200
    mean = data.counts["gene_5"].groupby(data.obs["guide"], observed=True).mean()
    lowered = mean.filter(like="gene_5-").mean() / mean["non-targeting"]
    assert lowered < 0.7


def test_donors_are_nested_in_conditions():
    data = make_counts(2000, 400, preset="donors", random_state=0)
    conditions = data.obs.groupby("donor", observed=True)["condition"].unique()
    assert [list(levels) for levels in conditions] == [["control"]] * 6 + [["case"]] * 6
    assert data.donor_effects.index.tolist() == data.obs["donor"].cat.categories.tolist()
    assert data.donor_effects.columns.equals(data.counts.columns)
    sd = np.sqrt((data.donor_effects**2).mean().mean())
    assert_allclose(sd, 0.32, atol=0.03)  # of deviations between 0.1 and 0.5
    moved = data.params["mean"].loc["condition[T.case]"] != 0
    assert 0.12 < moved.mean() < 0.28


def test_tests_that_assume_independent_cells_are_wrong_for_donors():
    data = make_counts(3000, 120, preset="donors", random_state=1)
    X = FormulaTransformer(**data.formulas).fit_transform(data.obs)
    model = NegBinRegressor().fit(X, data.counts)
    hypothesis = "condition[T.case] = 0"
    naive = wald_test(model, X, data.counts, hypothesis)
    by_donor = wald_test(
        model, X, data.counts, hypothesis, kind="cluster", groups=data.obs["donor"]
    )
    unmoved = data.params["mean"].loc["condition[T.case]"] == 0
    rejected = pd.DataFrame(
        {"naive": naive["p_value"] < 0.05, "by_donor": by_donor["p_value"] < 0.05}
    )[unmoved.to_numpy()].mean()
    assert rejected["naive"] > 0.2
    assert rejected["by_donor"] < rejected["naive"] / 2


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(1, 1), (7, 3)])
def test_few_cells_and_genes(preset, shape):
    data = make_counts(*shape, preset=preset, random_state=0)
    assert data.counts.shape == shape
    assert np.isfinite(data.dist.mu).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "pbcm"}, "None or one of 'pbmc', 'pancreas', .*, got 'pbcm'"),
        ({"preset": ["pbmc"]}, r"preset must be .* got \['pbmc'\]"),
        ({"preset": "pbmc", "mean": "~ 0 + cell_type"}, "mean='~ 0 . cell_type' has no intercept"),
        ({"preset": "donors", "dispersion": "~ donor - 1"}, "dispersion=.* no intercept.*'donors'"),
        ({"preset": "pbmc", "mean": "~ pseudotime"}, "X has no column 'pseudotime'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_counts(30, 4, **arguments)
