"""Suprema of (zero-inflated) negative binomial likelihoods, found without any code of sc_glm.

Genes are maximised side by side by BFGS in numpy, on log-masses and scores written with scipy's
special functions, from several starts; the boundaries, where a size is infinite or an inflation
zero, are models of their own.
"""

import numpy as np
from scipy.special import betaln, expit, gammaln, psi

_ETA = 60.0
_RHO = 16.0  # a size of 1e7; beyond it stands the Poisson model
_ZETA = 40.0
_SHORTENINGS = 25


class Likelihood:
    """Log-likelihood of genes side by side, and its gradient.

    Parameters
    ----------
    y : ndarray of shape (n_cells, n_genes)
    designs : dict of str to ndarray of shape (n_cells, n_columns)
        Without ``dispersion`` a Poisson model, without ``zero_inflation`` not inflated.
    offset : ndarray of shape (n_cells,)
    """

    def __init__(self, y, designs, offset):
        self.y, self.offset = np.ascontiguousarray(y.T), offset
        self.parts = {}
        for part, X in designs.items():
            Q, R = np.linalg.qr(np.asarray(X, float) / np.abs(X).max(axis=0))
            assert np.abs(np.diag(R)).min() > 1e-6, "the columns depend on each other"
            self.parts[part] = Q * np.sqrt(len(Q))
        stops = np.cumsum([0, *(Q.shape[1] for Q in self.parts.values())])
        self.slices = dict(zip(self.parts, map(slice, stops, stops[1:]), strict=False))
        self.n_params = int(stops[-1])

    def coordinates(self, **predictors):
        """Coordinates of predictors: one value per gene, or one per gene and cell."""
        n = len(self.offset)
        parts = []
        for part, Q in self.parts.items():
            value = np.asarray(predictors[part], float)
            value = value if value.ndim == 2 else np.repeat(value[:, None], n, axis=1)
            parts.append(value @ Q / n)
        return np.hstack(parts)

    def predictors(self, theta):
        """Predictor of each part, without the offset: (n_genes, n_cells)."""
        return {part: theta[:, self.slices[part]] @ Q.T for part, Q in self.parts.items()}

    def __call__(self, theta, genes):
        raw = self.predictors(theta)
        raw["mean"] += self.offset
        limits = {"mean": _ETA, "dispersion": _RHO, "zero_inflation": _ZETA}
        clipped = {part: np.clip(x, -limits[part], limits[part]) for part, x in raw.items()}
        value, scores = log_mass(self.y[genes], clipped)
        inside = {part: np.where(raw[part] == clipped[part], scores[part], 0.0) for part in raw}
        gradient = np.hstack([inside[part] @ Q for part, Q in self.parts.items()])
        return value.sum(axis=1), gradient


def log_mass(y, predictors):
    """Log-mass of counts, and its derivative in each part's predictor."""
    eta, rho, zeta = (predictors.get(p) for p in ("mean", "dispersion", "zero_inflation"))
    mu, seen = np.exp(eta), y > 0
    counted = y[seen]
    if rho is None:
        none, scores = -mu, {"mean": y - mu}
        value = none.copy()
        value[seen] += counted * eta[seen] - gammaln(counted + 1)
    else:
        r, ratio = np.exp(rho), np.logaddexp(0.0, eta - rho)
        share = np.exp(-ratio)  # r / (r + mu)
        none = -r * ratio
        in_rho = -r * ratio + (mu - y) * share
        value = none.copy()
        own = r[seen]
        value[seen] += counted * (eta - rho - ratio)[seen] - betaln(own, counted) - np.log(counted)
        in_rho[seen] += own * (psi(counted + own) - psi(own))
        scores = {"mean": (y - mu) * share, "dispersion": in_rho}
    if zeta is not None:
        pi = expit(zeta)
        sampled = np.where(seen, 1.0, expit(none - zeta))  # not a structural zero
        value = np.where(seen, value, np.logaddexp(zeta, none)) - np.logaddexp(0.0, zeta)
        scores = {part: score * sampled for part, score in scores.items()}
        scores["zero_inflation"] = (1 - sampled) - pi
    return value, scores


def climb(function, theta, *, max_iter=250, small=1e-7):
    """Maximise rows side by side by BFGS with backtracking.

    Parameters
    ----------
    function : callable
        Value and gradient at points, given also which rows they belong to.
    theta : ndarray of shape (n_rows, n_params)
    max_iter : int
    small : float
        Gain of which three in a row end a climb.

    Returns
    -------
    ends : ndarray of shape (n_rows, n_params)
    tops : ndarray of shape (n_rows,)
    """
    ends, rows = theta.copy(), np.arange(len(theta))
    tops, gradient = function(theta, rows)
    theta, value = theta.copy(), tops.copy()
    inverse = np.zeros((*theta.shape, theta.shape[1]))
    fresh, idle = np.ones(len(rows), bool), np.zeros(len(rows), int)
    for _ in range(max_iter):
        inverse[fresh] = np.eye(theta.shape[1])
        step = np.einsum("gij,gj->gi", inverse, gradient)
        uphill = (step * gradient).sum(axis=1) > 0
        step[~uphill], inverse[~uphill], fresh[~uphill] = (
            gradient[~uphill],
            np.eye(theta.shape[1]),
            True,
        )
        length = np.linalg.norm(step, axis=1)
        longest = np.where(fresh, 0.5, 6.0)
        step *= np.minimum(1.0, longest / np.maximum(length, 1e-300))[:, None]
        point = theta, value, gradient
        step, new_value, new_gradient = _backtrack(function, rows, point, step)
        moved = step.any(axis=1)
        fresh = _update(inverse, step, gradient - new_gradient, fresh) | ~moved
        idle = np.where(new_value - value < small, idle + 1, 0)
        theta, value, gradient = theta + step, new_value, new_gradient
        ends[rows], tops[rows] = theta, value
        keep = idle < 3
        rows, theta, value, gradient = rows[keep], theta[keep], value[keep], gradient[keep]
        inverse, fresh, idle = inverse[keep], fresh[keep], idle[keep]
        if not len(rows):
            break
    return ends, tops


