import itertools
import math

import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood.objective import Evaluation
from sc_glm._solver import trust_region
from sc_glm._solver.trust_region import maximize


class Toy:
    """Functions of few variables, one per gene, that count how often each is evaluated."""

    def __init__(self, *functions):
        self.functions = functions
        self.passes = [0] * len(functions)
        self.undefined = [0] * len(functions)

    def evaluate(self, theta, genes):
        assert len(theta) == len(genes)
        rows = []
        for x, gene in zip(theta.double(), genes.tolist(), strict=True):
            function = self.functions[gene]
            value = function(x)
            gradient = torch.autograd.functional.jacobian(function, x)
            hessian = torch.autograd.functional.hessian(function, x)
            self.passes[gene] += 1
            self.undefined[gene] += not (value.isfinite() and hessian.isfinite().all())
            rows.append((value, gradient, hessian, value.abs()))
        return Evaluation(*(torch.stack(x).to(theta) for x in zip(*rows, strict=True)))


def vector(*x):
    return torch.tensor(x, dtype=torch.float64)


def maximized(*functions, start, max_iter=100, tol=1e-9):
    toy = Toy(*functions)
    starts = torch.stack([vector(*x) for x in start])
    solution = maximize(toy, starts, max_iter=max_iter, tol=tol)
    assert toy.passes == solution.n_iter.tolist()
    assert (solution.n_iter <= max_iter).all()
    return toy, solution


def bowl(x):
    return 3.0 - (x[0] - 7) ** 2 - 4 * (x[1] + 9) ** 2 - (x[0] - 7) * (x[1] + 9)


def valley(x):
    """Rosenbrock's."""
    return -((1 - x[0]) ** 2) - 100 * (x[1] - x[0] ** 2) ** 2


def ridge(x):
    """Neither concave nor convex except near its two maxima, (1, 0) and (-1, 0)."""
    return -((x[0] ** 2 - 1) ** 2) - x[1] ** 2 * torch.exp(0.3 * x[0])


def logarithm(x):
    """Undefined below zero, with its maximum at 1."""
    return x[0].log() - x[0] - x[1] ** 2


def dome(x):
    """Concave, and straight far from its maximum of zero at (4, -4)."""
    return -torch.log(torch.cosh(x - vector(4, -4))).sum() - 0.1 * (x.sum()) ** 2


def recession(x):
    """A group without counts: the mean's logarithm falls one unit per Newton step."""
    return -1e4 * x[0].exp() - (x[1] - 1) ** 2


@pytest.mark.parametrize(
    ("function", "start", "maximum"),
    [
        (bowl, (0, 0), (7, -9)),
        (valley, (-1.2, 1), (1, 1)),
        (valley, (-5, 20), (1, 1)),
        (ridge, (0.4, 2), (1, 0)),
        (ridge, (-0.2, -3), (-1, 0)),
        (logarithm, (6, 1), (1, 0)),
        (logarithm, (1e-3, 1), (1, 0)),
    ],
)
def test_finds_the_maximum(function, start, maximum):
    _, solution = maximized(function, start=[start])
    assert solution.converged.all()
    assert_allclose(solution.theta[0], maximum, atol=1e-4)
    assert_allclose(solution.value[0], function(vector(*maximum)), atol=1e-9)
    exact = torch.autograd.functional.hessian(function, vector(*maximum))
    assert_allclose(solution.hessian[0], exact, rtol=1e-2, atol=1e-2)


def test_a_quadratic_takes_one_step_once_in_reach():
    _, near = maximized(bowl, start=[(6, -8)])
    assert near.n_iter.tolist() == [2]
    assert_allclose(near.theta[0], (7, -9), rtol=1e-12)
    _, far = maximized(bowl, start=[(-43, 41)])
    assert far.n_iter[0] <= 8
    assert_allclose(far.theta[0], (7, -9), rtol=1e-12)


def test_starting_at_the_maximum_costs_one_pass():
    _, solution = maximized(bowl, start=[(7, -9)])
    assert solution.n_iter.tolist() == [1]
    assert solution.converged.all()
    assert solution.value[0] == 3


def test_undefined_points_are_rejected():
    toy, solution = maximized(logarithm, start=[(5, 0)])
    assert toy.undefined[0] > 0
    assert solution.theta.isfinite().all()
    assert solution.hessian.isfinite().all()
    assert solution.converged.all()


def without_curvature(x):
    """Higher than the bowl's maximum beyond the wall, but without a finite Hessian."""
    return torch.where(x[0] > 6.5, 5 + 0 * torch.log(6.5 - x[0]), bowl(x))


def infinitely_high(x):
    return bowl(x) + torch.where(x[0] > 6.5, torch.inf, 0.0)


@pytest.mark.parametrize("function", [without_curvature, infinitely_high])
def test_a_gain_that_is_not_finite_is_none(function):
    toy, solution = maximized(function, start=[(0, 0)])
    assert toy.undefined[0] > 0
    assert solution.theta[0, 0] <= 6.5
    assert_allclose(solution.value[0], bowl(solution.theta[0]), rtol=1e-6)
    assert solution.hessian.isfinite().all()


def test_a_maximum_at_infinity_is_reached_in_a_few_passes(monkeypatch):
    toy, solution = maximized(recession, start=[(3, 0)], tol=1e-7)
    assert solution.converged.all()
    assert solution.value[0] > -1e-6
    assert solution.theta[0, 0] < math.log(1e-10)
    assert_allclose(solution.theta[0, 1], 1, atol=1e-3)
    monkeypatch.setattr(trust_region, "_MAX_STEP_LENGTH", 1.0)
    unit, _ = maximized(recession, start=[(3, 0)], tol=1e-7)
    assert unit.passes[0] > 25
    assert toy.passes[0] <= 12


