"""Log-mass, score and Hessian against multiple precision and against automatic differentiation."""

import itertools
import math
from functools import cache, partial

import mpmath as mp
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood.family import NegBinFamily, ZINBFamily, gamma_ratio, pairs, positive_counts

FAMILIES = [NegBinFamily(), ZINBFamily()]
SIZES = [10.0**k for k in range(-8, 13, 2)]
MEANS = [10.0**k for k in (-12, -9, -6, -4, -2, 0, 1, 2, 4, 6, 9)]
COUNTS = [0, 1, 2, 7, 50, 1000, 10**6]
INFLATIONS = ["1e-12", "0.01", "0.5", "0.99", "0.999999999999"]
POINTS = [(math.log(mu), math.log(r)) for r, mu in itertools.product(SIZES, MEANS)]

# Precision of the reference: third differences over steps of 1e-40 still leave 60 digits.
DIGITS = 220
STEP = mp.mpf(10) ** -40
FLOOR = 1e-98  # what such differences make of rounding at 220 digits


# The reference: textbook formulas, whose cancellation 220 digits do not feel.


@cache
def log_gammas(y, rho):
    r = mp.exp(rho)
    return mp.loggamma(y + r) - mp.loggamma(r) - mp.loggamma(y + 1)


def nb_log_mass(y, eta, rho):
    r = mp.exp(rho)
    log1p = mp.log1p(mp.exp(eta - rho))
    return log_gammas(y, rho) - r * log1p + y * (eta - rho - log1p)


def zero_log_mass(eta, rho, zeta):
    inflated = mp.exp(zeta)
    return mp.log((inflated + mp.exp(nb_log_mass(0, eta, rho))) / (1 + inflated))


def derivatives(function, point, order):
    """All partial derivatives up to ``order`` by finite differences in multiple precision."""
    point = [mp.mpf(x) for x in point]
    orders = [o for o in itertools.product(range(order + 1), repeat=len(point)) if sum(o) <= order]
    at = {o: function(*(x + k * STEP for x, k in zip(point, o, strict=True))) for o in orders}
    result = {}
    for o in orders:
        terms = (
            at[lower]
            * math.prod((-1) ** (n - k) * math.comb(n, k) for n, k in zip(o, lower, strict=True))
            for lower in itertools.product(*(range(n + 1) for n in o))
        )
        result[o] = mp.fsum(terms) / STEP ** sum(o)
    return result


def order_of(*parts, n_parts):
    return tuple(parts.count(i) for i in range(n_parts))


def orders_of_terms(n_parts):
    """Orders of the derivatives in ``Terms``, as the family lists them."""
    second = (order_of(*pair, n_parts=n_parts) for pair in pairs(n_parts))
    return [(0,) * n_parts, *(order_of(i, n_parts=n_parts) for i in range(n_parts)), *second]


def condition(exact, order):
    """How a derivative feels rounding: its own, and that of exp(predictor) for each predictor."""
    neighbours = (tuple(k + (i == j) for i, k in enumerate(order)) for j in range(len(order)))
    return abs(exact[order]) + sum(abs(exact[o]) for o in neighbours)


def evaluate(family, y, predictors):
    """Terms of one count at several points, a row for each derivative."""
    if y == 0:
        terms = family.zeros(predictors)
    else:
        counts = positive_counts(torch.full_like(predictors[0], y))
        terms = family.positives(counts, predictors, family.saturated(counts, predictors[1]))
    return torch.stack([terms.value, *terms.score, *terms.hessian])


def tensors(points, dtype=torch.float64):
    return [torch.tensor(x, dtype=dtype) for x in zip(*points, strict=True)]


@cache
def exact_negative_binomial(y, point):
    """Exact terms, and what bounds the rounding of each.

    Beyond its condition, a derivative in the size is a sum of terms of Loader's form, and each is
    rounded: ``r [t - log(1 + t)]``, the square of the score and the first derivative. The log-mass
    rounds ``y log(mu / y)``.
    """
    with mp.workdps(DIGITS):
        exact = derivatives(partial(nb_log_mass, y), point, 3)
        eta, rho = map(mp.mpf, point)
        mu, r = mp.exp(eta), mp.exp(rho)
        bound = {order: condition(exact, order) for order in orders_of_terms(2)}
        if y > 0:
            t = (y - mu) / (r + mu)
            deviance = r * (t - mp.log1p(t))
            bound[0, 0] += y * (abs(eta) + mp.log(y))
            bound[0, 1] += deviance
            bound[0, 2] += deviance + (r * t) ** 2 / (r + y) + abs(exact[0, 1])
        orders = orders_of_terms(2)
        return np.array([(float(exact[o]), float(bound[o])) for o in orders]).T


