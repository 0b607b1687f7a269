import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm.status import Status, judge

# Constructed information: two coordinates of the mean, one of the size, one of the inflation

FIRM = 50.0
POISSON = {"mean": 1.0, "dispersion": 12.0, "zero_inflation": 0.0}
CLUMPED = {"mean": 1.0, "dispersion": -1.0, "zero_inflation": 0.0}
NO_ZEROS = {"mean": 1.0, "dispersion": 0.5, "zero_inflation": -15.0}
NEITHER = {"mean": 1.0, "dispersion": 12.0, "zero_inflation": -15.0}


def word(curvature, highest=CLUMPED, *, converged=True, ranks=(2, 1, 1)):
    (status,) = judge(
        np.diag(np.asarray(curvature, float))[None],
        np.array([converged]),
        {part: np.array([top]) for part, top in highest.items()},
        ranks,
    )
    return status


@pytest.mark.parametrize(
    ("curvature", "highest", "expected"),
    [
        ([FIRM, FIRM, FIRM, FIRM], CLUMPED, Status.CONVERGED),
        ([FIRM, FIRM, FIRM, FIRM], NEITHER, Status.CONVERGED),
        ([FIRM, FIRM, 1e-9, FIRM], POISSON, Status.POISSON),
        ([FIRM, FIRM, 1e-9, FIRM], CLUMPED, Status.NOT_IDENTIFIED),
        ([FIRM, FIRM, FIRM, 1e-9], NO_ZEROS, Status.NO_INFLATION),
        ([FIRM, FIRM, FIRM, 1e-9], CLUMPED, Status.SEPARATED),
        ([FIRM, FIRM, 1e-9, 1e-9], NEITHER, Status.POISSON_NO_INFLATION),
        ([FIRM, FIRM, 1e-9, 1e-9], NO_ZEROS, Status.NOT_IDENTIFIED),
        ([FIRM, FIRM, 1e-9, 1e-9], POISSON, Status.SEPARATED),
        ([FIRM, 1e-9, FIRM, FIRM], CLUMPED, Status.SEPARATED),
        ([FIRM, 1e-9, 1e-9, 1e-9], NEITHER, Status.SEPARATED),
        ([FIRM, -1e-9, FIRM, FIRM], CLUMPED, Status.SEPARATED),
    ],
)
def test_a_flat_direction_is_laid_to_its_part(curvature, highest, expected):
    assert word(curvature, highest) is expected
    assert word(curvature, highest, converged=False) is Status.ITERATION_LIMIT


def test_flatness_is_judged_by_the_unit_and_by_rounding():
    assert word([FIRM, FIRM, 1e-3, FIRM], POISSON) is Status.CONVERGED
    assert word([FIRM, FIRM, 1e-5, FIRM], POISSON) is Status.POISSON
    # Beside a curvature of 1e16 one of 1e-1 is rounding.
    assert word([1e16, FIRM, FIRM, FIRM], POISSON) is Status.SEPARATED


def test_a_model_without_zero_inflation():
    highest = {"mean": 1.0, "dispersion": 12.0}
    assert word([FIRM, 1e-9], highest, ranks=(1, 1)) is Status.POISSON
    assert word([1e-9, FIRM], highest, ranks=(1, 1)) is Status.SEPARATED
    assert word([FIRM, FIRM], highest, ranks=(1, 1)) is Status.CONVERGED


def test_a_direction_across_coordinates_of_one_part_counts_whole():
    """Five coordinates of the mean share a flat direction, each too little to tell by itself."""
    information = FIRM * np.eye(6)[None]
    information[0, :5, :5] -= FIRM / 5  # flat along the five's sum
    highest = {"mean": np.array([1.0]), "dispersion": np.array([12.0])}
    assert judge(information, np.array([True]), highest, (5, 1)) == [Status.SEPARATED]


def test_genes_are_judged_one_by_one():
    information = np.stack([np.diag([FIRM, FIRM]), np.diag([FIRM, 1e-9]), np.diag([FIRM, FIRM])])
    highest = {"mean": np.zeros(3), "dispersion": np.array([0.0, 12.0, 0.0])}
    statuses = judge(information, np.array([True, True, False]), highest, (1, 1))
    assert statuses == [Status.CONVERGED, Status.POISSON, Status.ITERATION_LIMIT]


def test_words():
    assert {str(status) for status in Status} == {
        "converged",
        "Poisson boundary",
        "no zero inflation",
        "Poisson boundary, no zero inflation",
        "separated",
        "all zero",
        "not identified",
        "iteration limit",
    }
    assert [s for s in Status if not s.reached_maximum] == [Status.ITERATION_LIMIT]
    assert {s for s in Status if s.worth_warning} == {
        Status.SEPARATED,
        Status.ALL_ZERO,
        Status.NOT_IDENTIFIED,
        Status.ITERATION_LIMIT,
    }


# Fitted genes

N_CELLS = 400
RNG = np.random.default_rng(2)
X = RNG.normal(size=N_CELLS)
GROUP = (np.arange(N_CELLS) % 2).astype(float)
MU = np.exp(1 + 0.3 * X)


def clumped(mu=MU):
    return RNG.negative_binomial(2, 2 / (2 + mu))


def some_structural_zeros(y):
    return np.where(RNG.uniform(size=N_CELLS) < 0.4, 0, y)