def test_extrapolation_does_not_repeat_corrections():
    """The first step is to infinity, and from a mean that is off its maximum."""

    def shelf(x):
        return -0.01 * torch.exp(-x[0]) - 20 * (x[1] - 0.5) ** 2

    toy, solution = maximized(shelf, start=[(0, 0.2)], tol=1e-6)
    assert toy.passes[0] <= 5
    assert solution.value[0] > -1e-7


def test_a_saddle_is_not_taken_for_a_maximum():
    _, solution = maximized(ridge, start=[(0, 1)])
    at_maximum = abs(abs(solution.theta[0, 0]) - 1) < 1e-4
    assert at_maximum or not solution.converged[0]


def test_a_minimum_is_left():
    _, solution = maximized(lambda x: torch.cos(x).sum(), start=[(3.14, -3.14)])
    assert_allclose(solution.value, [2.0], atol=1e-9)
    assert solution.converged.all()


def test_a_flat_direction_is_not_followed():
    _, solution = maximized(lambda x: -((x[0] - 1) ** 2) + 0 * x[1], start=[(4, 0.3)])
    assert solution.converged.all()
    assert_allclose(solution.theta[0], (1, 0.3), atol=1e-4)


FUNCTIONS = (bowl, valley, ridge, logarithm, recession)
STARTS = [(0, 0), (-1.2, 1), (0.1, 2), (6, 1), (3, 0)]


def test_genes_do_not_influence_each_other():
    _, together = maximized(*FUNCTIONS, start=STARTS)
    assert len(set(together.n_iter.tolist())) > 3
    for g, (function, start) in enumerate(zip(FUNCTIONS, STARTS, strict=True)):
        _, alone = maximized(function, start=[start])
        assert alone.n_iter[0] == together.n_iter[g]
        for name in ("theta", "value", "hessian"):
            ours, theirs = getattr(together, name)[g], getattr(alone, name)[0]
            assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10, err_msg=name)


def test_a_gene_that_is_undefined_throughout_does_not_harm_the_others():
    def undefined(x):
        return logarithm(x) if x[0] == 6 else logarithm(x) * math.nan

    _, solution = maximized(undefined, bowl, start=[(6, 1), (0, 0)])
    assert solution.converged.tolist() == [False, True]
    assert solution.theta.isfinite().all()
    assert_allclose(solution.theta[0], (6, 1))
    assert_allclose(solution.theta[1], (7, -9), rtol=1e-10)


def test_a_gene_that_is_undefined_at_its_start_does_not_harm_the_others():
    def undefined(x):
        return math.nan * (x**3).sum()

    _, solution = maximized(undefined, bowl, start=[(1, 1, 1), (0, 0, 0)])
    assert solution.converged.tolist() == [False, True]
    assert_allclose(solution.theta[1], (7, -9, 0), rtol=1e-10)


@pytest.mark.parametrize("max_iter", [1, 2, 5])
def test_the_iteration_limit_is_kept_and_reported(max_iter):
    toy, solution = maximized(valley, bowl, start=[(-1.2, 1), (7, -9)], max_iter=max_iter)
    assert toy.passes == [max_iter, 1]
    assert solution.converged.tolist() == [False, True]
    for g, function in enumerate((valley, bowl)):
        assert_allclose(solution.value[g], function(solution.theta[g]), rtol=1e-12)


def test_the_value_never_falls():
    """A longer run never ends below a shorter one."""
    values = [maximized(valley, start=[(-1.2, 1)], max_iter=k)[1].value[0] for k in range(1, 40)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))
    assert values[0] == valley(vector(-1.2, 1))
    assert values[-1] > -1e-9


def test_a_looser_tolerance_takes_fewer_passes():
    loose, tight = (maximized(dome, start=[(0, 0)], tol=tol) for tol in (0.5, 1e-12))
    assert loose[0].passes[0] < tight[0].passes[0]
    assert loose[1].value[0] > -0.5
    assert tight[1].value[0] > -1e-12


def test_the_start_is_left_as_it_is():
    start = torch.stack([vector(0, 0)])
    maximize(Toy(bowl), start, max_iter=50, tol=1e-8)
    assert_allclose(start, [[0, 0]])


def test_single_precision_stops_at_its_own_rounding():
    """At a value of 1e4, single precision does not resolve gains below one thousandth."""
    toy = Toy(lambda x: dome(x) - 1e4)
    start = torch.zeros(1, 2)
    solution = maximize(toy, start, max_iter=100, tol=1e-9)
    assert solution.theta.dtype == torch.float32
    assert solution.converged.all()
    assert toy.passes[0] < 20
    assert dome(solution.theta[0].double()) > -0.02


def test_a_run_that_cannot_reach_the_cutoff_is_given_up():
    """The maxima of valley and dome are zero: a cutoff of one is out of reach, minus one is not."""
    toy = Toy(valley, dome)
    start = torch.stack([vector(-1, 1), vector(0, 0)])
    free = maximize(toy, start, max_iter=100, tol=1e-9)
    reachable = maximize(toy, start, max_iter=100, tol=1e-9, cutoff=vector(-1, -1))
    assert torch.equal(reachable.theta, free.theta)
    assert torch.equal(reachable.n_iter, free.n_iter)
    out_of_reach = maximize(toy, start, max_iter=100, tol=1e-9, cutoff=vector(1, 1))
    assert (out_of_reach.n_iter < free.n_iter).all()
    assert not out_of_reach.converged.any()
    assert (out_of_reach.value < 1).all()