@cache
def exact_inflated_zero(point):
    """Exact terms of a zero, and what bounds the rounding of each.

    Second derivatives mix the negative binomial's by the probability ``s`` that the zero is a
    sampled one; ``s`` and ``1 - s`` are each held to a rounding of one.
    """
    with mp.workdps(DIGITS):
        exact = derivatives(zero_log_mass, point, 3)
        eta, rho, zeta = map(mp.mpf, point)
        nb = derivatives(partial(nb_log_mass, 0), (eta, rho), 2)
        s = 1 / (1 + mp.exp(zeta - nb[0, 0]))
        pi = 1 / (1 + mp.exp(-zeta))
        orders = orders_of_terms(3)
        bound = {order: condition(exact, order) for order in orders}
        bound[0, 0, 0] += mp.log1p(mp.exp(zeta)) + abs(mp.log(mp.exp(zeta) + mp.exp(nb[0, 0])))
        bound[0, 0, 2] += abs(exact[0, 0, 1]) * (s + pi)  # their difference by this
        bound[1, 0, 1] += s * abs(nb[1, 0])
        bound[0, 1, 1] += s * abs(nb[0, 1])
        for i, j in pairs(2):
            order = order_of(i, j, n_parts=2)
            product = nb[order_of(i, n_parts=2)] * nb[order_of(j, n_parts=2)]
            bound[(*order, 0)] += s * (abs(product) + abs(nb[order]))
        return np.array([(float(exact[o]), float(bound[o]) + FLOOR) for o in orders]).T


def worst_rounding(ours, reference, dtype=torch.float64):
    """Largest error in units of the precision and of what bounds the rounding."""
    exact, bound = np.stack(reference, axis=-1)
    return np.max(np.abs(ours.double().numpy() - exact) / bound, axis=1) / torch.finfo(dtype).eps


# Negative binomial


@pytest.mark.parametrize("y", COUNTS)
def test_negative_binomial_is_exact_to_rounding(y):
    reference = [exact_negative_binomial(y, point) for point in POINTS]
    worst = worst_rounding(evaluate(NegBinFamily(), y, tensors(POINTS)), reference)
    assert (worst < 20).all(), worst


@pytest.mark.parametrize("y", COUNTS)
def test_negative_binomial_keeps_nine_digits(y):
    """Relative error 1e-9 or absolute 1e-12, except for the score where it vanishes."""
    reference = np.stack([exact_negative_binomial(y, point)[0] for point in POINTS], axis=-1)
    ours = evaluate(NegBinFamily(), y, tensors(POINTS)).numpy()
    absolute = np.full(ours.shape, 1e-12)
    if y == 10**6:
        # It crosses zero at mu = y, where rounding the predictor alone moves it by this.
        absolute[:, np.isclose(np.exp(POINTS)[:, 0], y)] = 1e-10
    error = np.abs(ours - reference)
    wrong = (error > absolute) & (error > 1e-9 * np.abs(reference))
    assert not wrong.any(), np.argwhere(wrong)


@pytest.mark.parametrize("y", [0, 1, 50, 10**6])
def test_negative_binomial_in_single_precision(y):
    points = [
        tuple(float(np.float32(x)) for x in point)
        for point in POINTS
        if abs(point[1]) < math.log(1e9)
    ]
    reference = [exact_negative_binomial(y, point) for point in points]
    ours = evaluate(NegBinFamily(), y, tensors(points, torch.float32))
    assert ours.dtype == torch.float32
    worst = worst_rounding(ours, reference, torch.float32)
    assert (worst < 20).all(), worst