def _backtrack(function, rows, point, step):
    """Shorten each step until it gains what its slope promises; else to nothing."""
    theta, value, gradient = point
    slope = (step * gradient).sum(axis=1)
    new_value, new_gradient = value.copy(), gradient.copy()
    short = np.arange(len(rows))
    for _ in range(_SHORTENINGS):
        at, tried = short, function((theta + step)[short], rows[short])
        enough = tried[0] >= value[at] + 1e-4 * slope[at]
        new_value[at[enough]], new_gradient[at[enough]] = tried[0][enough], tried[1][enough]
        short = at[~enough]
        if not len(short):
            break
        step[short] *= 0.3
        slope[short] *= 0.3
    step[short] = 0.0
    return step, new_value, new_gradient


def _update(inverse, step, change, fresh):
    """Update inverse Hessians (of the negative) in place; returns which are still the identity."""
    curved = (change * step).sum(axis=1)
    use = curved > 1e-12 * (step**2).sum(axis=1)
    first = use & fresh
    scale = curved / np.maximum((change**2).sum(axis=1), 1e-300)
    inverse[first] *= scale[first, None, None]
    s, d, c = step[use], change[use], curved[use]
    hd = np.einsum("gij,gj->gi", inverse[use], d)
    cross = hd[:, :, None] * s[:, None, :]
    outer = s[:, :, None] * s[:, None, :]
    factor = (c + (d * hd).sum(axis=1)) / c**2
    inverse[use] += factor[:, None, None] * outer
    inverse[use] -= (cross + cross.transpose(0, 2, 1)) / c[:, None, None]
    return fresh & ~use


def suprema(y, designs, offset, *, n_random=2, seed=0):
    """Highest log-likelihood found of each gene, under the model and under those at its boundary.

    Returns
    -------
    dict of str to ndarray of shape (n_genes,)
        ``full``: of the model. ``Poisson``: with an infinite size. ``not inflated``: with no zero
        inflation. ``plain Poisson``: both.
    """
    rng = np.random.default_rng(seed)
    mean = {"mean": designs["mean"]}
    size = {"dispersion": designs["dispersion"]}
    inflation = {k: X for k, X in designs.items() if k == "zero_inflation"}
    total = np.maximum(y.sum(axis=0), 1e-8)
    level = np.log(total / np.exp(offset).sum())
    flat = np.zeros_like(level)

    poisson = Likelihood(y, mean, offset)
    at_poisson, plain = _best(poisson, [poisson.coordinates(mean=level)])
    fitted = _bounded(poisson.predictors(at_poisson))

    nb = Likelihood(y, mean | size, offset)
    starts = [
        nb.coordinates(mean=level, dispersion=flat),
        nb.coordinates(mean=level, dispersion=flat + 2),
        nb.coordinates(**fitted, dispersion=flat + 1),
    ]
    starts += [_scattered(nb, rng, starts[0]) for _ in range(n_random)]
    at_nb, nb_top = _best(nb, starts)
    if not inflation:
        return {"full": np.maximum(nb_top, plain), "Poisson": plain}

    own = _bounded(nb.predictors(at_nb))
    seen = (y > 0).mean(axis=0)
    positive = np.log(total / np.maximum((y > 0).sum(axis=0), 1))
    odds = np.clip(np.log((1 - seen + 1e-3) / (seen + 1e-3)), -4, 4)
    zip_ = Likelihood(y, mean | inflation, offset)
    starts = [
        zip_.coordinates(mean=positive, zero_inflation=odds),
        zip_.coordinates(**fitted, zero_inflation=flat - 2),
    ]
    starts += [_scattered(zip_, rng, starts[0]) for _ in range(n_random)]
    at_zip, zip_top = _best(zip_, starts)
    inflated = _bounded(zip_.predictors(at_zip))

    full = Likelihood(y, mean | size | inflation, offset)
    starts = [
        full.coordinates(mean=positive, dispersion=flat + 1, zero_inflation=odds),
        full.coordinates(mean=positive, dispersion=flat - 1, zero_inflation=flat),
        full.coordinates(**own, zero_inflation=flat - 1),
        full.coordinates(**own, zero_inflation=flat - 4),
        full.coordinates(**inflated, dispersion=flat + 2),
    ]
    starts += [_scattered(full, rng, starts[i % 2]) for i in range(n_random)]
    top = _best(full, starts)[1]
    return {
        "full": np.max([top, nb_top, zip_top, plain], axis=0),
        "Poisson": np.maximum(zip_top, plain),
        "not inflated": np.maximum(nb_top, plain),
        "plain Poisson": plain,
    }


def _bounded(predictors):
    """Keep a start from where a boundary is flat."""
    return {part: np.clip(value, -15, 15) for part, value in predictors.items()}


def _scattered(likelihood, rng, around):
    return around + rng.normal(size=(around.shape[0], likelihood.n_params))


def _best(likelihood, starts):
    """Climb from several starts of every gene, and keep each gene's highest end."""
    n_genes = len(likelihood.y)
    ends, tops = climb(lambda theta, rows: likelihood(theta, rows % n_genes), np.vstack(starts))
    tops = np.where(np.isfinite(tops), tops, -np.inf).reshape(len(starts), n_genes)
    best = tops.argmax(axis=0)
    genes = np.arange(n_genes)
    return ends.reshape(len(starts), n_genes, -1)[best, genes], tops[best, genes]
