"""A model whose `X` is an AnnData, for scikit-learn's cross-validation and searches."""

from typing import Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.utils import Tags

from sc_glm._contract.callbacks import CallbackSupportMixin, reporting_to_callbacks, with_callbacks
from sc_glm._contract.docstrings import documented
from sc_glm._contract.state import StateMixin
from sc_glm._contract.validation import check_same_order, column_or_values
from sc_glm._counts.anndata_matrix import read_counts_of_genes
from sc_glm.adata.docstring_entries import ENTRIES
from sc_glm.adata.fitting import fit_in_place
from sc_glm.adata.models import fitted_regressor, regressor_and_design
from sc_glm.adata.reading import check_anndata, covariates_of
from sc_glm.distributions.count_distributions import NB, ZINB
from sc_glm.estimators.notebook import NotebookMixin, notebook_html


@documented(ENTRIES)
class AnnDataRegressor(
    NotebookMixin,
    StateMixin,
    CallbackSupportMixin,  # type: ignore[misc]
    MetaEstimatorMixin,  # type: ignore[misc]
    RegressorMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """A model whose `X` is an AnnData: covariates from ``obs``, counts from ``X`` or a layer.

    An AnnData can be indexed by cells like an array by rows. So it can be the `X` of
    :func:`~sklearn.model_selection.cross_validate`, :class:`~sklearn.model_selection.GridSearchCV`
    and splitters by group; `y` stays None. Sparse counts stay sparse.

    Parameters
    ----------
    model : estimator
        A pipeline of a :class:`~sc_glm.FormulaTransformer` and a regressor, or a search over such
        pipelines. A regressor alone takes all columns of ``obs``, which must be numbers, as the
        covariates of the mean.
    {layer}
    {memory_budget}

    Attributes
    ----------
    model_ : estimator
        The fitted clone of `model`; it predicts from data frames. Its genes are named by
        ``adata.var_names``.
    {params_}

    See Also
    --------
    fit : Fits a model to an AnnData and keeps the results in it.

    Notes
    -----
    The scorers of :mod:`sc_glm.metrics` can be passed as ``scoring``: without a `y` they call
    :meth:`counts`.

    A category that no training cell has is not a level of the fit. Scoring cells that have it
    raises an error, like any other unknown level.

    Examples
    --------
    >>> from anndata import AnnData
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.adata import AnnDataRegressor
    >>> from sc_glm.datasets import make_counts
    >>> data = make_counts(random_state=0)
    >>> adata = AnnData(data.counts, obs=data.obs.set_axis(data.obs.index.astype(str)))
    >>> model = AnnDataRegressor(make_pipeline(FormulaTransformer("~ 1"), NegBinRegressor()))
    >>> grid = {"model__formulatransformer__mean": ["~ 1", data.formulas["mean"]]}
    >>> search = GridSearchCV(model, grid, cv=3).fit(adata)
    >>> search.best_params_["model__formulatransformer__mean"] == data.formulas["mean"]
    True
    """

    def __init__(
        self, model: Any, *, layer: str | None = None, memory_budget: int | str = "4GB"
    ) -> None:
        self.model = model
        self.layer = layer
        self.memory_budget = memory_budget

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.regressor_tags.poor_score = True  # a log-likelihood, not an R²
        tags.no_validation = True
        return tags

    @documented(ENTRIES)
    @with_callbacks
    def fit(self, X: AnnData, y: None = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit a clone of the model to cells. The AnnData is not changed.

        Parameters
        ----------
        {adata_with_counts}
        {y_is_none}
        {sample_weight}

        Returns
        -------
        AnnDataRegressor
            The fitted estimator.

        Raises
        ------
        {raises_invalid_counts}

        Warns
        -----
        {warns_no_counts}
        """
        _check_no_target(y)
        model = clone(self.model)
        with reporting_to_callbacks(self, X, sample_weight=sample_weight):
            fit_in_place(model, X, self.layer, sample_weight, self.memory_budget)
            self.model_ = model
        return self

    @property
    def params_(self) -> dict[str, pd.DataFrame]:
        """Coefficients of each part, features x genes."""
        return fitted_regressor(self).params_

    @documented(ENTRIES)
    def summary(self) -> pd.DataFrame:
        """Return how each gene's fit ended, and which coefficients its counts do not determine.

        Returns
        -------
        {summary}
        """
        return fitted_regressor(self).summary()

    def _notebook_html(self) -> str:
        return notebook_html(fitted_regressor(self)) if hasattr(self, "model_") else ""

    @documented(ENTRIES)
    def counts(self, X: AnnData) -> Any:
        """Return the counts of the model's genes, which are found by name.

        Parameters
        ----------
        {adata_with_counts}

        Returns
        -------
        ndarray or sparse matrix of shape (n_cells, n_genes)
            Counts in memory, dense or sparse as the AnnData stores them.

        Raises
        ------
        ValueError
            If the AnnData lacks genes of the fit.
        """
        genes = fitted_regressor(self).target_names_
        return read_counts_of_genes(check_anndata(X), self.layer, genes)

    @documented(ENTRIES)
    def last_step(self, X: AnnData | pd.DataFrame) -> tuple[Any, Any]:
        """Return the fitted regressor, and its `X` for the cells of an AnnData.

        Parameters
        ----------
        {adata}

        Returns
        -------
        regressor : estimator
            The fitted regressor.
        design : DataFrame or array-like of n_cells rows
            The covariates as the steps before the regressor transform them.
        """
        return regressor_and_design(self, covariates_of(X))

    @documented(ENTRIES)
    def predict(self, X: AnnData | pd.DataFrame) -> NDArray[np.float64]:
        """Return the expected counts.

        Parameters
        ----------
        {adata}

        Returns
        -------
        {expected_counts}

        Warns
        -----
        {warns_not_estimable}
        """
        regressor, design = self.last_step(X)
        return regressor.predict(design)

    @documented(ENTRIES)
    def predict_params(self, X: AnnData | pd.DataFrame) -> dict[str, NDArray[np.float64]]:
        """Return the value of each part for every cell and gene.

        Parameters
        ----------
        {adata}

        Returns
        -------
        {values_of_parts}

        Warns
        -----
        {warns_not_estimable}
        """
        regressor, design = self.last_step(X)
        return regressor.predict_params(design)

    @documented(ENTRIES)
    def predict_dist(self, X: AnnData | pd.DataFrame) -> NB | ZINB:
        """Return the fitted distribution of every cell's and gene's count.

        Parameters
        ----------
        {adata}

        Returns
        -------
        {distribution}

        Raises
        ------
        {raises_not_estimable}
        """
        regressor, design = self.last_step(X)
        return regressor.predict_dist(design)

    @documented(ENTRIES)
    def sample(
        self,
        X: AnnData | pd.DataFrame,
        n_draws: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> NDArray[np.int64]:
        """Draw counts from the fitted model into a dense array.

        Parameters
        ----------
        {adata}
        {n_draws}
        {random_state}

        Returns
        -------
        {drawn_counts}

        Raises
        ------
        {raises_not_estimable}

        See Also
        --------
        sc_glm.adata.sample : Draws the same counts into a sparse matrix.
        """
        regressor, design = self.last_step(X)
        return regressor.sample(design, n_draws, random_state)

    @documented(ENTRIES)
    def log_prob(self, X: AnnData) -> NDArray[np.float64]:
        """Return the log-probability of each count under the fitted model.

        Parameters
        ----------
        {adata_with_counts}

        Returns
        -------
        {log_probabilities}

        Raises
        ------
        {raises_other_genes}
        """
        regressor, design = self.last_step(X)
        return regressor.log_prob(design, self.counts(X))

    @documented(ENTRIES)
    def score(self, X: AnnData, y: None = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean log-likelihood per cell and gene; a larger value is a better fit.

        Parameters
        ----------
        {adata_with_counts}
        {y_is_none}
        {sample_weight}

        Returns
        -------
        {mean_log_likelihood}

        Raises
        ------
        {raises_other_genes}
        """
        _check_no_target(y)
        sample_weight = column_or_values(X, sample_weight, "sample_weight")
        check_same_order(X, sample_weight, "sample_weight")
        regressor, design = self.last_step(X)
        return regressor.score(design, self.counts(X), sample_weight=sample_weight)


def _check_no_target(y: Any) -> None:
    if y is not None:
        raise ValueError("AnnDataRegressor reads the counts from X, an AnnData: y must be None.")
