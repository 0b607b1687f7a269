"""Comparison of models by cross-validation: their held-out log-likelihoods, gene by gene."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from sklearn.utils import indexable
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _num_samples

from sc_glm._contract.user_warnings import warn
from sc_glm._contract.validation import (
    check_same_order,
    column_or_values,
    covariates_in,
    group_codes,
    is_anndata,
)
from sc_glm._counts.anndata_matrix import read_counts
from sc_glm._counts.count_matrix import CountMatrix
from sc_glm.estimators.base import CountRegressor
from sc_glm.estimators.input_checks import check_sample_weight
from sc_glm.selection.folds import check_held_out, split_cells
from sc_glm.selection.held_out import HeldOutSums, score_fold

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray

_NO_LAYER = object()  # of a model that was not fitted to an AnnData
_MAX_GENES_NAMED = 3  # in a warning


def compare_models(
    models: Mapping[str, Any],
    X: Any,
    y: Any = None,
    *,
    cv: Any = None,
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    r"""Compare models gene by gene by the log-likelihood of held-out cells.

    Each model is fitted once to the training cells of each fold, all genes together. Models with
    equal parameters are fitted only once.

    Parameters
    ----------
    models : dict of str to estimator
        Regressors, pipelines that end in one, searches over these, or
        :class:`~sc_glm.adata.AnnDataRegressor`. For an AnnData, they are the latter, or models that
        :func:`sc_glm.adata.fit` fitted, since these know the layer of the counts. The first is
        the reference. For :func:`choose_model`, order them from the simplest to the most complex.
        They are cloned, and not changed.
    X : array-like, DataFrame or AnnData of n_cells rows
        Covariates of the cells, as the models take them.
    y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
        Counts; None reads them from the AnnData `X`.
    cv : int, splitter or iterable of (train, test), default=None
        How to split the cells, as in :func:`~sklearn.model_selection.cross_validate`; None is 5
        folds. Each cell is held out at most once.
    groups : str or array-like of shape (n_cells,), default=None
        The group of each cell, such as its donor, or the name of a column of `X`. With groups, a
        number of folds means :class:`~sklearn.model_selection.GroupKFold`, and standard errors are
        between groups. The held-out cells of a group must all be in one fold.
    sample_weight : str or array-like of shape (n_cells,), default=None
        Weights of the cells, or the name of a column of `X`, in fits and in the likelihood of
        held-out cells. An integer weight is equivalent to that number of copies of the cell, in
        the same fold and group. Without `groups`, copies count as independent cells. If they are
        repetitions of one cell, give a label for each cell as `groups`.
    n_jobs : int, default=None
        Number of folds that are evaluated at the same time, as joblib counts them. The result does
        not depend on it. Parameter ``n_jobs`` of a model is about the genes of one fit.

    Returns
    -------
    DataFrame
        One row per gene and model, gene by gene, in the order of the counts and of `models`:

        - ``gene``: name of the gene;
        - ``model``: name of the model, an ordered categorical in the order of `models`;
        - ``log_likelihood``: mean log-likelihood of held-out cells, per cell, in nats;
        - ``difference``: ``log_likelihood`` minus the value of the reference;
        - ``standard_error``: standard error of ``difference``;
        - ``shortfall``: the value of the gene's best model minus ``log_likelihood``, at least 0;
        - ``shortfall_error``: standard error of ``shortfall``;
        - ``n_failed``: number of folds in which the gene's fit did not converge
          (``converged_`` is False). Its likelihood is evaluated where the fit stopped.

    Raises
    ------
    TypeError
        If `models` is not a dict, or if a model does not end in a regressor of this package.
    ValueError
        If data are not valid, or if a cell is held out twice or a group in several folds. Also if a
        model cannot be fitted to a fold or score it; the message names the model and the fold.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        Once, if some fits did not converge; column ``n_failed`` shows which.

    See Also
    --------
    choose_model : Chooses the simplest model of each gene that is about as good as the best.

    Notes
    -----
    Let :math:`D_i` be the difference of two models' log-likelihoods, summed over the cells of group
    :math:`i`. Let :math:`n_i` be the number of these cells and :math:`m` the number of groups; all
    sums and numbers are weighted. With :math:`N = \sum_i n_i`, the difference per cell is the
    ratio of means :math:`\delta = \sum_i D_i / N`, and its standard error is

    .. math:: \sqrt{\frac{m}{m - 1} \sum_i (D_i - \delta n_i)^2} \, / \, N,

    the standard error of a ratio estimate [1]_. Without `groups` each cell is a group, and this is
    the standard deviation of the cells' differences divided by :math:`\sqrt{N}`. The differences
    are paired: variation of cells that affects both models' log-likelihoods equally cancels. Folds
    share most of their training cells, which no standard error of a cross-validation accounts
    for [2]_.

    Cells of an AnnData are often sorted by type or batch. A number of folds splits them in this
    order, as in scikit-learn. ``KFold(5, shuffle=True, random_state=0)`` shuffles them.

    References
    ----------
    .. [1] Cochran (1977), Sampling Techniques, 3rd edition, section 6.4.
    .. [2] Bengio and Grandvalet (2004), No unbiased estimator of the variance of K-fold
       cross-validation, Journal of Machine Learning Research 5, 1089-1105.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.selection import choose_model, compare_models
    >>> data = make_counts(600, 3, mean="~ pseudotime", effect_scale=2, random_state=0)
    >>> models = {
    ...     "constant": make_pipeline(FormulaTransformer("~ 1"), NegBinRegressor()),
    ...     "trend": make_pipeline(FormulaTransformer("~ pseudotime"), NegBinRegressor()),
    ...     "inflated": make_pipeline(FormulaTransformer("~ pseudotime"), ZINBRegressor()),
    ... }
    >>> table = compare_models(models, data.obs, data.counts)
    >>> table.pivot(index="gene", columns="model", values="difference").round(3)
    model   constant  trend  inflated
    gene
    gene_0       0.0  0.006     0.006
    gene_1       0.0  0.055     0.055
    gene_2       0.0  0.078     0.075
    >>> choose_model(table).to_dict()
    {'gene_0': 'trend', 'gene_1': 'trend', 'gene_2': 'trend'}
    """
    _check_models(models)
    groups = column_or_values(X, groups, "groups")
    sample_weight = column_or_values(X, sample_weight, "sample_weight")
    if y is None:
        X, y = _covariates_and_counts(models, X)
    X, y = indexable(X, y)
    n_cells = _num_samples(X)
    if y is not None:
        check_same_order(X, y, "y")
        CountMatrix.of(y, n_cells=n_cells)
    # Without groups, each cell is a group.
    codes = np.arange(n_cells) if groups is None else group_codes(groups, X, n_cells)
    weights = check_sample_weight(sample_weight, X, np.empty((n_cells, 1)))
    splits = split_cells(cv, X, y, groups, codes)
    check_held_out([test for _, test in splits], codes, groups, weights)
    distinct, positions = _deduplicate(models)
    folds = Parallel(n_jobs=n_jobs)(
        delayed(score_fold)(
            distinct,
            X,
            y,
            split,
            groups=None if groups is None else codes,
            weights=None if sample_weight is None else weights,
            fold=f"fold {k} of {len(splits)}",
        )
        for k, split in enumerate(splits, start=1)
    )
    genes = folds[0][0]
    sums = HeldOutSums(*(sum(parts) for parts in zip(*(sums for _, sums in folds), strict=True)))
    table = _table(genes, list(models), sums.of_models(positions))
    _warn_of_failed_fits(table)
    return table


def _check_models(models: Any) -> None:
    if not isinstance(models, Mapping):
        raise TypeError(f"models must be a dict of names and estimators, not {models!r}.")
    if not models:
        raise ValueError("models is empty: at least one model is needed, the reference.")
    for name, model in models.items():
        if not isinstance(name, str):
            raise TypeError(f"The names of models must be strings, not {name!r}.")
        if not isinstance(_unwrapped_regressor(model), CountRegressor):
            raise TypeError(
                f"models[{name!r}] must be a NegBinRegressor or ZINBRegressor, or end in one, not "
                f"{model!r}."
            )


def _covariates_and_counts(models: Mapping[str, Any], X: Any) -> tuple[Any, Any]:
    """Return what models are fitted to if there is no ``y``.

    It is the AnnData itself if all models read their counts from it, and otherwise its covariates,
    and the counts of all genes in the layer that fitted models remember.
    """
    others = {
        name: model
        for name, model in models.items()
        if not hasattr(getattr(model, "estimator", model), "counts")
    }
    if not others:
        return X, None
    layers = {name: _layer_of_fit(model) for name, model in others.items()}
    unknown = [name for name, layer in layers.items() if layer is _NO_LAYER]
    if unknown or not is_anndata(X):
        raise ValueError(
            f"y is None, but models[{(unknown or list(others))[0]!r}] is not an AnnDataRegressor, "
            "nor fitted by sc_glm.adata.fit, and only these know the counts in X. Give the counts "
            "as y."
        )
    layer, *different = {*layers.values()}
    if different or len(others) < len(models):
        raise ValueError(
            f"The models {list(models)} read the counts of different layers, or only some are an "
            "AnnDataRegressor. Make each one an AnnDataRegressor of the same layer."
        )
    return covariates_in(X), CountMatrix.of(
        read_counts(X, layer), n_cells=X.n_obs, names=np.asarray(X.var_names, dtype=object)
    )


def _layer_of_fit(model: Any) -> Any:
    """Return the layer of the AnnData that a model was fitted to; ``_NO_LAYER`` if to none."""
    model = getattr(model, "best_estimator_", model)
    return getattr(model[-1] if isinstance(model, Pipeline) else model, "layer_", _NO_LAYER)


def _unwrapped_regressor(model: Any) -> Any:
    """Return the regressor in a pipeline, a search or an AnnDataRegressor that is not fitted."""
    if isinstance(model, Pipeline):
        return _unwrapped_regressor(model.steps[-1][1])
    inner = getattr(model, "estimator", getattr(model, "model", None))
    return model if inner is None else _unwrapped_regressor(inner)


def _deduplicate(models: Mapping[str, Any]) -> tuple[dict[str, Any], NDArray[np.intp]]:
    """Return the distinct models, and for each name the position of its model among them."""
    first_name: dict[Any, str] = {}
    names = [first_name.setdefault(_hash(model), name) for name, model in models.items()]
    kept = list(first_name.values())
    return {name: models[name] for name in kept}, np.array([kept.index(name) for name in names])


def _hash(model: Any) -> Any:
    """Return a key that is equal for models of one class with equal parameters."""
    try:
        return joblib.hash(clone(model))
    except (pickle.PicklingError, TypeError):  # for example because a parameter is a function
        return id(model)


def _table(genes: NDArray[np.object_], names: list[str], sums: HeldOutSums) -> pd.DataFrame:
    """Return the result of :func:`compare_models`."""
    mean = sums.log_likelihood / sums.n_cells
    reference, best = np.zeros(len(genes), dtype=int), mean.argmax(axis=0)
    columns = {
        "log_likelihood": mean,
        "difference": mean - mean[0],
        "standard_error": _standard_errors(sums, reference),
        "shortfall": mean.max(axis=0) - mean,
        "shortfall_error": _standard_errors(sums, best),
        "n_failed": sums.n_failed,
    }
    return pd.DataFrame(
        {
            "gene": np.repeat(genes, len(names)),
            "model": pd.Categorical(names * len(genes), categories=names, ordered=True),
            **{name: values.T.ravel() for name, values in columns.items()},
        }
    )


def _standard_errors(sums: HeldOutSums, other: NDArray[np.intp]) -> FloatArray:
    """Return standard errors of mean differences between each model and each gene's ``other``."""
    gene = np.arange(len(other))
    difference = (sums.log_likelihood - sums.log_likelihood[other, gene]) / sums.n_cells
    n_difference = sums.n_times_log_likelihood - sums.n_times_log_likelihood[other, gene]
    squares = sums.squared_differences[:, other, gene]
    # The sum over groups of (D - difference * n)², expanded, where D are differences of L.
    centred = squares - 2 * difference * n_difference + difference**2 * sums.n_squared
    variance = np.maximum(centred, 0.0) * sums.n_groups / (sums.n_groups - 1)
    return np.sqrt(variance) / sums.n_cells


def _warn_of_failed_fits(table: pd.DataFrame) -> None:
    failed = pd.unique(table.loc[table["n_failed"] > 0, "gene"])
    if len(failed):
        more = ", ..." if len(failed) > _MAX_GENES_NAMED else ""
        warn(
            f"Fits of {len(failed)} gene(s) did not converge in some fold "
            f"({', '.join(failed[:_MAX_GENES_NAMED])}{more}): see column n_failed.",
            ConvergenceWarning,
        )
