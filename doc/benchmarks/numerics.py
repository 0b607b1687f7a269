"""Measure the numerical error of NB and ZINB against mpmath, over the whole range of parameters.

``python doc/benchmarks/numerics.py`` evaluates the log-mass, its score and Hessian, and the tail
probabilities and quantiles at a grid and at random points between, in double precision, and the
log-mass in single precision too, and prints the worst relative error of each with the point where
it occurs. Takes about a minute; needs the ``test`` extra. What counts as an error is explained on
the page *Numerical accuracy* of the documentation, which shows the table.
"""

import itertools
from functools import cache

import mpmath as mp
import numpy as np
import torch

from sc_glm._likelihood.family import NegBinFamily, ZINBFamily, pairs, positive_counts
from sc_glm.distributions import NB, ZINB

COUNTS = (0, 1, 2, 3, 10, 100, 10**4, 10**6)
MEANS = (1e-12, 1e-6, 1e-2, 1.0, 1e3, 1e9)
SIZES = (1e-8, 1e-4, 1.0, 1e4, 1e12)
INFLATIONS = (1e-12, 0.5, 1 - 1e-12)
DIGITS = 120  # half of them cancel in the textbook formulas
# Errors are relative to the exact value or, where that is less, to this: 1e-9 of it is 1e-12.
LEAST_DERIVATIVE = 1e-3
LEAST_PROBABILITY = 1e-280  # doubles end at 1e-308, betainc earlier


def points(n_random, seed=0):
    """Return counts, means, sizes and inflations: a grid, then random points between."""
    grid = np.array(list(itertools.product(COUNTS, MEANS, SIZES, INFLATIONS)), dtype=float)
    rng = np.random.default_rng(seed)
    n = n_random
    y = np.where(rng.random(n) < 0.5, rng.choice(COUNTS, n), np.floor(10 ** rng.uniform(0, 6, n)))
    mu, r = 10 ** rng.uniform(-12, 9, n), 10 ** rng.uniform(-8, 12, n)
    # A third of the counts near their mean, at a distance of 1e-6 of it or more, and a third
    # within some standard deviations, where neither tail is negligible.
    kind = rng.integers(0, 3, n)
    near = y * (1 + rng.choice([-1, 1], n) * 10 ** rng.uniform(-6, -0.1, n))
    within = y + rng.normal(scale=5, size=n) * np.sqrt(y + y * y / r)
    mu = np.select([(kind == 0) & (near > 0), (kind == 1) & (within > 0)], [near, within], mu)
    rare = 10 ** rng.uniform(-12, -0.3, n)
    pi = np.where(rng.random(n) < 0.5, rare, 1 - rare)
    return np.r_[grid, np.c_[y, mu.clip(1e-12, 1e9), r, pi]].T


# The reference: textbook formulas, with digits enough for what cancels in them


@cache
def exact_negative_binomial(y, eta, rho):
    """Log-mass, score and Hessian in log mean and log size."""
    y, mu, r = mp.mpf(y), mp.exp(eta), mp.exp(rho)
    log1p, q, odds = mp.log1p(mu / r), r / (r + mu), mu / (r + mu)
    value = mp.loggamma(y + r) - mp.loggamma(r) - mp.loggamma(y + 1)
    value += y * (mp.log(mu) - mp.log(r) - log1p) - r * log1p
    s_rho = r * (mp.psi(0, y + r) - mp.psi(0, r) - log1p - (y - mu) / (r + mu))
    curvature = r * r * (mp.psi(1, y + r) - mp.psi(1, r)) + r * odds + q * q * (y - mu)
    s_eta = q * (y - mu)
    return value, s_eta, s_rho, -q * odds * (r + y), s_eta * odds, s_rho + curvature


