"""The regressors: counts regressed on covariates by maximum likelihood, gene by gene."""

from sc_glm._contract.docstrings import documented
from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm.distributions.count_distributions import NB, ZINB
from sc_glm.estimators.base import CountRegressor
from sc_glm.estimators.docstring_entries import ENTRIES


@documented(ENTRIES)
class NegBinRegressor(CountRegressor):
    r"""Negative binomial regression of counts, with a formula for the mean and one for the size.

    The coefficients of both parts are estimated jointly, by full maximum likelihood for every gene:

    .. math:: \log\mu = X_\mu \beta + \text{offset}, \qquad \log r = X_r \gamma,

    where the variance is :math:`\mu + \mu^2 / r`. The part is called ``dispersion`` and its value
    :math:`r` is the *size*, as in glmmTMB's ``nbinom2``; the Poisson distribution is its limit for
    large :math:`r`. DESeq2 and edgeR call :math:`1 / r` dispersion.

    Parameters
    ----------
    {alpha}
    {fit_intercept}
    {max_iter}
    {tol}
    {batch_size}
    {n_jobs}
    {device}
    {dtype}
    {warm_start}
    {checkpoint_dir}
    {verbose}
    {size}

    Attributes
    ----------
    {params_}
    {coef_}
    {intercept_}
    {log_likelihood_}
    {n_iter_}
    status_ : ndarray of str of shape (n_targets,)
        How each fit ended: ``converged``, ``Poisson boundary`` (the size is infinite),
        ``separated`` (some coefficients are infinite, for example if a group has no counts),
        ``all zero``, ``too few counts``, ``not identified`` or ``iteration limit``. Method
        :meth:`summary` names the coefficients that are not determined.
    {undetermined_}
    {aliased_}
    {converged_}
    {target_names_}
    {n_cells_}
    {layer_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    ZINBRegressor : With structural zeros.
    FormulaTransformer : Makes design frames from formulas.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_glm import NegBinRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 1))
    >>> mu = np.exp(1 + 0.5 * X)
    >>> y = rng.negative_binomial(2, 2 / (2 + mu)).ravel()
    >>> model = NegBinRegressor().fit(X, y)
    >>> model.params_["mean"].round(2)
                 y0
    Intercept  0.96
    x0         0.53
    >>> model.status_
    array(['converged'], dtype=object)
    """

    _family = NegBinFamily()
    _distribution = NB


@documented(ENTRIES)
class ZINBRegressor(CountRegressor):
    r"""Zero-inflated negative binomial regression, with formulas for mean, size and zeros.

    A count is a structural zero with probability :math:`\pi`. Otherwise it has a negative binomial
    distribution of mean :math:`\mu` and variance :math:`\mu + \mu^2 / r`. The coefficients of the
    three parts are estimated jointly, by full maximum likelihood for every gene:

    .. math:: \log\mu = X_\mu \beta + \text{offset}, \qquad \log r = X_r \gamma, \qquad
        \operatorname{logit} \pi = X_\pi \delta.

    The part ``mean`` is the mean :math:`\mu` of the negative binomial distribution; counts have
    mean :math:`(1 - \pi) \mu`. The value of the part ``dispersion`` is the *size* :math:`r`, and
    :math:`1 / r` is what DESeq2 and edgeR call dispersion.

    Parameters
    ----------
    {alpha}
    {fit_intercept}
    {max_iter}
    {tol}
    {batch_size}
    {n_jobs}
    {device}
    {dtype}
    {warm_start}
    {checkpoint_dir}
    {verbose}
    {size}

    Attributes
    ----------
    {params_}
    {coef_}
    {intercept_}
    {log_likelihood_}
    {n_iter_}
    status_ : ndarray of str of shape (n_targets,)
        How each fit ended: ``converged``, ``Poisson boundary`` (the size is infinite), ``no zero
        inflation`` (pi is zero), ``Poisson boundary, no zero inflation``, ``separated`` (some
        coefficients are infinite, for example if a group has no counts), ``all zero``, ``too few
        counts``, ``not identified`` or ``iteration limit``. Method :meth:`summary` names the
        coefficients that are not determined.
    {undetermined_}
    {aliased_}
    {converged_}
    {target_names_}
    {n_cells_}
    {layer_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    NegBinRegressor : Without structural zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_glm import ZINBRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(2000, 1))
    >>> y = rng.negative_binomial(2, 0.2, size=2000) * (rng.uniform(size=2000) > 0.3)
    >>> model = ZINBRegressor().fit(X, y)
    >>> model.predict_params(X[:2])["zero_inflation"].round(1)
    array([0.3, 0.3])
    """

    _family = ZINBFamily()
    _distribution = ZINB
