"""Moderated dispersion: each gene's size, drawn towards what genes of its mean have."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_glm._likelihood.family import DISPERSION, MEAN
from sc_glm._solver.status import Status
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.log_likelihood import log_likelihoods
from sc_glm.moderation.dispersion_trend import DispersionTrend, fit_trend, posterior
from sc_glm.moderation.size_profile import fit_at_sizes, size_likelihood

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray

__all__ = ["DispersionTrend", "ModeratedDispersion", "moderate_dispersion"]

_POISSON = [str(Status.POISSON), str(Status.POISSON_NO_INFLATION)]


@dataclass(frozen=True)
class ModeratedDispersion:
    """What :func:`moderate_dispersion` returns.

    Attributes
    ----------
    model : estimator
        A copy of the fitted model with the moderated sizes, and the other coefficients of the
        largest likelihood at these.
    table : DataFrame
        One row per gene, indexed by name, with columns

        mean
            Average count over the cells, by weight.
        overdispersion
            ``1 / r`` of the model as it was fitted: zero at the Poisson boundary, NaN of a gene
            without counts.
        trend
            That of a typical gene of this mean.
        moderated
            That of ``model``.
        spread
            Standard deviation of the logarithm of ``moderated``, given the counts and the trend.
    trend : DispersionTrend
        Its ``overdispersion(mean)`` is the trend at any mean, and its ``spread`` how far genes are
        from it.
    """

    model: Any
    table: pd.DataFrame
    trend: DispersionTrend


def moderate_dispersion(
    model: Any, X: Any, y: Any = None, *, sample_weight: ArrayLike | None = None
) -> ModeratedDispersion:
    r"""Draw each gene's dispersion towards what genes of its mean have.

    Few cells tell little of a gene's dispersion: many estimates are far off, and some are at the
    Poisson boundary though the gene is as noisy as any. Genes together tell how dispersion depends
    on the mean, and how far genes are from that; a gene's own counts are then weighed against it.
    The more they tell, the less it moves: with many cells per gene nothing changes.

    Parameters
    ----------
    model : estimator
        A fitted regressor, a pipeline that ends in one, a search over these, or an
        :class:`~sc_glm.adata.AnnDataRegressor`, with one size for each gene (``dispersion="~ 1"``).
    X : array-like, DataFrame or AnnData
        The cells of the fit, as the model takes them.
    y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes)
        The counts of the fit; None where `X` is an AnnData that holds them.
    sample_weight : array-like of shape (n_cells,), default=None
        The weights of the fit.

    Returns
    -------
    ModeratedDispersion
        The moderated model, which predicts, samples and scores like any other; a table of genes;
        and the trend. `model` stays as it is.

    Raises
    ------
    ValueError
        If the model's dispersion is not ``~ 1`` or is moderated already, the data are not those of
        its fit, or fewer than ten genes have counts that tell something of their dispersion: no
        trend can be told from these.

    See Also
    --------
    DispersionTrend : The trend, and how many genes it takes.

    Notes
    -----
    A gene's log size :math:`\rho = \log r` is taken to be drawn from a t distribution with five
    degrees of freedom around a natural spline in the logarithm of its mean count. Spline and spread
    are those of the largest marginal likelihood of all genes, but for a little that keeps the
    spread of few genes off zero. The estimate is the mean of
    :math:`\rho` given the gene's counts, trend and spread, by numerical integration; no estimate
    of a single gene comes in, so that genes at the Poisson boundary count for what they are. The
    t distribution leaves genes that are far from the trend about where their counts are, as DESeq2
    does by leaving them out.

    The likelihood of a size alone is the profile likelihood with Cox and Reid's adjustment. It also
    takes off most of the bias of maximum likelihood, which finds too large a size where cells are
    few for the coefficients of the mean and the zero inflation.

    The same is known from bulk tissue: edgeR (McCarthy, Chen and Smyth 2012, Nucleic Acids Research
    40: 4288) and DESeq2 (Love, Huber and Anders 2014, Genome Biology 15: 550), from which it
    differs in that no first estimates are used.

    ``status_`` tells how the other coefficients ended, and ``log_likelihood_`` is the likelihood at
    the moderated sizes, lower than at its maximum. So :mod:`sc_glm.inference` has no likelihood
    ratios, information criteria and profile intervals of a moderated model, and refuses it there.
    Covariances, standard errors, Wald tests and intervals of the other coefficients take the sizes
    as known, as they are in DESeq2.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.moderation import moderate_dispersion
    >>> data = make_counts(n_samples=100, n_targets=100, mean="~ pseudotime", random_state=0)
    >>> X = data.obs[["pseudotime"]]
    >>> model = NegBinRegressor().fit(X, data.counts)
    >>> result = moderate_dispersion(model, X, data.counts)
    >>> result.table.iloc[2:6].round(2)
            mean  overdispersion  trend  moderated  spread
    gene_2  0.38            1.11   0.71       0.79    0.36
    gene_3  0.32            0.06   0.69       0.61    0.39
    gene_4  4.86            0.36   0.36       0.36    0.20
    gene_5  0.14            0.00   0.63       0.58    0.41

    How far both are from the truth, on a scale on which an infinite size is zero:

    >>> def root(sizes):
    ...     return np.exp(-0.5 * sizes.loc["Intercept"])
    >>> for fit in (model, result.model):
    ...     error = root(fit.params_["dispersion"]) - root(data.params["dispersion"])
    ...     print(f"{(error**2).mean() ** 0.5:.2f}")
    0.42
    0.19
    """
    moderated = copy.deepcopy(model)
    fitted = FittedData.of(moderated, X, y)
    if fitted.fixed_parts:
        raise ValueError("Moderation needs the model as it was fitted, not a moderated one.")
    design = fitted.designs[DISPERSION]
    if design.shape[1] != 1 or np.ptp(design) > 0 or not design.any():
        columns = list(fitted.params[DISPERSION].index)
        raise ValueError(
            "Moderation needs one size for each gene, that is dispersion='~ 1'; this model's "
            f"dispersion has the columns {columns[:5]}."
        )
    counts, designs = fitted.counts_and_designs(fitted.weights(sample_weight))
    log_likelihoods(fitted, counts, designs)  # which raises if the data are others
    theta = fitted.coordinates(designs)
    n_jobs = fitted.regressor.n_jobs
    genes = size_likelihood(fitted.family, counts, designs, theta, n_jobs)
    trend = fit_trend(genes)
    found = posterior(genes, trend)
    table = pd.DataFrame(
        {
            "mean": genes.mean,
            "overdispersion": _as_fitted(fitted),
            "trend": trend.overdispersion(genes.mean),
            "moderated": np.exp(-found.mean),
            "spread": found.spread,
        },
        index=pd.Index(fitted.names),
    )
    theta[:, designs.parts[MEAN].to_coef.shape[1]] = found.mean
    fits = fit_at_sizes(fitted.family, counts, designs, theta, n_jobs)
    fitted.set_results(designs, fits, fixed_parts=(DISPERSION,))
    return ModeratedDispersion(moderated, table, trend)


def _as_fitted(fitted: FittedData) -> FloatArray:
    """Return each gene's ``1 / r``; that of a size which the counts leave open is zero or NaN."""
    result = np.exp(-fitted.params[DISPERSION].to_numpy()[0] * fitted.designs[DISPERSION][0, 0])
    undetermined = fitted.regressor.undetermined_[DISPERSION].to_numpy()[0]
    poisson = np.isin(fitted.status, _POISSON)
    return np.where(poisson, 0.0, np.where(undetermined, np.nan, result))