GENES = pd.DataFrame(
    {
        "clumped": clumped(),
        "under-dispersed": RNG.binomial(8, 0.5, N_CELLS),
        "constant": np.full(N_CELLS, 3),
        "binary": RNG.integers(0, 2, N_CELLS),
        "silent in a group": np.where(GROUP == 1, 0, clumped()),
        "one cell": (np.arange(N_CELLS) == 7).astype(int),
        "all zero": np.zeros(N_CELLS, dtype=int),
        "inflated": some_structural_zeros(clumped(3 * MU)),
        "inflated, under-dispersed": some_structural_zeros(RNG.binomial(8, 0.5, N_CELLS)),
        "no zeros": 1 + clumped(),
    }
)


def design(**parts):
    columns = {"Intercept": np.ones(N_CELLS), "x": X, "group": GROUP}
    return pd.DataFrame(
        {f"{p}__{name}": columns[name] for p, names in parts.items() for name in names}
    )


def statuses(model, genes, **parts):
    """Fit genes side by side; say how each ended, after all that is to be true of any ending."""
    y = GENES[genes]
    frame = design(**parts)
    model.fit(frame, y)
    for table in model.params_.values():
        assert np.isfinite(table.to_numpy()).all()
    assert np.isfinite(model.log_likelihood_).all()
    assert model.converged_.all()
    params = model.predict_params(frame)
    assert all(np.isfinite(values).all() for values in params.values())
    assert np.isfinite(model.log_prob(frame, y)).all()
    return dict(zip(genes, model.status_, strict=True))


LINE = {"mean": ["Intercept", "x"]}
GROUPS = {"mean": ["Intercept", "group"]}


def test_negative_binomial_genes():
    words = statuses(
        NegBinRegressor(),
        ["clumped", "under-dispersed", "constant", "binary", "inflated", "no zeros"],
        **LINE,
    )
    assert words == {
        "clumped": "converged",
        "under-dispersed": "Poisson boundary",
        "constant": "Poisson boundary",
        "binary": "Poisson boundary",
        "inflated": "converged",
        "no zeros": "converged",
    }


def test_genes_with_coefficients_at_infinity_are_warned_of():
    with pytest.warns(ConvergenceWarning) as record:
        words = statuses(
            NegBinRegressor(), ["clumped", "silent in a group", "one cell", "all zero"], **GROUPS
        )
    assert words == {
        "clumped": "converged",
        "silent in a group": "separated",
        "one cell": "separated",
        "all zero": "all zero",
    }
    (warning,) = record
    message = str(warning.message)
    assert "Of 4 genes" in message
    assert "2 separated (silent in a group, one cell)" in message
    assert "1 all zero (all zero)" in message


def test_a_size_that_no_count_tells():
    """Where the gene is silent by group, any size of the silent group does."""
    with pytest.warns(ConvergenceWarning, match="1 not identified"):
        words = statuses(
            NegBinRegressor(),
            ["clumped", "silent in a group"],
            **LINE,
            dispersion=["Intercept", "group"],
        )
    assert words == {"clumped": "converged", "silent in a group": "not identified"}


def test_zero_inflated_genes():
    words = statuses(
        ZINBRegressor(),
        [
            "inflated",
            "inflated, under-dispersed",
            "no zeros",
            "under-dispersed",
            "constant",
            "binary",
        ],
        **LINE,
    )
    assert words == {
        "inflated": "converged",
        "inflated, under-dispersed": "Poisson boundary",
        "no zeros": "no zero inflation",
        "under-dispersed": "Poisson boundary, no zero inflation",
        "constant": "Poisson boundary, no zero inflation",
        "binary": "Poisson boundary, no zero inflation",
    }


@pytest.mark.parametrize("model", [NegBinRegressor(), ZINBRegressor()])
def test_a_poisson_gene_is_predicted_as_one(model):
    """At the boundary the variance is the mean."""
    frame = design(**LINE)
    y = RNG.binomial(8, 0.5, (N_CELLS, 1))
    model.fit(frame, y)
    assert "Poisson" in model.status_[0]
    distribution = model.predict_dist(frame)
    np.testing.assert_allclose(distribution.var(), distribution.mean(), rtol=1e-2)
    np.testing.assert_allclose(distribution.mean().mean(), y.mean(), rtol=1e-4)


@pytest.mark.parametrize("model", [NegBinRegressor(), ZINBRegressor()])
def test_a_silent_group_is_predicted_silent(model):
    frame = design(**GROUPS)
    with pytest.warns(ConvergenceWarning, match="separated"):
        model.fit(frame, GENES[["silent in a group"]])
    mean = model.predict(frame)[:, 0]
    assert mean[GROUP == 1].max() < 1e-6
    observed = GENES["silent in a group"].to_numpy()
    np.testing.assert_allclose(mean[GROUP == 0].mean(), observed[GROUP == 0].mean(), rtol=1e-3)


def test_the_iteration_limit_is_warned_of():
    model = NegBinRegressor(max_iter=2)
    with pytest.warns(ConvergenceWarning, match=r"2 iteration limit \(clumped, inflated\)"):
        model.fit(design(**LINE), GENES[["clumped", "inflated"]])
    assert list(model.status_) == ["iteration limit"] * 2
    assert not model.converged_.any()
    assert list(model.n_iter_) == [2, 2]


@pytest.mark.parametrize("shift", [-100.0, 100.0])
def test_a_shifted_offset_changes_no_status(shift):
    """The size is compared with the mean itself, of which the offset is a part."""
    y = np.random.default_rng(0).binomial(12, 0.7, size=(200, 3))
    X = pd.DataFrame({"mean__Intercept": np.ones(200), "offset__o": np.full(200, shift)})
    model = NegBinRegressor().fit(X, y)
    assert list(model.status_) == ["Poisson boundary"] * 3
