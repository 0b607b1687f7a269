"""The estimators: counts regressed on covariates by maximum likelihood, gene by gene."""

from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm.distributions.count_distributions import NB, ZINB
from sc_glm.estimators.base import CountRegressor


class NegBinRegressor(CountRegressor):
    r"""Negative binomial regression of counts, with a formula for the mean and one for the size.

    Every gene is fitted by full maximum likelihood of both parts jointly,

    .. math:: \log\mu = X_\mu \beta + \text{offset}, \qquad \log r = X_r \gamma,

    where the variance is :math:`\mu + \mu^2 / r`. The part is called ``dispersion`` and its value
    :math:`r` is the *size*, as in glmmTMB's ``nbinom2``: large is Poisson. DESeq2 and edgeR call
    :math:`1 / r` dispersion.

    Parameters
    ----------
    alpha : float or dict of str to float, default=0.0
        Ridge penalty on all coefficients but intercepts, one for all parts or by part. As in
        scikit-learn's GLMs, the mean log-likelihood per cell loses ``alpha / 2`` times their
        squared norm.
    fit_intercept : bool, default=True
        Whether the mean has an intercept when `X` is a plain matrix. In a design frame the
        formula decides.
    max_iter : int, default=100
        Newton iterations allowed to a gene.
    tol : float, default=1e-6
        A gene has converged when a further Newton step promises it less log-likelihood than this,
        at weights whose mean is from 1 to 4; others are taken relative to these bounds.
    batch_size : int or "auto", default="auto"
        Genes fitted side by side by one worker.
    n_jobs : int, default=None
        Workers that share the genes of a fit, as joblib counts them; each uses one thread. Samples
        are drawn by as many threads.
    device : str or torch.device, default="cpu"
        Where torch computes: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. The fitted model
        holds NumPy and pandas only, and opens anywhere.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the computation; single precision is for devices without fast double, and for
        counts up to 2**24, about 17 million. Double precision is for counts up to a thousand
        million.
    warm_start : bool, default=False
        Whether to start a further fit of the same genes and columns at the last coefficients.
    checkpoint_dir : str or path-like, default=None
        Folder in which finished genes are kept as the fit proceeds. If it is cut short, the same
        fit with the same folder goes on from there; `n_jobs`, `batch_size` and `device` may be
        others. The folder stays when the fit is complete, and belongs to it: any other fit is
        refused, so leave this None in a cross-validation.
    verbose : int, default=0
        Above zero, show in terminals and notebooks how many genes are done and how long the others
        will take. Nothing is written to a file.

    Attributes
    ----------
    params_ : dict of str to DataFrame
        Coefficients of each part, features x genes.
    coef_ : ndarray of shape (n_targets, n_features) or (n_features,)
        Coefficients of the mean but the intercept.
    intercept_ : ndarray of shape (n_targets,) or float
        Intercepts of the mean, zero without one.
    log_likelihood_ : ndarray of shape (n_targets,)
        Weighted log-likelihood of each gene at the estimate.
    n_iter_ : ndarray of shape (n_targets,)
        Newton iterations of the run that ended at the estimate.
    status_ : ndarray of str of shape (n_targets,)
        How each fit ended: ``converged``, ``Poisson boundary`` (the size is infinite),
        ``separated`` (some coefficients are infinite, as for a group without counts), ``all zero``,
        ``too few counts``, ``not identified``, ``iteration limit``; see :meth:`summary`.
    undetermined_ : dict of str to DataFrame of bool
        Like ``params_``: whether a gene's counts leave a coefficient open, as it is infinite or
        nothing depends on it.
    aliased_ : dict of str to ndarray of str
        Of each part, the columns that depend on others or are zero, and so have no coefficient of
        their own.
    converged_ : ndarray of bool of shape (n_targets,)
        Whether the likelihood reached its supremum, which some genes have at infinity.
    target_names_ : ndarray of str of shape (n_targets,)
        Names of the genes, ``y0, y1, ...`` unless `y` has column names.
    n_cells_ : int
        Number of cells of the fit; those without a weight are none of them.
    n_features_in_ : int
        Number of columns of `X`.
    feature_names_in_ : ndarray of str
        Names of the columns of `X`, when it has any.

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


class ZINBRegressor(CountRegressor):
    r"""Zero-inflated negative binomial regression, with formulas for mean, size and zeros.

    A count is zero with probability :math:`\pi`, where
    :math:`\operatorname{logit} \pi = X_\pi \delta`, and otherwise drawn from the negative binomial
    of :class:`NegBinRegressor`. The part ``mean`` is the mean :math:`\mu` of that negative
    binomial; counts have mean :math:`(1 - \pi) \mu`.

    Parameters
    ----------
    alpha : float or dict of str to float, default=0.0
        Ridge penalty on all coefficients but intercepts, one for all parts or by part. As in
        scikit-learn's GLMs, the mean log-likelihood per cell loses ``alpha / 2`` times their
        squared norm.
    fit_intercept : bool, default=True
        Whether the mean has an intercept when `X` is a plain matrix. In a design frame the
        formula decides.
    max_iter : int, default=100
        Newton iterations allowed to a gene.
    tol : float, default=1e-6
        A gene has converged when a further Newton step promises it less log-likelihood than this,
        at weights whose mean is from 1 to 4; others are taken relative to these bounds.
    batch_size : int or "auto", default="auto"
        Genes fitted side by side by one worker.
    n_jobs : int, default=None
        Workers that share the genes of a fit, as joblib counts them; each uses one thread. Samples
        are drawn by as many threads.
    device : str or torch.device, default="cpu"
        Where torch computes: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. The fitted model
        holds NumPy and pandas only, and opens anywhere.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the computation; single precision is for devices without fast double, and for
        counts up to 2**24, about 17 million. Double precision is for counts up to a thousand
        million.
    warm_start : bool, default=False
        Whether to start a further fit of the same genes and columns at the last coefficients.
    checkpoint_dir : str or path-like, default=None
        Folder in which finished genes are kept as the fit proceeds. If it is cut short, the same
        fit with the same folder goes on from there; `n_jobs`, `batch_size` and `device` may be
        others. The folder stays when the fit is complete, and belongs to it: any other fit is
        refused, so leave this None in a cross-validation.
    verbose : int, default=0
        Above zero, show in terminals and notebooks how many genes are done and how long the others
        will take. Nothing is written to a file.

    Attributes
    ----------
    params_ : dict of str to DataFrame
        Coefficients of each part, features x genes.
    coef_ : ndarray of shape (n_targets, n_features) or (n_features,)
        Coefficients of the mean but the intercept.
    intercept_ : ndarray of shape (n_targets,) or float
        Intercepts of the mean, zero without one.
    log_likelihood_ : ndarray of shape (n_targets,)
        Weighted log-likelihood of each gene at the estimate.
    n_iter_ : ndarray of shape (n_targets,)
        Newton iterations of the run that ended at the estimate.
    status_ : ndarray of str of shape (n_targets,)
        How each fit ended: the words of :class:`NegBinRegressor`, ``no zero inflation`` (pi is
        zero) and ``Poisson boundary, no zero inflation``.
    undetermined_ : dict of str to DataFrame of bool
        Like ``params_``: whether a gene's counts leave a coefficient open, as it is infinite or
        nothing depends on it.
    aliased_ : dict of str to ndarray of str
        Of each part, the columns that depend on others or are zero, and so have no coefficient of
        their own.
    converged_ : ndarray of bool of shape (n_targets,)
        Whether the likelihood reached its supremum, which some genes have at infinity.
    target_names_ : ndarray of str of shape (n_targets,)
        Names of the genes, ``y0, y1, ...`` unless `y` has column names.
    n_cells_ : int
        Number of cells of the fit; those without a weight are none of them.
    n_features_in_ : int
        Number of columns of `X`.
    feature_names_in_ : ndarray of str
        Names of the columns of `X`, when it has any.

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
