"""Simulated counts of cells whose true parameters are known."""

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

# Mean and standard deviation of the intercepts over genes. Most genes have counts in few cells, are
# overdispersed, and have slightly more zeros than their mean and size explain.
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
    """Draw cells, coefficients and counts from the model.

    Parameters
    ----------
    n_samples : int, default=500
        Number of cells.
    n_targets : int, default=20
        Number of genes.
    preset : {"pbmc", "pancreas", "perturbation", "donors"} or None, default=None
        A kind of screen whose cells, means, sizes and effects look like those of a real one:

        - "pbmc": blood cells of nine types, from 26 % of the cells to 0.5 %, and all genes of the
          genome. Of the counts, 97 % are zero, and half of the genes have counts in at most one
          cell;
        - "pancreas": cells along a pseudotime, and highly expressed marker genes whose mean and
          dispersion change much along it;
        - "perturbation": a panel of genes (70 is usual) in cells with one guide each. In 4 of 10
          cells the guide is ``"non-targeting"``. The others have one of four guides for each of
          14 genes, which lower this gene and change few others;
        - "donors": 6 donors of each condition. Means differ between donors, and for 1 in 5 genes
          also between conditions. Tests that assume independent cells find far too many genes.

        None: normal coefficients, and the covariates under Returns.
    mean : str or None, default="auto"
        Formula of log mu in the columns of `obs` (see Returns). None is an intercept. "auto" is
        the formula of the preset, or ``"~ pseudotime + cell_type"`` without a preset.
    dispersion : str or None, default="auto"
        Formula of log r, the size (Var = mu + mu²/r). None is an intercept. "auto" is the
        formula of the preset, or an intercept.
    zero_inflation : str or None, default="auto"
        Formula of logit pi, the probability of a structural zero. With None and "auto", counts
        are negative binomial.
    offset : str or None, default="auto"
        Expression that is added to log mu, such as ``"np.log(size_factor)"``. None is no offset.
        "auto" is ``"np.log(size_factor)"`` with a preset, and no offset without one.
    effect_scale : float, default=1.0
        Factor of all coefficients except for intercepts. A preset has distributions for the
        coefficients of its own formulas. All other coefficients are normal, with a standard
        deviation of 1 over the largest absolute value of their column. So the factor is the
        typical change of a linear predictor by a covariate, whatever its units.
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
            ``donor`` and ``cell_type``. Each preset has a ``size_factor``, the depth of a cell.
        counts : DataFrame of int64, shape (n_samples, n_targets)
            The counts, one column per gene. ``scipy.sparse.csr_array(counts)`` makes a sparse
            matrix of them, and
            ``AnnData(scipy.sparse.csr_matrix(data.counts), obs=data.obs)`` an AnnData.
        params : dict of str to DataFrame
            True coefficients (columns of the design x genes) per part, as in ``params_`` of a
            regressor.
        dist : NB or ZINB of shape (n_samples, n_targets)
            The distributions that the counts were drawn from.
        formulas : dict of str to str or None
            Keyword arguments of :class:`~sc_glm.formula.FormulaTransformer`.
        donor_effects : DataFrame of shape (n_donors, n_targets)
            With ``preset="donors"`` only: the effect of each donor on log mu of each gene, which
            is added to the effects in `params`.

    Raises
    ------
    TypeError
        If a number has another type, or a formula is not a string.
    ValueError
        If a number is out of range, the preset does not exist, or a formula is not valid. With a
        preset, also if a formula has no intercept.

    Notes
    -----
    Without a preset, intercepts are normal over genes, with means that resemble single-cell data:
    -0.5 for log mu, 0.5 for log r and -1.5 for logit pi. Without an intercept in the formula,
    they are 0.

    With a preset, the mean of a gene over all cells is drawn first. The intercept is then solved
    for, given the offset and the drawn effects. So the means are those of the real screen with
    any formula. The guide page on data sets compares each preset with its real screen.

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

    The formulas make the design for a fit, to compare its estimates with the truth:

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
    screen = PRESETS[preset] if preset is not None else None
    formulas = _resolved_formulas(
        {
            "mean": mean,
            "dispersion": dispersion,
            "zero_inflation": zero_inflation,
            "offset": offset,
        },
        _WITHOUT_PRESET if screen is None else screen.formulas,
    )
    genes = [f"gene_{i}" for i in range(n_targets)]
    if screen is None:
        obs = _draw_cells(n_samples, rng)
    else:
        obs = screen.draw_cells(n_samples, genes, rng)
    obs.index = pd.Index([f"cell_{i}" for i in range(n_samples)])
    designs, offsets = _designs(formulas, obs)

    if screen is None:
        params = {
            part: _draw_coefficients(design, genes, part, effect_scale, rng)
            for part, design in designs.items()
        }
    else:
        _check_intercepts(designs, formulas, preset)
        params = _draw_preset_coefficients(
            screen,
            designs,
            offsets,
            genes=genes,
            covariates=set(obs.columns),
            effect_scale=effect_scale,
            rng=rng,
        )
    predictors = {part: (designs[part] @ params[part]).to_numpy() for part in designs}
    predictors["mean"] = predictors["mean"] + offsets  # the array of pandas 3 is read-only
    donor_effects = {}
    if screen is not None and screen.donor_sd is not None:
        donor_effects["donor_effects"] = _draw_donor_effects(
            screen.donor_sd, obs["donor"], genes, rng
        )
        predictors["mean"] += donor_effects["donor_effects"].to_numpy()[obs["donor"].cat.codes]

    dist = _distribution(predictors, effect_scale)
    counts = pd.DataFrame(dist.rvs(random_state=rng), index=obs.index, columns=genes)
    return Bunch(
        obs=obs, counts=counts, params=params, dist=dist, formulas=formulas, **donor_effects
    )


def _resolved_formulas(
    given: Mapping[str, str | None], default: Mapping[str, str]
) -> dict[str, str | None]:
    """Return the formula of each part, with defaults for "auto" and intercepts for None."""
    formulas = {
        part: default.get(part) if isinstance(formula, str) and formula == _AUTO else formula
        for part, formula in given.items()
    }
    for part in ("mean", "dispersion"):
        formulas[part] = "~ 1" if formulas[part] is None else formulas[part]
    return formulas


def _designs(
    formulas: dict[str, str | None], obs: pd.DataFrame
) -> tuple[dict[str, pd.DataFrame], FloatArray]:
    """Return the design of each part that has a formula, and a column of offsets."""
    transformer = FormulaTransformer().set_params(**formulas)
    design = transformer.fit_transform(obs)
    columns = {part: design.filter(regex=f"^{part}__") for part in formulas}
    designs = {
        part: columns[part].rename(columns=lambda name: name.split("__", 1)[1])
        for part in ("mean", "dispersion", "zero_inflation")
        if formulas[part] is not None
    }
    return designs, columns["offset"].sum(axis=1).to_numpy()[:, None]


def _check_intercepts(
    designs: Mapping[str, pd.DataFrame], formulas: Mapping[str, str | None], preset: str | None
) -> None:
    """Refuse formulas without an intercept, since presets set the level of a gene by it."""
    for part, design in designs.items():
        if "Intercept" not in design:
            raise ValueError(
                f"{part}={formulas[part]!r} has no intercept, by which preset={preset!r} "
                "sets the level of each gene: leave out '0 +' or '- 1'."
            )


def _distribution(predictors: Mapping[str, FloatArray], effect_scale: float) -> NB | ZINB:
    """Return the distributions of the counts with these linear predictors."""
    try:
        with np.errstate(over="ignore"):
            dist = NB(np.exp(predictors["mean"]), np.exp(predictors["dispersion"]))
    except ValueError as error:
        raise ValueError(
            f"effect_scale={effect_scale} or an offset is too large: {error}"
        ) from error
    if "zero_inflation" in predictors:
        return ZINB(dist.mu, dist.r, expit(predictors["zero_inflation"]))
    return dist


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
    design: pd.DataFrame,
    genes: list[str],
    part: str,
    effect_scale: float,
    rng: RandomState | Generator,
) -> pd.DataFrame:
    scale = effect_scale * _unit_effects(design)
    intercept_mean, intercept_sd = _INTERCEPTS[part]
    is_intercept = design.columns == "Intercept"
    center = np.where(is_intercept, intercept_mean, 0.0)
    spread = np.where(is_intercept, intercept_sd, scale)
    values = rng.normal(center[:, None], spread[:, None], size=(len(center), len(genes)))
    return pd.DataFrame(values, index=design.columns, columns=genes)


def _unit_effects(design: pd.DataFrame) -> FloatArray:
    """Return the coefficient with which each column changes a linear predictor by at most 1."""
    largest = design.abs().max().to_numpy()
    # A column of zeros (an interaction of levels that share no cell) has no identifiable effect.
    return np.divide(1.0, largest, out=np.zeros_like(largest), where=largest > 0)


def _draw_preset_coefficients(
    preset: Preset,
    designs: dict[str, pd.DataFrame],
    offsets: FloatArray,
    *,
    genes: list[str],
    covariates: set[str],
    effect_scale: float,
    rng: RandomState | Generator,
) -> dict[str, pd.DataFrame]:
    """Draw coefficients of genes whose means and sizes over all cells are those of a preset."""
    log_mean = preset.log_mean.draw(len(genes), rng)
    intercept, slope, sd = preset.log_size
    log_size = rng.normal(intercept + slope * log_mean, sd)
    params = {}
    for part, design in designs.items():
        rules = preset.effects.get(part, {})
        effects = effect_scale * _draw_effects(design, genes, rules, covariates, rng)
        change = design.to_numpy() @ effects
        if part == "mean":
            intercepts = log_mean - logsumexp(change + offsets, axis=0, b=1.0 / len(design))
        elif part == "dispersion":
            intercepts = log_size - change.mean(axis=0)
        else:
            intercepts = rng.normal(*_INTERCEPTS[part], size=len(genes))
        effects[design.columns.get_loc("Intercept")] = intercepts
        params[part] = pd.DataFrame(effects, index=design.columns, columns=genes)
    return params


def _draw_effects(
    design: pd.DataFrame,
    genes: list[str],
    rules: Mapping[str, DrawEffects],
    known: set[str],
    rng: RandomState | Generator,
) -> FloatArray:
    """Draw effects of columns, by the rules of a preset where it has one; the intercept is 0."""
    unit = _unit_effects(design)[:, None]
    effects = rng.normal(size=(design.shape[1], len(genes))) * unit
    for covariate, draw in rules.items():
        # Columns of this covariate only, and not of its interactions.
        positions = [
            i for i, name in enumerate(design.columns) if _covariates(name) & known == {covariate}
        ]
        columns = [design.columns[i] for i in positions]
        effects[positions] = draw(columns, genes, rng) * unit[positions]
    effects[design.columns == "Intercept"] = 0.0
    return effects


def _covariates(column: str) -> set[str]:
    """Return the words in the name of a design's column, without levels, which are in brackets."""
    return set(re.findall(r"\w+", re.sub(r"\[[^]]*\]", "", column)))


def _draw_donor_effects(
    sd_range: tuple[float, float], donor: pd.Series, genes: list[str], rng: RandomState | Generator
) -> pd.DataFrame:
    """Draw effects of donors on log mu: normal, with a standard deviation for each gene."""
    donors = donor.cat.categories
    sd = rng.uniform(*sd_range, size=len(genes))
    effects = rng.normal(0.0, sd, size=(len(donors), len(genes)))
    return pd.DataFrame(effects, index=donors, columns=genes)
