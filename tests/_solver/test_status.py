from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.exceptions import ConvergenceWarning

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm._solver.status import (
    Endpoints,
    Status,
    count_statuses,
    fit_statuses,
    flat_directions,
    undetermined,
)

# Constructed information: two coordinates of the mean, one of the size, one of the inflation

CURVED = 50.0
RANKS = {"mean": 2, "dispersion": 1, "zero_inflation": 1}
CLUMPED = {"poisson_gap": -2.0, "inflation_gain": 50.0}
POISSON = {"poisson_gap": 11.0, "inflation_gain": 50.0}
NO_ZEROS = {"poisson_gap": -0.5, "inflation_gain": 1e-6}
NEITHER = {"poisson_gap": 11.0, "inflation_gain": 1e-6}
NO_SIZE = {"poisson_gap": 11.0, "inflation_gain": 50.0, "lowest_size": -20.0}


def endpoints(information, coordinates=0.0, ranks=RANKS, **known):
    """Genes with the same evidence, except for what is given."""
    information = np.asarray(information, float)
    n_genes, n_params, _ = information.shape
    evidence = {
        "converged": True,
        "n_positive": 300,
        "poisson_gap": -2.0,
        "lowest_size": 0.0,
        "largest_inflation": 20.0,
        "inflation_gain": 50.0,
    } | known
    return Endpoints(
        flat=flat_directions(information, np.full((n_genes, n_params), float(coordinates))),
        ranks=ranks,
        flat_levels=np.zeros((n_genes, n_params), dtype=bool),
        **{name: np.broadcast_to(value, n_genes) for name, value in evidence.items()},
    )


def status_of(curvature, evidence=CLUMPED, **known):
    (status,) = fit_statuses(endpoints(np.diag(curvature)[None], **(evidence | known)))
    return status


@pytest.mark.parametrize(
    ("curvature", "evidence", "expected"),
    [
        ([CURVED, CURVED, CURVED, CURVED], CLUMPED, Status.CONVERGED),
        ([CURVED, CURVED, CURVED, CURVED], NEITHER, Status.CONVERGED),
        ([CURVED, CURVED, 1e-9, CURVED], POISSON, Status.POISSON),
        ([CURVED, CURVED, 1e-9, CURVED], CLUMPED, Status.NOT_IDENTIFIED),
        ([CURVED, CURVED, 1e-9, CURVED], NO_SIZE, Status.SEPARATED),
        ([CURVED, CURVED, CURVED, 1e-9], NO_ZEROS, Status.NO_INFLATION),
        ([CURVED, CURVED, CURVED, 1e-9], CLUMPED, Status.SEPARATED),
        ([CURVED, CURVED, 1e-9, 1e-9], NEITHER, Status.POISSON_NO_INFLATION),
        ([CURVED, CURVED, 1e-9, 1e-9], NO_ZEROS, Status.NOT_IDENTIFIED),
        ([CURVED, CURVED, 1e-9, 1e-9], POISSON, Status.SEPARATED),
        ([CURVED, 1e-9, CURVED, CURVED], CLUMPED, Status.SEPARATED),
        ([CURVED, 1e-9, 1e-9, 1e-9], NEITHER, Status.SEPARATED),
        ([CURVED, -1e-9, CURVED, CURVED], CLUMPED, Status.SEPARATED),
    ],
)
def test_a_flat_direction_is_attributed_to_its_part(curvature, evidence, expected):
    assert status_of(curvature, evidence) is expected
    assert status_of(curvature, evidence, converged=False) is Status.ITERATION_LIMIT
    assert status_of(curvature, evidence, n_positive=0) is Status.ALL_ZERO


def test_flatness_is_judged_by_the_unit_and_by_rounding():
    assert status_of([CURVED, CURVED, 1e-3, CURVED], POISSON) is Status.CONVERGED
    assert status_of([CURVED, CURVED, 1e-5, CURVED], POISSON) is Status.POISSON
    # Beside a curvature of 1e16 one of 1e-1 is rounding.
    assert status_of([1e16, CURVED, CURVED, CURVED], POISSON) is Status.SEPARATED


