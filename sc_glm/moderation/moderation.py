"""Dispersion shrinkage: moderated sizes, and a fitted model that has them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_glm._contract.docstrings import documented
from sc_glm._likelihood.family import DISPERSION, MEAN
from sc_glm._solver.status import Status
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.log_likelihood import log_likelihoods
from sc_glm.moderation.dispersion_trend import DispersionTrend, fit_trend, posterior
from sc_glm.moderation.size_profile import fit_given_sizes, size_likelihood

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray

__all__ = ["DispersionTrend", "ModeratedDispersion", "moderate_dispersion"]

_POISSON = [str(Status.POISSON), str(Status.POISSON_NO_INFLATION)]


@dataclass(frozen=True)
class ModeratedDispersion:
    """The result of :func:`moderate_dispersion`.

    Attributes
    ----------
    model : estimator
        A copy of the fitted model with the moderated sizes. The other coefficients maximise the
        likelihood at these sizes.
    table : DataFrame
        One row per gene, indexed by name, with columns

        mean
            Weighted average count over the cells.
        overdispersion
            ``1 / r`` of the fitted model. It is zero at the Poisson boundary, and NaN for a gene
            without counts.
        trend
            ``1 / r`` of a typical gene with this mean.
        moderated
            ``1 / r`` of ``model``.
        spread
            Posterior standard deviation of the logarithm of ``moderated``, given the counts and the
            trend.
    trend : DispersionTrend
        The trend at any mean is ``trend.overdispersion(mean)``, and the scale of the distribution
        of genes around it is ``trend.spread``.
    """

    model: Any
    table: pd.DataFrame
    trend: DispersionTrend


@documented(ENTRIES)
def moderate_dispersion(
    model: Any, X: Any, y: Any = None, *, sample_weight: ArrayLike | None = None
) -> ModeratedDispersion:
    r"""Shrink the dispersion of each gene towards a trend over the mean.

    With few cells, counts contain little information on the dispersion of a gene. Many estimates
    are then far from the truth, and some are at the Poisson boundary although the gene is
    overdispersed. All genes together determine how the dispersion depends on the mean, and how much
    genes vary around this trend. The estimate of each gene is a compromise between its own counts
    and the trend. The more information its counts contain, the less it is shrunk.

    Parameters
    ----------
    model : estimator
        A fitted regressor, a pipeline that ends in one, a search over these, or an
        :class:`~sc_glm.adata.AnnDataRegressor`. It has one size for each gene
        (``dispersion="~ 1"``).
    {X_of_fit}
    {y_of_fit}
    {sample_weight_of_fit}

    Returns
    -------
    ModeratedDispersion
        The moderated model, which predicts, samples and scores like any other, a table of genes,
        and the trend. `model` is not changed.

    Raises
    ------
    ValueError
        If the dispersion of the model is not ``~ 1``, is moderated already, or was given. If the
        data are not those of the fit. If fewer than ten genes have counts with information on their
        dispersion.

    See Also
    --------
    DispersionTrend : The trend, and the number of genes that it needs.

    Notes
    -----
    The log size of a gene, :math:`\rho = \log r`, is drawn from a t distribution with five degrees
    of freedom around a natural spline in the logarithm of its mean count. Spline and spread
    maximise the marginal likelihood of all genes, with a small penalty that keeps the spread of few
    genes above zero. The estimate is the posterior mean of :math:`\rho`, by numerical integration.
    No estimate of a single gene is used. Genes at the Poisson boundary therefore have the weight
    that their likelihood gives them. The t distribution shrinks genes that are far from the trend
    only a little. DESeq2 excludes such genes from shrinkage.

    The likelihood of a size is the profile likelihood with the adjustment of Cox and Reid. It also
    removes most of the bias of maximum likelihood, which overestimates sizes if there are few cells
    for the coefficients of the mean and the zero inflation.

    Dispersion shrinkage is established for bulk tissue, in edgeR (McCarthy, Chen and Smyth 2012,
    Nucleic Acids Research 40: 4288) and DESeq2 (Love, Huber and Anders 2014, Genome Biology 15:
    550). These start from estimates of single genes.

    ``status_`` is the status of the other coefficients. ``log_likelihood_`` is the likelihood at
    the moderated sizes, which is lower than its maximum. Likelihood ratio tests, information
    criteria and profile intervals of :mod:`sc_glm.inference` need the maximum, and raise an error
    for a moderated model. Covariances, standard errors, Wald tests and Wald intervals of the other
    coefficients take the sizes as known, as in DESeq2.

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
    gene
    gene_2  0.38            1.11   0.71       0.79    0.36
    gene_3  0.32            0.06   0.69       0.61    0.39
    gene_4  4.86            0.36   0.36       0.36    0.20
    gene_5  0.14            0.00   0.63       0.58    0.41

    Root mean square errors of both models, for the root of ``1 / r``:

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
    if fitted.has_given_size:
        raise ValueError("Dispersion shrinkage needs estimated sizes; the model was given sizes.")
    if fitted.fixed_parts:
        raise ValueError(
            "Dispersion shrinkage needs the model as it was fitted, not a moderated one."
        )
    design = fitted.designs[DISPERSION]
    if design.shape[1] != 1 or np.ptp(design) > 0 or not design.any():
        columns = list(fitted.params[DISPERSION].index)
        raise ValueError(
            "Dispersion shrinkage needs one size for each gene, that is dispersion='~ 1'; the "
            f"dispersion of this model has the columns {columns[:5]}."
        )
    counts, designs = fitted.counts_and_designs(fitted.weights(sample_weight))
    log_likelihoods(fitted, counts, designs)  # raises if the data are not those of the fit
    theta = fitted.coordinates(designs)
    n_jobs = fitted.regressor.n_jobs
    genes = size_likelihood(fitted.family, counts, designs, theta, n_jobs)
    trend = fit_trend(genes)
    found = posterior(genes, trend)
    table = pd.DataFrame(
        {
            "mean": genes.mean,
            "overdispersion": _fitted_overdispersion(fitted),
            "trend": trend.overdispersion(genes.mean),
            "moderated": np.exp(-found.mean),
            "spread": found.spread,
        },
        index=fitted.gene_index,
    )
    theta[:, designs.parts[MEAN].to_coef.shape[1]] = found.mean
    fits = fit_given_sizes(fitted.family, counts, designs, theta, n_jobs)
    fitted.set_results(designs, fits, fixed_parts=(DISPERSION,))
    return ModeratedDispersion(moderated, table, trend)


def _fitted_overdispersion(fitted: FittedData) -> FloatArray:
    """Return ``1 / r``; zero at the Poisson boundary, NaN if counts do not determine the size."""
    result = np.exp(-fitted.params[DISPERSION].to_numpy()[0] * fitted.designs[DISPERSION][0, 0])
    undetermined = fitted.regressor.undetermined_[DISPERSION].to_numpy()[0]
    poisson = np.isin(fitted.status, _POISSON)
    return np.where(poisson, 0.0, np.where(undetermined, np.nan, result))