def exact_zero_inflated(y, eta, rho, zeta):
    """Log-mass, score and Hessian in log mean, log size and logit of the zero inflation."""
    nb, a, b, h_ee, h_er, h_rr = exact_negative_binomial(y, eta, rho)
    pi, not_pi = 1 / (1 + mp.exp(-zeta)), 1 / (1 + mp.exp(zeta))
    if y > 0:
        return mp.log(not_pi) + nb, a, b, -pi, h_ee, h_er, 0, h_rr, 0, -pi * not_pi
    value = mp.log(pi + not_pi * mp.exp(nb))
    s, structural = not_pi * mp.exp(nb - value), pi * mp.exp(-value)
    v = s * structural
    hessian = (s * h_ee + v * a * a, s * h_er + v * a * b, -v * a, s * h_rr + v * b * b, -v * b)
    return value, s * a, s * b, structural - pi, *hessian, v - pi * not_pi


def beta_fraction(a, b, x):
    """Continued fraction of the incomplete beta function (NIST DLMF 8.17.22), by Lentz's method."""
    value, c, d, n = mp.mpf(1), mp.mpf(1), mp.mpf(0), 0
    while abs(c * d - 1) > mp.mpf(10) ** -30:
        n += 1
        m = n // 2
        term = -(a + m) * (a + b + m) if n % 2 else m * (b - m)
        term *= x / ((a + n - 1) * (a + n))
        d = 1 / (1 + term * d)
        c = 1 + term / c
        value *= c * d
    return 1 / value


@cache
def exact_tails(k, mu, r):
    """P(X <= k), P(X > k) and P(X = k) of the negative binomial."""
    a, b, mu = mp.mpf(k) + 1, mp.mpf(r), mp.mpf(mu)
    failure, success = mu / (b + mu), b / (b + mu)
    log_power = a * mp.log(failure) + b * mp.log(success)
    power = mp.exp(log_power + mp.loggamma(a + b) - mp.loggamma(a) - mp.loggamma(b))
    mass = power / (failure * (a + b - 1))
    if failure < (a + 1) / (a + b + 2):
        upper = power / a * beta_fraction(a, b, failure)
        return 1 - upper, upper, mass
    lower = power / b * beta_fraction(b, a, success)
    return lower, 1 - lower, mass


def exact_probabilities(k, mu, r, pi=0.0):
    """Distribution function, its complement, their logarithms, and the mass at k."""
    lower, upper, mass = exact_tails(k, mu, r)
    pi = mp.mpf(pi)
    lower, upper, mass = pi + (1 - pi) * lower, (1 - pi) * upper, (1 - pi) * mass
    logs = [
        mp.log1p(-other) if other < 0.5 else mp.log(tail)
        for tail, other in ((lower, upper), (upper, lower))
    ]
    return lower, upper, *logs, mass + pi * (k == 0)


# Ours


def terms(family, y, predictors, dtype):
    """Log-mass, score and Hessian of the family, a row each."""
    y, *predictors = (torch.as_tensor(x, dtype=dtype) for x in (y, *predictors))
    n_parts = len(family.parts)
    rows = torch.empty(1 + n_parts + len(pairs(n_parts)), len(y), dtype=dtype)
    zero, positive = y == 0, y > 0
    at_zero = family.zeros([p[zero] for p in predictors])
    rows[:, zero] = torch.stack([at_zero.value, *at_zero.score, *at_zero.hessian])
    counts, at = positive_counts(y[positive]), [p[positive] for p in predictors]
    at_count = family.positives(counts, at, family.saturated(counts, at[1]))
    rows[:, positive] = torch.stack([at_count.value, *at_count.score, *at_count.hessian])
    return rows.double().numpy()


def errors(ours, exact, least=0.0):
    """Errors relative to the exact values, or to the least that counts."""
    return np.array(
        [
            float(abs(mp.mpf(float(a)) - b) / max(abs(b), least)) if np.isfinite(a) else np.inf
            for a, b in zip(ours, exact, strict=True)
        ]
    )