def test_a_steep_predictor_with_a_finite_maximum_is_not_flat():
    """A unit of a predictor that spans hundreds of them is little."""
    information = np.diag([CURVED, 1e-5, CURVED, CURVED])[None]
    assert fit_statuses(endpoints(information, coordinates=3.0)) == [Status.SEPARATED]
    assert fit_statuses(endpoints(information, coordinates=300.0)) == [Status.CONVERGED]


def test_few_counts_are_the_reason_where_there_are_no_more_than_coefficients():
    flat_size = [CURVED, CURVED, 1e-9, CURVED]
    assert status_of(flat_size, CLUMPED, n_positive=4) is Status.TOO_FEW_COUNTS
    assert status_of(flat_size, CLUMPED, n_positive=5) is Status.NOT_IDENTIFIED
    assert status_of(flat_size, POISSON, n_positive=4) is Status.POISSON


def test_a_flat_inflation_is_infinite_only_where_its_odds_are_large():
    flat_inflation = [CURVED, CURVED, CURVED, 1e-5]
    assert status_of(flat_inflation, largest_inflation=20.0) is Status.SEPARATED
    assert status_of(flat_inflation, largest_inflation=4.0) is Status.CONVERGED
    assert status_of(flat_inflation, NO_ZEROS, largest_inflation=4.0) is Status.NO_INFLATION


def test_a_model_without_zero_inflation():
    ranks = {"mean": 1, "dispersion": 1}

    def status(*curvature):
        return fit_statuses(endpoints(np.diag(curvature)[None], ranks=ranks, poisson_gap=11.0))

    assert status(CURVED, 1e-9) == [Status.POISSON]
    assert status(1e-9, CURVED) == [Status.SEPARATED]
    assert status(CURVED, CURVED) == [Status.CONVERGED]


def test_a_direction_across_coordinates_of_one_part_is_attributed_to_it():
    """Five coordinates of the mean share a flat direction, each with a small share."""
    information = CURVED * np.eye(6)[None]
    information[0, :5, :5] -= CURVED / 5  # flat along the five's sum
    at = endpoints(information, ranks={"mean": 5, "dispersion": 1}, poisson_gap=11.0)
    assert fit_statuses(at) == [Status.SEPARATED]


def test_genes_are_judged_independently():
    information = np.stack(
        [np.diag([CURVED, CURVED]), np.diag([CURVED, 1e-9]), np.diag([CURVED, CURVED])]
    )
    at = endpoints(
        information,
        ranks={"mean": 1, "dispersion": 1},
        poisson_gap=np.array([0.0, 12.0, 0.0]),
        converged=np.array([True, True, False]),
    )
    assert fit_statuses(at) == [Status.CONVERGED, Status.POISSON, Status.ITERATION_LIMIT]


def test_only_coefficients_that_a_flat_direction_moves_are_undetermined():
    """Treatment contrasts of three groups, of which the second has no counts."""
    to_coef = np.array([[1.0, 0, 0], [-1, 1, 0], [-1, 0, 1]])
    information = np.diag([CURVED, 1e-9, CURVED])[None]
    flat = flat_directions(np.repeat(information, 2, axis=0), np.zeros((2, 3)))
    flat[1] = 0  # the other gene has counts
    assert_array_equal(undetermined(flat, to_coef), [[False, False], [True, False], [False, False]])
    # A column that has no coefficient of its own is not left open by the counts.
    assert not undetermined(flat, np.zeros((1, 3))).any()


def test_values_of_statuses():
    assert {str(status) for status in Status} == {
        "converged",
        "Poisson boundary",
        "no zero inflation",
        "Poisson boundary, no zero inflation",
        "separated",
        "all zero",
        "too few counts",
        "not identified",
        "iteration limit",
    }
    assert [s for s in Status if not s.reached_maximum] == [Status.ITERATION_LIMIT]
    assert {s for s in Status if s.needs_warning} == {
        Status.SEPARATED,
        Status.ALL_ZERO,
        Status.TOO_FEW_COUNTS,
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
        "no counts in a group": np.where(GROUP == 1, 0, clumped()),
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
            NegBinRegressor(), ["clumped", "no counts in a group", "one cell", "all zero"], **GROUPS
        )
    assert words == {
        "clumped": "converged",
        "no counts in a group": "separated",
        "one cell": "separated",
        "all zero": "all zero",
    }
    (warning,) = record
    message = str(warning.message)
    assert "Of 4 genes" in message
    assert "2 separated (no counts in a group, one cell)" in message
    assert "1 all zero (all zero)" in message


