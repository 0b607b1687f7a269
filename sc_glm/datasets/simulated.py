"""Simulated cells whose parameters are known."""

from __future__ import annotations

import re
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import expit, logsumexp
from sklearn.utils import Bunch

from sc_glm.datasets.presets import PRESETS
from sc_glm.distributions.count_distributions import NB, ZINB
from sc_glm.distributions.random_variates import check_rng
from sc_glm.formula.transformer import FormulaTransformer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.random import Generator, RandomState
    from numpy.typing import NDArray

    from sc_glm.datasets.presets import DrawEffects, Preset

    FloatArray = NDArray[np.float64]

__all__ = ["make_counts"]

_AUTO = "auto"
_WITHOUT_PRESET = {"mean": "~ pseudotime + cell_type"}

# Mean and standard deviation of the intercepts over genes: most genes are seen in few cells,
# are overdispersed, and have somewhat more zeros than their mean and size explain.
_INTERCEPTS = {"mean": (-0.5, 1.0), "dispersion": (0.5, 0.5), "zero_inflation": (-1.5, 0.5)}


def make_counts(
    n_samples: int = 500,
    n_targets: int = 20,
    *,
    preset: str | None = None,
    mean: str | None = _AUTO,
    dispersion: str | None = _AUTO,
    zero_inflation: str | None = _AUTO,
    offset: str | None = _AUTO,
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
    preset : {"pbmc", "pancreas", "perturbation", "donors"} or None, default=None
        A kind of screen whose cells, means, sizes and effects look like those of a real one:

        - "pbmc": blood cells of nine types, from 26 % of the cells to 0.5 %, and all genes of the
          genome: 97 % of the counts are zero, and half of the genes are seen in a cell or none;
        - "pancreas": cells along a pseudotime, and marker genes that are well expressed and
          change much along it, in mean and in dispersion;
        - "perturbation": a panel of genes (70 is usual) in cells with one guide each: 4 in 10
          are ``"non-targeting"``, the others have one of four guides for each of 14 genes,
          which lower this gene and move few others;
        - "donors": 6 donors of each condition, who differ in means beside what the condition
          does to 1 in 5 genes. Tests that take cells for independent find far too much here.

        None: normal coefficients, and the covariates under Returns.
    mean : str or None, default="auto"
        Formula of log mu in the columns of `obs` (see Returns). None is an intercept. "auto" is
        the preset's, or ``"~ pseudotime + cell_type"``.
    dispersion : str or None, default="auto"
        Formula of log r, the size (Var = mu + mu²/r). None is an intercept. "auto" is the
        preset's, or an intercept.
    zero_inflation : str or None, default="auto"
        Formula of logit pi, the probability of a structural zero. None and "auto": counts are
        negative binomial.
    offset : str or None, default="auto"
        Expression that is added to log mu, such as ``"np.log(size_factor)"``. None is no offset.
        "auto" is ``"np.log(size_factor)"`` in a preset, and none without.
    effect_scale : float, default=1.0
        Factor of all coefficients that are not intercepts. Those without a preset, and those of
        columns that a preset's own formulas do not have, have by themselves the standard
        deviation 1, divided by the largest absolute value of their column: the factor says how
        far a covariate moves a linear predictor, whatever its units.
    random_state : int, RandomState, Generator or None, default=None
        Source of random numbers; an int makes the result reproducible.

    Returns
    -------
    :class:`~sklearn.utils.Bunch`
        With the attributes

        obs : DataFrame of n_samples rows
            Covariates of the cells. Without a preset: ``pseudotime``, uniform on [0, 1];
            ``cell_type``, categorical with levels a, b and c; ``batch``, categorical with levels
            x and y; ``size_factor``, log-normal around 1. "pbmc" has ``cell_type``; "pancreas"
            ``pseudotime`` and ``cell_type``; "perturbation" ``lane`` and ``guide``, whose levels
            name their gene, as in ``"gene_3-1"``; "donors" ``condition`` (control, case),
            ``donor`` and ``cell_type``; each has a ``size_factor``, the cell's depth.
        counts : DataFrame of int64, shape (n_samples, n_targets)
            The counts, one column per gene. ``scipy.sparse.csr_array(counts)`` is the same
            for tests of sparse data, and
            ``AnnData(scipy.sparse.csr_matrix(data.counts), obs=data.obs)`` for those of AnnData.
        params : dict of str to DataFrame
            True coefficients (columns of the design x genes) per part, laid out like a
            regressor's ``params_``.
        dist : NB or ZINB of shape (n_samples, n_targets)
            The distributions that the counts were drawn from.
        formulas : dict of str to str or None
            Keyword arguments of :class:`~sc_glm.formula.FormulaTransformer`.
        donor_effects : DataFrame of shape (n_donors, n_targets)
            With ``preset="donors"`` only: what each donor adds to log mu of each gene, beside
            `params`.

    Raises
    ------
    TypeError
        If a number is none, or a formula no text.
    ValueError
        If a number is out of range, there is no such preset, a formula is not valid, or has no
        intercept where a preset needs it.

    Notes
    -----
    Without a preset, intercepts are normal over genes: of log mu around -0.5, of log r around
    0.5, of logit pi around -1.5, which looks like single-cell data. A formula without an
    intercept is one around 0.

    With a preset, a gene's mean over all cells is drawn first, and its intercept is what gives
    it this mean beside the offset and the drawn effects: with other formulas, means stay those of
    the real screen. The guide page on data sets shows how near each preset is to its real one.

    Counts, means and sizes are dense arrays of 8 bytes per cell and gene each: 3000 cells and
    30 000 genes need 0.7 GB three times. :func:`sc_glm.adata.sample` draws sparse counts of
    such sizes from a fitted model.

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

    A case-control study, as AnnData:

    >>> from anndata import AnnData
    >>> from scipy.sparse import csr_matrix
    >>> data = make_counts(1000, 50, preset="donors", random_state=0)
    >>> adata = AnnData(csr_matrix(data.counts), obs=data.obs)
    >>> adata.shape
    (1000, 50)
    >>> int((data.params["mean"].loc["condition[T.case]"] != 0).sum())
    9
    """
    _check_arguments(n_samples, n_targets, preset, effect_scale)
    rng = check_rng(random_state)
    kind = PRESETS[preset] if preset is not None else None

    given = {
        "mean": mean,
        "dispersion": dispersion,
        "zero_inflation": zero_inflation,
        "offset": offset,
    }
    usual = kind.formulas if kind is not None else _WITHOUT_PRESET
    formulas = {
        part: usual.get(part) if isinstance(formula, str) and formula == _AUTO else formula
        for part, formula in given.items()
    }
    for part in ("mean", "dispersion"):
        formulas[part] = "~ 1" if formulas[part] is None else formulas[part]

    genes = [f"gene_{i}" for i in range(n_targets)]
    obs = _draw_cells(n_samples, rng) if kind is None else kind.draw_cells(n_samples, genes, rng)
    obs.index = pd.Index([f"cell_{i}" for i in range(n_samples)])
    design = FormulaTransformer(**formulas).fit_transform(obs)
    columns = {part: design.filter(regex=f"^{part}__") for part in formulas}
    features = {
        part: columns[part].rename(columns=lambda name: name.split("__", 1)[1])
        for part in ("mean", "dispersion", "zero_inflation")
        if formulas[part] is not None
    }
    offsets = columns["offset"].sum(axis=1).to_numpy()[:, None]

    if kind is None:
        params = {
            part: _draw_coefficients(table, genes, part, effect_scale, rng)
            for part, table in features.items()
        }
    else:
        for part, table in features.items():
            if "Intercept" not in table:
                raise ValueError(
                    f"{part}={formulas[part]!r} has no intercept, by which preset={preset!r} "
                    "sets the level of each gene: leave out '0 +' or '- 1'."
                )
        params = _draw_like(
            kind,
            features,
            offsets,
            genes=genes,
            covariates=set(obs.columns),
            effect_scale=effect_scale,
            rng=rng,
        )
    predictors = {part: (features[part] @ params[part]).to_numpy() for part in features}
    predictors["mean"] = predictors["mean"] + offsets  # pandas 3 lets nobody write into its array
    more = {}
    if kind is not None and kind.donor_sd is not None:
        more["donor_effects"] = _draw_donors(kind.donor_sd, obs["donor"], genes, rng)
        predictors["mean"] += more["donor_effects"].to_numpy()[obs["donor"].cat.codes]

    try:
        with np.errstate(over="ignore"):
            dist: NB | ZINB = NB(np.exp(predictors["mean"]), np.exp(predictors["dispersion"]))
    except ValueError as error:
        reason = f"effect_scale={effect_scale} or an offset is too large"
        raise ValueError(f"{reason}: {error}") from error
    if "zero_inflation" in predictors:
        dist = ZINB(dist.mu, dist.r, expit(predictors["zero_inflation"]))
    counts = pd.DataFrame(dist.rvs(random_state=rng), index=obs.index, columns=genes)
    return Bunch(obs=obs, counts=counts, params=params, dist=dist, formulas=formulas, **more)


def _check_arguments(n_samples: int, n_targets: int, preset: str | None, scale: float) -> None:
    numbers: dict[str, tuple[Any, Any]] = {
        "n_samples": (n_samples, Integral),
        "n_targets": (n_targets, Integral),
        "effect_scale": (scale, Real),
    }
    for name, (number, kind) in numbers.items():
        if not isinstance(number, kind) or isinstance(number, bool):
            what = "an integer" if kind is Integral else "a number"
            raise TypeError(f"{name} must be {what}, got {number!r}.")
        if kind is Integral and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")
    if not 0 <= scale < np.inf:
        raise ValueError(f"effect_scale must be finite and at least 0, got {scale}.")
    if preset is not None and preset not in list(PRESETS):
        names = ", ".join(map(repr, PRESETS))
        raise ValueError(f"preset must be None or one of {names}, got {preset!r}.")


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
        }
    )


def _draw_coefficients(
    features: pd.DataFrame,
    genes: list[str],
    part: str,
    effect_scale: float,
    rng: RandomState | Generator,
) -> pd.DataFrame:
    scale = effect_scale * _per_unit(features)
    intercept_mean, intercept_sd = _INTERCEPTS[part]
    is_intercept = features.columns == "Intercept"
    center = np.where(is_intercept, intercept_mean, 0.0)
    spread = np.where(is_intercept, intercept_sd, scale)
    values = rng.normal(center[:, None], spread[:, None], size=(len(center), len(genes)))
    return pd.DataFrame(values, index=features.columns, columns=genes)


def _per_unit(features: pd.DataFrame) -> FloatArray:
    """Return the effects of a unit that move a linear predictor by 1 at most."""
    largest = features.abs().max().to_numpy()
    # A column of zeros (two levels that no cell has both) has no effect that data could tell.
    return np.divide(1.0, largest, out=np.zeros_like(largest), where=largest > 0)


def _draw_like(
    preset: Preset,
    features: dict[str, pd.DataFrame],
    offsets: FloatArray,
    *,
    genes: list[str],
    covariates: set[str],
    effect_scale: float,
    rng: RandomState | Generator,
) -> dict[str, pd.DataFrame]:
    """Draw coefficients of genes that have a preset's levels over all cells."""
    log_mean = preset.log_mean.draw(len(genes), rng)
    at_one, slope, spread = preset.log_size
    log_size = rng.normal(at_one + slope * log_mean, spread)
    params = {}
    for part, table in features.items():
        rules = preset.effects.get(part, {})
        effects = effect_scale * _draw_effects(table, genes, rules, covariates, rng)
        moved = table.to_numpy() @ effects
        if part == "mean":
            level = log_mean - logsumexp(moved + offsets, axis=0, b=1.0 / len(table))
        elif part == "dispersion":
            level = log_size - moved.mean(axis=0)
        else:
            level = rng.normal(*_INTERCEPTS[part], size=len(genes))
        effects[table.columns.get_loc("Intercept")] = level
        params[part] = pd.DataFrame(effects, index=table.columns, columns=genes)
    return params


def _draw_effects(
    features: pd.DataFrame,
    genes: list[str],
    rules: Mapping[str, DrawEffects],
    known: set[str],
    rng: RandomState | Generator,
) -> FloatArray:
    """Draw what columns do, by the rules of their covariates where there are; the intercept: 0."""
    per_unit = _per_unit(features)[:, None]
    effects = rng.normal(size=(features.shape[1], len(genes))) * per_unit
    for covariate, draw in rules.items():
        # Columns of this covariate alone: an interaction is another matter.
        own = [
            i for i, name in enumerate(features.columns) if _covariates(name) & known == {covariate}
        ]
        columns = [features.columns[i] for i in own]
        effects[own] = draw(columns, genes, rng) * per_unit[own]
    effects[features.columns == "Intercept"] = 0.0
    return effects


def _covariates(column: str) -> set[str]:
    """Return the words in the name of a design's column, but for levels, which are in brackets."""
    return set(re.findall(r"\w+", re.sub(r"\[[^]]*\]", "", column)))


def _draw_donors(
    between: tuple[float, float], donor: pd.Series, genes: list[str], rng: RandomState | Generator
) -> pd.DataFrame:
    """Draw what donors add to log mu: normal in each gene, with a deviation of its own."""
    donors = donor.cat.categories
    sd = rng.uniform(*between, size=len(genes))
    effects = rng.normal(0.0, sd, size=(len(donors), len(genes)))
    return pd.DataFrame(effects, index=donors, columns=genes)