def quantile_levels(probabilities):
    """Return the middle of each step that is wider than rounding, and which these are."""
    q, wide = np.full(len(probabilities), 0.5), np.zeros(len(probabilities), dtype=bool)
    for i, (lower, upper, *_, mass) in enumerate(probabilities):
        middle = float(lower - mass / 2)
        rounding = max(1e-11 * min(lower, upper + mass), 1e-15)
        if LEAST_PROBABILITY < middle < 1 and mass / 2 > rounding:
            q[i], wide[i] = middle, True
    return q, wide


def measure(at):
    """Return a row for each function: name, number of points, worst error, and its point."""
    y, mu, r, pi = at
    rows = []

    def add(name, error, where):
        worst = int(np.argmax(error))
        point = [f"{x[worst]:.6g}" for x in where] if error[worst] else []
        point += [""] * (4 - len(point))
        rows.append((name, str(len(error)), f"{error[worst]:.1e}" if point[0] else "exact", *point))

    models = {
        "NB": (NB(mu, r), NegBinFamily(), exact_negative_binomial, (y, mu, r)),
        "ZINB": (ZINB(mu, r, pi), ZINBFamily(), exact_zero_inflated, (y, mu, r, pi)),
    }
    for name, (dist, family, exact_terms, where) in models.items():
        exact = [_exactly_at(exact_terms, *entry) for entry in zip(*where, strict=True)]
        add(f"{name} logpmf", errors(dist.logpmf(y), exact), where)

        probabilities = [exact_probabilities(*entry) for entry in zip(*where, strict=True)]
        for i, method in enumerate(("cdf", "sf", "logcdf", "logsf")):
            true = [p[i] for p in probabilities]
            error = errors(getattr(dist, method)(y), true, LEAST_PROBABILITY)
            add(f"{name} {method}", error, where)
        q, wide = quantile_levels(probabilities)
        found = dist[wide].ppf(q[wide])
        add(f"{name} ppf", np.abs(found - y[wide]), [x[wide] for x in where])

        # Derivatives are functions of the predictors, so these are taken for exact.
        predictors = [np.log(mu), np.log(r), np.log(pi) - np.log1p(-pi)][: len(family.parts)]
        ours = terms(family, y, predictors, torch.float64)
        exact = [exact_terms(*entry) for entry in zip(y, *predictors, strict=True)]
        by = ["log mu", "log r", "logit pi"][: len(family.parts)]
        labels = [f"{name} score, {one}" for one in by]
        labels += [f"{name} Hessian, {by[a]}, {by[b]}" for a, b in pairs(len(by))]
        for i, label in enumerate(labels, start=1):
            add(label, errors(ours[i], [e[i] for e in exact], LEAST_DERIVATIVE), where)

        single = [np.float32(p).astype(float) for p in predictors]
        ours = terms(family, y, single, torch.float32)[0]
        exact = [exact_terms(*entry)[0] for entry in zip(y, *single, strict=True)]
        error = np.where(ours <= 0, errors(ours, exact), np.inf)
        few = y <= 1000
        add(f"{name} logpmf, float32", error, where)
        add(f"{name} logpmf, float32, y <= 1000", error[few], [x[few] for x in where])
    return rows


def _exactly_at(exact_terms, y, mu, r, *pi):
    """Log-mass at parameters, not predictors, that are taken for exact."""
    logits = [mp.log(mp.mpf(p) / (1 - mp.mpf(p))) for p in pi]
    return exact_terms(y, mp.log(mp.mpf(mu)), mp.log(mp.mpf(r)), *logits)[0]


def main(n_random=2000):
    """Print the table."""
    header = ("function", "points", "error", "y", "mu", "r", "pi")
    with mp.workdps(DIGITS):
        rows = [header, *measure(points(n_random))]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    for name, *numbers in rows:
        cells = [x.rjust(width) for x, width in zip(numbers, others, strict=True)]
        print("  ".join([name.ljust(first), *cells]).rstrip())


if __name__ == "__main__":
    main()