def test_log_mass_where_the_mean_underflows():
    eta, rho = -800.0, 0.5
    ours = evaluate(NegBinFamily(), 3, tensors([(eta, rho)]))[0]
    with mp.workdps(DIGITS):
        assert_allclose(ours, float(nb_log_mass(3, mp.mpf(eta), mp.mpf(rho))), rtol=1e-14)


FAR = [-1e4, -800, -90, -30, 0, 30, 80, 700, 1e4]


def far_points(family):
    """Where a trial step may lead, and where a maximum at infinity is stopped."""
    return list(itertools.product(*[FAR, FAR, [-1e4, -40, 0, 40, 1e4]][: len(family.parts)]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("y", [1, 10**6])
def test_any_predictors_give_finite_terms(family, y, dtype):
    assert evaluate(family, y, tensors(far_points(family), dtype)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_predictors_give_finite_terms_of_zeros(family, dtype):
    assert evaluate(family, 0, tensors(far_points(family), dtype)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("y", [0, 1, 10**6])
def test_no_predictors_give_a_probability_above_one(family, y, dtype):
    """Else a step too far would look like a gain."""
    value = evaluate(family, y, tensors(far_points(family), dtype))[0]
    assert (value <= 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_mean_is_better_than_the_count_itself(dtype):
    """Where the count is huge, rounding the predictor must not look like a gain either."""
    y = 3e7
    points = [(math.log(y) + step, math.log(1e9)) for step in np.linspace(-1e-3, 1e-3, 301)]
    predictors = tensors(points, dtype)
    counts = positive_counts(torch.full_like(predictors[0], y))
    saturated = NegBinFamily().saturated(counts, predictors[1])
    assert (evaluate(NegBinFamily(), y, predictors)[0] <= saturated.value).all()
    assert (saturated.value < 0).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("y", COUNTS)
def test_single_precision_gives_finite_terms_over_the_grid(family, y):
    inflation = [float(mp.log(mp.mpf(p) / (1 - mp.mpf(p)))) for p in INFLATIONS]
    last = inflation if "zero_inflation" in family.parts else [()]
    points = [(*p, *np.atleast_1d(z)) for p in POINTS for z in last]
    terms = evaluate(family, y, tensors(points, torch.float32))
    assert terms.isfinite().all()
    assert (terms[0] <= 0).all()


# Zero inflation


@pytest.mark.parametrize("pi", INFLATIONS)
def test_inflated_zero_is_exact_to_rounding(pi):
    zeta = float(mp.log(mp.mpf(pi) / (1 - mp.mpf(pi))))
    points = [(*point, zeta) for point in POINTS]
    reference = [exact_inflated_zero(point) for point in points]
    ours = evaluate(ZINBFamily(), 0, tensors(points))
    worst = worst_rounding(ours, reference)
    assert (worst < 20).all(), worst
    exact = np.stack(reference, axis=-1)[0]
    assert_allclose(ours, exact, rtol=1e-9, atol=1e-12)
    # Neither the log-mass nor the inflation's score vanishes but with the mean.
    assert_allclose(ours[[0, 3]], exact[[0, 3]], rtol=1e-13)


@pytest.mark.parametrize("pi", INFLATIONS)
@pytest.mark.parametrize("y", [1, 10**6])
def test_inflated_positive_is_a_negative_binomial_that_was_not_a_structural_zero(y, pi):
    p = mp.mpf(pi)
    zeta = float(mp.log(p / (1 - p)))
    points = [(*point, zeta) for point in POINTS[::7]]
    value, e, r, z, ee, er, ez, rr, rz, zz = evaluate(ZINBFamily(), y, tensors(points)).numpy()
    nb = evaluate(NegBinFamily(), y, tensors(POINTS[::7])).numpy()
    with mp.workdps(DIGITS):
        none = float(-mp.log1p(mp.exp(zeta)))
        probability = float(1 / (1 + mp.exp(-mp.mpf(zeta))))
        variance = float(mp.exp(zeta) / (1 + mp.exp(zeta)) ** 2)
    assert_allclose(value, nb[0] + none, rtol=1e-15)
    assert_allclose(z, np.full_like(z, -probability), rtol=2e-15)
    assert_allclose(zz, np.full_like(zz, -variance), rtol=2e-15)
    for ours, theirs in zip((e, r, ee, er, rr), nb[1:], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not ez.any()
    assert not rz.any()


@pytest.mark.parametrize("y", [0, 3])
def test_no_inflation_is_the_negative_binomial(y):
    nb = evaluate(NegBinFamily(), y, tensors(POINTS)).numpy()
    likely = nb[0] > -600
    assert likely.sum() > 80
    points = [(*point, -700.0) for point, use in zip(POINTS, likely, strict=True) if use]
    ours = evaluate(ZINBFamily(), y, tensors(points)).numpy()
    assert_allclose(ours[[0, 1, 2, 4, 5, 7]], nb[:, likely], rtol=1e-14)
    # What an inflation would gain: the odds of a structural zero against the count's own mass.
    odds = np.exp(-700 - (nb[0, likely] if y == 0 else 0))
    assert (np.abs(ours[[3, 9]]) <= 1.001 * odds).all()


# Automatic differentiation of the textbook formula, in ranges where it is stable


def textbook(y, eta, rho, zeta=None):
    r = rho.exp()
    nb = (
        torch.lgamma(y + r)
        - torch.lgamma(r)
        - torch.lgamma(y + 1)
        + r * (rho - torch.logaddexp(eta, rho))
        + y * (eta - torch.logaddexp(eta, rho))
    )
    if zeta is None:
        return nb
    positive = torch.log(1 - zeta.sigmoid())
    return torch.where(y == 0, torch.log(zeta.sigmoid() + (positive + nb).exp()), positive + nb)


@pytest.mark.parametrize("y", [0.0, 0.25, 1.0, 2.7, 13.0, 400.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_terms_are_the_derivatives_of_the_log_mass(family, y):
    axes = [torch.linspace(-4, 5, 7), torch.linspace(-3, 4, 8), torch.linspace(-5, 4, 6)]
    grid = torch.meshgrid(*axes[: len(family.parts)], indexing="ij")
    predictors = [x.double().flatten().requires_grad_() for x in grid]
    value = textbook(torch.tensor(y, dtype=torch.float64), *predictors)
    score = torch.autograd.grad(value.sum(), predictors, create_graph=True)
    rows = [
        torch.autograd.grad(s.sum(), predictors, retain_graph=True, materialize_grads=True)
        for s in score
    ]
    expected = torch.stack([value, *score, *(rows[i][j] for i, j in pairs(len(rows)))]).detach()
    ours = evaluate(family, y, [p.detach() for p in predictors])
    assert_allclose(ours, expected, rtol=1e-8, atol=1e-9)


def test_a_vanishing_count_is_a_zero():
    predictors = tensors([p for p in POINTS if p[0] <= p[1] + 25 and p[1] > math.log(1e-3)])
    zero = evaluate(NegBinFamily(), 0, predictors)
    gaps = [
        ((evaluate(NegBinFamily(), y, predictors) - zero).abs() / (1 + zero.abs())).max()
        for y in (1e-6, 1e-9)
    ]
    assert 1e-6 < gaps[0] < 1e-3
    assert gaps[1] < 2e-3 * gaps[0]


# Tiles


def tile(family, y, predictors, shares=None):
    """Terms of a tile, a row for each derivative; ``shares``: of a cell's weight with its count."""
    zeros = None
    if shares is not None:
        zeros = torch.where(y > 0, 1 - shares, 1.0)[None]
    eta, *others = (x[None] for x in predictors)
    of_tile = (y if shares is None else y * shares)[None]
    terms = family.tile([eta.clone(), *others], of_tile, zeros)
    rows = torch.cat([terms.value, *terms.score, *terms.hessian])
    flat = torch.nonzero(y)[:, 0]
    counts, rho = positive_counts(y[flat]), predictors[1][flat]
    n_parts = len(predictors)
    for row, own in zip((0, 2, 1 + 2 * n_parts), gamma_ratio(counts, rho), strict=True):
        rows[row, flat] += own if shares is None else own * shares[flat]
    return rows


def tile_points(family, dtype):
    axes = [[-300, -40, -8, -1, 0, 0.5, 3, 12, 30], [-250, -30, -1, 0.3, 2, 9, 30, 200]]
    if len(family.parts) == 3:
        axes.append([-745, -300, -35, -8, -1, 0, 0.7, 5, 36, 300, 745])
    if dtype == torch.float32:
        axes = [[x for x in axis if abs(x) <= 36] for axis in axes]
    return tensors(list(itertools.product(*axes)), dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("share", [None, 0.25])
def test_a_tile_has_the_terms_of_its_entries(family, share, dtype):
    """Up to rounding errors that are small in a sum over all entries."""
    predictors = tile_points(family, dtype)
    eta, rho = predictors[:2]
    of_zeros = evaluate(family, 0, predictors)
    for y in (0, 1, 50, 10**5):
        counts = torch.full_like(eta, y)
        shares = None if share is None else torch.full_like(eta, share)
        expected = evaluate(family, y, predictors)
        if share is not None and y:
            expected = share * expected + (1 - share) * of_zeros
        size = 1 + rho.exp() * torch.log1p((eta - rho).exp()) + sum(x.abs() for x in predictors[2:])
        size += y * (1 + eta.abs() + rho.abs() + math.log(max(y, 1)))
        error = (tile(family, counts, predictors, shares) - expected).abs()
        assert (error <= 8 * torch.finfo(dtype).eps * size).all()


def test_a_positive_count_of_a_tile_is_no_structural_zero():
    """Not even to the last digit: next to nothing would be slow to compute with."""
    predictors = tile_points(ZINBFamily(), torch.float64)
    _, _, _, z, _, _, ez, _, rz, _ = tile(
        ZINBFamily(), torch.full_like(predictors[0], 2), predictors
    )
    pi = evaluate(ZINBFamily(), 2, predictors)[3]
    assert torch.equal(z, pi)
    assert not ez.any()
    assert not rz.any()


# Structure


def test_parts_and_pairs():
    assert NegBinFamily().parts == ("mean", "dispersion")
    assert ZINBFamily().parts == ("mean", "dispersion", "zero_inflation")
    assert pairs(3) == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_entry_does_not_depend_on_its_position(family, dtype):
    """To the last bit, or the fit of a gene would depend on its neighbours."""
    n, n_slices = 1003, 300
    generator = torch.Generator().manual_seed(3)
    spread = torch.tensor([2.0, 15.0])[torch.randint(2, (n,), generator=generator)]
    predictors = [(spread * torch.randn(n, generator=generator)).to(dtype) for _ in family.parts]
    y = (6 * torch.rand(n, generator=generator)).exp().to(dtype).ceil()

    def everything(start, stop):
        at = [p[start:stop] for p in predictors]
        counts = positive_counts(y[start:stop])
        saturated = family.saturated(counts, at[1])
        zeros, positives = family.zeros(at), family.positives(counts, at, saturated)
        flat = [counts.constant, *saturated]
        for terms in (zeros, positives):
            flat += [terms.value, *terms.score, *terms.hessian]
        return torch.stack(flat)

    whole = everything(0, n)
    for start, length in zip(
        torch.randint(n - 40, (n_slices,), generator=generator).tolist(),
        torch.randint(1, 40, (n_slices,), generator=generator).tolist(),
        strict=True,
    ):
        stop = start + length
        assert torch.equal(everything(start, stop), whole[:, start:stop]), (start, stop)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("y", [0, 4])
def test_predictors_are_not_changed_and_may_broadcast(family, y):
    """A part that is the same in all cells comes as one column."""
    generator = torch.Generator().manual_seed(0)
    full = [torch.randn(3, 5, generator=generator).double() for _ in family.parts]
    narrow = [full[0], *(p[:, :1] for p in full[1:])]
    wide = [full[0], *(p[:, :1].expand(3, 5).contiguous() for p in full[1:])]
    before = [p.clone() for p in narrow]
    if y == 0:
        terms = family.zeros(narrow)
        expected = family.zeros(wide)
        for ours, theirs in zip(
            (terms.value, *terms.score, *terms.hessian),
            (expected.value, *expected.score, *expected.hessian),
            strict=True,
        ):
            assert ours.shape == (3, 5)
            assert_allclose(ours, theirs, rtol=1e-15)
    else:
        evaluate(family, y, wide)
    for p, q in zip(narrow, before, strict=True):
        assert torch.equal(p, q)
