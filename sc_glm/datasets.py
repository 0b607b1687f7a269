"""Simulated cells whose parameters are known."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.utils import Bunch

from sc_glm.datasets_fetch import fetch_pancreas, fetch_pbmc3k
from sc_glm.distributions import NB, ZINB, check_rng
from sc_glm.formula import FormulaTransformer

if TYPE_CHECKING:
    from numpy.random import Generator, RandomState

__all__ = ["fetch_pancreas", "fetch_pbmc3k", "make_counts"]

# Mean and standard deviation of the intercepts over genes: most genes are seen in few cells,
# are overdispersed, and have somewhat more zeros than their mean and size explain.
_INTERCEPTS = {"mean": (-0.5, 1.0), "dispersion": (0.5, 0.5), "zero_inflation": (-1.5, 0.5)}


def make_counts(
    n_samples: int = 500,
    n_targets: int = 20,
    *,
    mean: str | None = "~ pseudotime + cell_type",
    dispersion: str | None = None,
    zero_inflation: str | None = None,
    offset: str | None = None,
    effect_scale: float = 1.0,
    random_state: int | RandomState | Generator | None = None,
) -> Bunch:
    """Draw cells, coefficients and counts from the model itself.

    Parameters
    ----------
    n_samples : int, default=500
        Number of cells.
    n_targets : int, default=20
        Number of genes.
    mean : str or None, default="~ pseudotime + cell_type"
        Formula of log mu in the columns of `obs` (see Returns). None is an intercept.
    dispersion : str or None, default=None
        Formula of log r, the size (Var = mu + mu²/r). None is an intercept.
    zero_inflation : str or None, default=None
        Formula of logit pi, the probability of a structural zero. None: counts are negative
        binomial.
    offset : str or None, default=None
        Expression that is added to log mu, such as ``"np.log(size_factor)"``.
    effect_scale : float, default=1.0
        Standard deviation of the coefficients that are not intercepts, each times the largest
        absolute value of its column: how far a covariate moves a linear predictor, whatever
        its units.
    random_state : int, RandomState, Generator or None, default=None
        Source of random numbers; an int makes the result reproducible.

    Returns
    -------
    :class:`~sklearn.utils.Bunch`
        With the attributes

        obs : DataFrame of n_samples rows
            Covariates of the cells: ``pseudotime``, uniform on [0, 1]; ``cell_type``,
            categorical with levels a, b and c; ``batch``, categorical with levels x and y;
            ``size_factor``, log-normal around 1.
        counts : DataFrame of int64, shape (n_samples, n_targets)
            The counts, one column per gene. ``scipy.sparse.csr_array(counts)`` is the same
            for tests of sparse data.
        params : dict of str to DataFrame
            True coefficients (columns of the design x genes) per part, laid out like a
            regressor's ``params_``.
        dist : NB or ZINB of shape (n_samples, n_targets)
            The distributions that the counts were drawn from.
        formulas : dict of str to str or None
            Keyword arguments of :class:`~sc_glm.formula.FormulaTransformer`.

    Raises
    ------
    TypeError
        If a number is none, or a formula no text.
    ValueError
        If a number is out of range or a formula is not valid.

    Notes
    -----
    Intercepts are normal over genes: of log mu around -0.5, of log r around 0.5, of logit pi
    around -1.5, which looks like single-cell data. A formula without an intercept is one
    around 0.

    Examples
    --------
    >>> from sc_glm.datasets import make_counts
    >>> data = make_counts(
    ...     n_samples=200, n_targets=3, dispersion="~ cell_type", offset="np.log(size_factor)",
    ...     random_state=0,
    ... )
    >>> data.counts.shape
    (200, 3)
    >>> data.params["dispersion"].round(2)
                    gene_0  gene_1  gene_2
    Intercept         1.27    0.48    0.46
    cell_type[T.b]    0.07    1.17   -0.25
    cell_type[T.c]   -0.48   -0.84   -0.13
    >>> data.obs.columns.tolist()
    ['pseudotime', 'cell_type', 'batch', 'size_factor']

    The truth beside a fit, whose design comes from the same formulas:

    >>> from sc_glm.formula import FormulaTransformer
    >>> FormulaTransformer(**data.formulas).fit_transform(data.obs).shape
    (200, 8)
    """
    numbers: dict[str, tuple[Any, Any]] = {
        "n_samples": (n_samples, Integral),
        "n_targets": (n_targets, Integral),
        "effect_scale": (effect_scale, Real),
    }
    for name, (number, kind) in numbers.items():
        if not isinstance(number, kind) or isinstance(number, bool):
            what = "an integer" if kind is Integral else "a number"
            raise TypeError(f"{name} must be {what}, got {number!r}.")
        if kind is Integral and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")
    if not 0 <= effect_scale < np.inf:
        raise ValueError(f"effect_scale must be finite and at least 0, got {effect_scale}.")
    rng = check_rng(random_state)

    formulas = {
        "mean": "~ 1" if mean is None else mean,
        "dispersion": "~ 1" if dispersion is None else dispersion,
        "zero_inflation": zero_inflation,
        "offset": offset,
    }
    obs = _draw_cells(n_samples, rng)
    genes = [f"gene_{i}" for i in range(n_targets)]
    design = FormulaTransformer(**formulas).fit_transform(obs)
    columns = {part: design.filter(regex=f"^{part}__") for part in formulas}

    params, predictors = {}, {}
    for part in ("mean", "dispersion", "zero_inflation"):
        if formulas[part] is None:
            continue
        features = columns[part].rename(columns=lambda name: name.split("__", 1)[1])
        params[part] = _draw_coefficients(features, genes, part, effect_scale, rng)
        predictors[part] = (features @ params[part]).to_numpy()
    predictors["mean"] += columns["offset"].sum(axis=1).to_numpy()[:, None]

    try:
        with np.errstate(over="ignore"):
            dist: NB | ZINB = NB(np.exp(predictors["mean"]), np.exp(predictors["dispersion"]))
    except ValueError as error:
        reason = f"effect_scale={effect_scale} or an offset is too large"
        raise ValueError(f"{reason}: {error}") from error
    if "zero_inflation" in predictors:
        dist = ZINB(dist.mu, dist.r, expit(predictors["zero_inflation"]))
    counts = pd.DataFrame(dist.rvs(random_state=rng), index=obs.index, columns=genes)
    return Bunch(obs=obs, counts=counts, params=params, dist=dist, formulas=formulas)


def _draw_cells(n_samples: int, rng: RandomState | Generator) -> pd.DataFrame:
    def balanced(levels: list[str]) -> pd.Categorical:
        values = np.resize(np.array(levels), n_samples)
        return pd.Categorical(rng.permutation(values), categories=levels)

    return pd.DataFrame(
        {
            "pseudotime": rng.uniform(size=n_samples),
            "cell_type": balanced(["a", "b", "c"]),
            "batch": balanced(["x", "y"]),
            "size_factor": rng.lognormal(0.0, 0.3, size=n_samples),
        },
        index=[f"cell_{i}" for i in range(n_samples)],
    )


def _draw_coefficients(
    features: pd.DataFrame,
    genes: list[str],
    part: str,
    effect_scale: float,
    rng: RandomState | Generator,
) -> pd.DataFrame:
    largest = features.abs().max().to_numpy()
    # A column of zeros (two levels that no cell has both) has no effect that data could tell.
    scale = np.divide(effect_scale, largest, out=np.zeros_like(largest), where=largest > 0)
    intercept_mean, intercept_sd = _INTERCEPTS[part]
    is_intercept = features.columns == "Intercept"
    center = np.where(is_intercept, intercept_mean, 0.0)
    spread = np.where(is_intercept, intercept_sd, scale)
    values = rng.normal(center[:, None], spread[:, None], size=(len(center), len(genes)))
    return pd.DataFrame(values, index=features.columns, columns=genes)
