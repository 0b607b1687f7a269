"""scikit-learn's pipeline with the methods of a fitted count distribution."""

from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config, pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sc_glm._contract.docstrings import documented
from sc_glm._contract.state import StateMixin
from sc_glm._contract.validation import check_same_order, is_anndata
from sc_glm._counts.anndata_matrix import read_counts_of_genes
from sc_glm.distributions.count_distributions import NB, ZINB
from sc_glm.estimators.docstring_entries import ENTRIES
from sc_glm.estimators.notebook import NotebookMixin, notebook_html


def _last_step_has(method: str) -> Any:
    def check(self: "Pipeline") -> bool:
        getattr(self._final_estimator, method)
        return True

    return available_if(check)


def last_step(model: Any, X: Any) -> tuple[Any, Any]:
    """Return the regressor of a fitted model, and `X` as the steps before it transform `X`.

    It gives access to ``predict_dist`` and other methods that scikit-learn's pipeline does not
    have. For a search, it is the regressor of the best model. A meta-estimator may have a method
    ``last_step``. Any other estimator is its own last step.
    """
    if hasattr(model, "best_estimator_"):
        return last_step(model.best_estimator_, X)
    if hasattr(model, "last_step"):
        return model.last_step(X)
    if not isinstance(model, pipeline.Pipeline):
        return model, X
    check_is_fitted(model)
    return model[-1], model[:-1].transform(X) if len(model) > 1 else X


def fit_params(model: Any, sample_weight: ArrayLike | None) -> dict[str, ArrayLike]:
    """Return the keyword argument by which a model's ``fit`` passes weights to its regressor.

    Parameters
    ----------
    model : estimator
        A regressor, a pipeline that ends in one, a search over these, or an estimator whose ``fit``
        takes `sample_weight`.
    sample_weight : array-like or None
        Weights of the cells.
    """
    if sample_weight is None:
        return {}
    return {_weight_name(model): sample_weight}


def _weight_name(model: Any) -> str:
    if get_config()["enable_metadata_routing"]:
        return "sample_weight"
    if hasattr(model, "estimator"):  # a search
        return _weight_name(model.estimator)
    last = f"{model.steps[-1][0]}__" if isinstance(model, pipeline.Pipeline) else ""
    return f"{last}sample_weight"


def counts_in(model: Any, X: Any) -> Any:
    """Return the counts of a fitted model's genes in the AnnData `X`, if there is no `y`.

    Genes are found by name, in the layer that the model was fitted to. A meta-estimator may have a
    method ``counts``.

    Raises
    ------
    ValueError
        If `X` is not an AnnData, or if the model was not fitted to one.
    """
    if hasattr(model, "best_estimator_"):
        return counts_in(model.best_estimator_, X)
    if hasattr(model, "counts"):
        return model.counts(X)
    regressor = model[-1] if isinstance(model, pipeline.Pipeline) else model
    if not is_anndata(X):
        raise ValueError(
            "The target y is None: give the counts as y. (Only an AnnData holds them too, as the X "
            "of a model that sc_glm.adata.fit or an AnnDataRegressor fitted.)"
        )
    check_is_fitted(regressor)
    if not hasattr(regressor, "layer_"):
        raise ValueError(
            "The target y is None, and the model does not know where in the AnnData its counts "
            "are, because it was fitted to arrays. Give X=adata.obs and the counts as y, or fit "
            "the model by sc_glm.adata.fit(adata, model, layer=...)."
        )
    return read_counts_of_genes(X, regressor.layer_, regressor.target_names_)


