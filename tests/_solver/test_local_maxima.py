import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood.family import NegBinFamily
from sc_glm._solver import initial_values
from sc_glm._solver.candidate_starts import intercept_basis
from sc_glm._solver.local_maxima import LocalMaxima, Screening
from tests.problems import LINE, build_problem, simulate


@pytest.fixture(scope="module")
def counts():
    return simulate(30, np.random.default_rng(3))


def test_an_unfinished_run_is_continued_together_with_other_starts(counts):
    problem = build_problem(NegBinFamily(), counts, LINE, LINE)
    screening = Screening(problem, problem.block(), 100)
    start = initial_values.moments(problem)
    start = problem.change_bases(start, [problem.bases[0], intercept_basis(problem)], problem.bases)
    model = screening.objective(NegBinFamily(), problem.bases)
    whole, best = screening.maximize(model, start), screening.maximize(model, start, 3)
    assert best.unfinished.any()
    assert (best.value < whole.value - 0.1)[best.unfinished].any()
    nowhere = torch.zeros_like(best.unfinished)
    screening.try_starts(best, model, [start - 5.0], nowhere)
    assert not best.unfinished.any()
    assert_allclose(best.value, whole.value, atol=1e-2)
    assert best.second_value.isneginf().all()  # one run is not two local maxima


def test_the_two_highest_distinct_maxima_are_kept():
    maxima = LocalMaxima.at(torch.zeros(1, 1), torch.zeros(1))
    gene = torch.tensor([0])
    values = [-3.0, 0.01, -1.0, 2.0, -2.0]  # the second is the first maximum again
    for value in values:
        maxima.add(gene, torch.full((1, 1), value), torch.tensor([value]))
    assert maxima.value.tolist() == maxima.theta[:, 0].tolist() == [2.0]
    assert_allclose(maxima.second_value, [0.01])
    assert_allclose(maxima.second_theta[:, 0], [0.01])