def test_a_size_that_vanishes_where_a_gene_has_no_counts():
    """Without a mean of its own, the group without counts is explained by a size of zero."""
    with pytest.warns(ConvergenceWarning, match="1 separated"):
        words = statuses(
            NegBinRegressor(),
            ["clumped", "no counts in a group"],
            **LINE,
            dispersion=["Intercept", "group"],
        )
    assert words == {"clumped": "converged", "no counts in a group": "separated"}


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
def test_a_group_without_counts_is_predicted_without_counts(model):
    frame = design(**GROUPS)
    with pytest.warns(ConvergenceWarning, match="separated"):
        model.fit(frame, GENES[["no counts in a group"]])
    mean = model.predict(frame)[:, 0]
    assert mean[GROUP == 1].max() < 1e-6
    observed = GENES["no counts in a group"].to_numpy()
    np.testing.assert_allclose(mean[GROUP == 0].mean(), observed[GROUP == 0].mean(), rtol=1e-3)


def test_the_summary_names_divergent_coefficients():
    """Of the coefficients of the mean, only those that the silence touches."""
    genes = ["clumped", "under-dispersed", "no counts in a group", "all zero"]
    with pytest.warns(ConvergenceWarning):
        model = NegBinRegressor().fit(design(**GROUPS), GENES[genes])
    table = model.summary()
    assert list(table.index) == genes
    assert_array_equal(table["status"], model.status_)
    assert_array_equal(table["log_likelihood"], model.log_likelihood_)
    assert_array_equal(table["n_iter"], model.n_iter_)
    assert table["undetermined"].to_dict() == {
        "clumped": "",
        "under-dispersed": "dispersion__Intercept",
        "no counts in a group": "mean__group",
        "all zero": "mean__Intercept, mean__group, dispersion__Intercept",
    }
    assert model.undetermined_["mean"].loc["group", "no counts in a group"]
    assert not model.undetermined_["mean"]["clumped"].any()


def test_a_reference_group_without_counts_affects_all_contrasts():
    frame = design(**GROUPS).assign(mean__group=1 - GROUP)
    with pytest.warns(ConvergenceWarning):
        table = NegBinRegressor().fit(frame, GENES[["no counts in a group"]]).summary()
    assert table["undetermined"].item() == "mean__Intercept, mean__group"


def test_aliased_columns_are_named_and_no_reason_to_warn():
    frame = design(**GROUPS)
    frame["mean__other group"] = 1 - GROUP
    frame["mean__empty"] = 0.0
    model = NegBinRegressor().fit(frame, GENES[["clumped"]])
    assert list(model.status_) == ["converged"]
    assert {part: list(names) for part, names in model.aliased_.items()} == {
        "mean": ["Intercept", "group", "other group", "empty"],
        "dispersion": [],
    }
    assert model.params_["mean"].loc["empty"].item() == 0
    assert model.summary()["undetermined"].item() == ""


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


def test_every_status_has_a_meaning():
    meanings = [status.meaning for status in Status]
    assert all(meanings)
    assert len(set(meanings)) == len(Status)


def test_statuses_are_counted_with_the_first_names():
    statuses = np.array(["separated", "converged", *["separated"] * 3], dtype=object)
    names = np.array([*"abcde"], dtype=object)
    assert list(count_statuses(statuses, names)) == [
        (Status.CONVERGED, 1, "b"),
        (Status.SEPARATED, 4, "a, c, d, ..."),
    ]
    assert [named for *_, named in count_statuses(statuses, names, 4)] == ["b", "a, c, d, e"]


def test_every_status_is_explained_on_the_page_for_it():
    lines = (Path(__file__).parents[2] / "doc" / "troubleshooting.rst").read_text().splitlines()
    titles = {line for line, below in pairwise(lines) if set(below) == {"~"}}
    assert titles == {f"``{status}``" for status in Status}