class Pipeline(NotebookMixin, StateMixin, pipeline.Pipeline):  # type: ignore[misc]
    """A scikit-learn pipeline that also samples, and predicts distributions.

    It has the parameters and methods of :class:`sklearn.pipeline.Pipeline`. In addition, it has
    those methods of the last step that scikit-learn does not know; they get `X` as the other steps
    transform it.

    Parameters
    ----------
    steps : list of (str, estimator)
        Names and estimators of the steps: transformers and, last, a regressor.
    transform_input : list of str, default=None
        Metadata to transform along with `X`; see :func:`sklearn.pipeline.make_pipeline`.
    memory : str or object with the joblib.Memory interface, default=None
        Where to cache fitted transformers.
    verbose : bool, default=False
        Whether to print the time that each step takes.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, Pipeline
    >>> from sc_glm.datasets import make_counts
    >>> data = make_counts(random_state=0)
    >>> model = Pipeline(
    ...     [("design", FormulaTransformer(**data.formulas)), ("counts", NegBinRegressor())]
    ... ).fit(data.obs, data.counts)
    >>> model.sample(data.obs, random_state=0).shape == data.counts.shape
    True
    """

    @documented(ENTRIES)
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit the transformers one after the other, and the last step to the transformed data.

        Parameters
        ----------
        {X_of_pipeline}
        y : array-like or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
            Counts, which the regressor requires.
        **params : dict of str to object
            Parameters of the steps' ``fit``, spelled ``step__parameter``, such as
            ``negbinregressor__sample_weight``.

        Returns
        -------
        Pipeline
            The fitted pipeline.

        Raises
        ------
        ValueError
            If `y` or weights have the labels of `X` in another order.
        """
        # Here, because a step may return an array, which has no labels.
        for name, value in {"y": y, **params}.items():
            check_same_order(X, value, name)
        return super().fit(X, y, **params)

    @_last_step_has("score")
    @documented(ENTRIES)
    def score(
        self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None, **params: Any
    ) -> float:
        """Return the score of the last step: the mean log-likelihood per cell and gene.

        Parameters
        ----------
        {X_of_pipeline}
        {y}
        {sample_weight}
        **params : dict of str to object
            Metadata for the steps, if metadata routing is enabled.

        Returns
        -------
        {mean_log_likelihood}

        Raises
        ------
        {raises_not_estimable}
        """
        for name, value in {"y": y, "sample_weight": sample_weight, **params}.items():
            check_same_order(X, value, name)
        return super().score(X, y, sample_weight=sample_weight, **params)

    @_last_step_has("sample")
    @documented(ENTRIES)
    def sample(
        self,
        X: ArrayLike,
        n_draws: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> NDArray[np.int64]:
        """Draw counts from the fitted model.

        Parameters
        ----------
        {X_of_pipeline}
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
        sample_sparse : The same counts as a sparse array.
        """
        last, design = last_step(self, X)
        return last.sample(design, n_draws, random_state)

    @_last_step_has("sample_sparse")
    @documented(ENTRIES)
    def sample_sparse(
        self,
        X: ArrayLike,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> sp.csr_array:
        """Draw counts from the fitted model into a sparse array.

        They are drawn by blocks of cells, so that no dense array of all cells is made.

        Parameters
        ----------
        {X_of_pipeline}
        {random_state}

        Returns
        -------
        {drawn_sparse_counts}

        Raises
        ------
        {raises_not_estimable}
        """
        last, design = last_step(self, X)
        return last.sample_sparse(design, random_state)

    @_last_step_has("predict_params")
    @documented(ENTRIES)
    def predict_params(self, X: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Return the value of each part for every cell and gene.

        Parameters
        ----------
        {X_of_pipeline}

        Returns
        -------
        {values_of_parts}

        Warns
        -----
        {warns_not_estimable}
        """
        last, design = last_step(self, X)
        return last.predict_params(design)

    @_last_step_has("predict_dist")
    @documented(ENTRIES)
    def predict_dist(self, X: ArrayLike) -> NB | ZINB:
        """Return the fitted distribution of every cell's and gene's count.

        Parameters
        ----------
        {X_of_pipeline}

        Returns
        -------
        {distribution}

        Raises
        ------
        {raises_not_estimable}
        """
        last, design = last_step(self, X)
        return last.predict_dist(design)

    @_last_step_has("log_prob")
    @documented(ENTRIES)
    def log_prob(self, X: ArrayLike, y: Any) -> NDArray[np.float64]:
        """Return the log-probability of each count under the fitted model.

        Parameters
        ----------
        {X_of_pipeline}
        {y}

        Returns
        -------
        {log_probabilities}

        Raises
        ------
        {raises_not_estimable}
        """
        check_same_order(X, y, "y")
        last, design = last_step(self, X)
        return last.log_prob(design, y)

    @_last_step_has("summary")
    @documented(ENTRIES)
    def summary(self) -> pd.DataFrame:
        """Return how each gene's fit ended, and which coefficients its counts do not determine.

        Returns
        -------
        {summary}
        """
        return self._final_estimator.summary()

    def _notebook_html(self) -> str:
        return notebook_html(self.steps[-1][1]) if self.steps else ""

    @property
    def params_(self) -> dict[str, pd.DataFrame]:
        """Coefficients of each part, features x genes."""
        return self._final_estimator.params_


def make_pipeline(
    *steps: Any, memory: Any = None, transform_input: list[str] | None = None, verbose: bool = False
) -> Pipeline:
    """Make a :class:`Pipeline` of steps named by their types.

    Parameters
    ----------
    *steps : estimators
        Transformers and, last, a regressor.
    memory : str or object with the joblib.Memory interface, default=None
        Where to cache fitted transformers.
    transform_input : list of str, default=None
        Metadata to transform along with `X`; see :func:`sklearn.pipeline.make_pipeline`.
    verbose : bool, default=False
        Whether to print the time that each step takes.

    Returns
    -------
    Pipeline
        The pipeline, not fitted.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> list(make_pipeline(FormulaTransformer("~ x"), NegBinRegressor()).named_steps)
    ['formulatransformer', 'negbinregressor']
    """
    named = pipeline.make_pipeline(
        *steps, memory=memory, transform_input=transform_input, verbose=verbose
    )
    return Pipeline(named.steps, memory=memory, transform_input=transform_input, verbose=verbose)
