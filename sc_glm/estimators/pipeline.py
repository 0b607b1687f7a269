"""scikit-learn's pipeline with the verbs of a fitted count distribution."""

from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config, pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sc_glm._contract.state import StateMixin
from sc_glm._contract.validation import check_same_order
from sc_glm.distributions.count_distributions import NB, ZINB
from sc_glm.estimators.notebook import NotebookMixin, notebook_html


def _last_step_has(method: str) -> Any:
    def check(self: "Pipeline") -> bool:
        getattr(self._final_estimator, method)
        return True

    return available_if(check)


def last_step(model: Any, X: Any) -> tuple[Any, Any]:
    """Return a fitted model's regressor, and `X` as all that stands before transforms it for that.

    scikit-learn's own pipeline knows no ``predict_dist`` and the like; this reaches them there too.
    A search stands for the best of its models, and a meta-estimator may have a ``last_step`` of its
    own. Any other estimator is its own last step.
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
    """Return weights under the name by which a model's ``fit`` hands them to its regressor.

    Parameters
    ----------
    model : estimator
        A regressor, a pipeline that ends in one, a search over these, or an estimator whose ``fit``
        takes `sample_weight`.
    sample_weight : array-like or None
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


def counts_in(estimator: Any, X: Any) -> Any:
    """Return the counts that `X` holds, where no target stands beside it.

    Raises
    ------
    ValueError
        If the estimator knows of none.
    """
    if not hasattr(estimator, "counts"):
        raise ValueError(
            "The target y is None: give the counts as y. (Only the X of a fitted AnnDataRegressor "
            "holds them too; of another model's adata, X is adata.obs and y the layer of the fit.)"
        )
    return estimator.counts(X)


class Pipeline(NotebookMixin, StateMixin, pipeline.Pipeline):  # type: ignore[misc]
    """A scikit-learn pipeline that also samples, and predicts distributions.

    Takes the parameters of :class:`sklearn.pipeline.Pipeline` and does all that it does. Those
    methods of the last step that scikit-learn does not know get `X` as the other steps transform
    it.

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

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit the steps; see :meth:`sklearn.pipeline.Pipeline.fit`.

        Rows of `y` and of weights whose labels are those of `X` in another order are refused here,
        as a step may make an array of `X`, which has no labels.
        """
        for name, value in {"y": y, **params}.items():
            check_same_order(X, value, name)
        return super().fit(X, y, **params)

    @_last_step_has("score")
    def score(
        self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None, **params: Any
    ) -> float:
        """Return the score of the last step; see :meth:`sklearn.pipeline.Pipeline.score`."""
        for name, value in {"y": y, "sample_weight": sample_weight, **params}.items():
            check_same_order(X, value, name)
        return super().score(X, y, sample_weight=sample_weight, **params)

    @_last_step_has("sample")
    def sample(
        self,
        X: ArrayLike,
        n_draws: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> NDArray[np.int64]:
        """Draw counts; see :meth:`NegBinRegressor.sample`."""
        last, design = last_step(self, X)
        return last.sample(design, n_draws, random_state)

    @_last_step_has("sample_sparse")
    def sample_sparse(
        self,
        X: ArrayLike,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> sp.csr_array:
        """Draw the counts of :meth:`sample`, sparse; see :meth:`NegBinRegressor.sample_sparse`."""
        last, design = last_step(self, X)
        return last.sample_sparse(design, random_state)

    @_last_step_has("predict_params")
    def predict_params(self, X: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Return each part's value; see :meth:`NegBinRegressor.predict_params`."""
        last, design = last_step(self, X)
        return last.predict_params(design)

    @_last_step_has("predict_dist")
    def predict_dist(self, X: ArrayLike) -> NB | ZINB:
        """Return the counts' distribution; see :meth:`NegBinRegressor.predict_dist`."""
        last, design = last_step(self, X)
        return last.predict_dist(design)

    @_last_step_has("log_prob")
    def log_prob(self, X: ArrayLike, y: Any) -> NDArray[np.float64]:
        """Return the log-probability of `y`; see :meth:`NegBinRegressor.log_prob`."""
        check_same_order(X, y, "y")
        last, design = last_step(self, X)
        return last.log_prob(design, y)

    @_last_step_has("summary")
    def summary(self) -> pd.DataFrame:
        """Tell how each gene's fit ended; see :meth:`NegBinRegressor.summary`."""
        return self._final_estimator.summary()

    def _notebook_html(self) -> str:
        return notebook_html(self.steps[-1][1]) if self.steps else ""

    @property
    def params_(self) -> dict[str, pd.DataFrame]:
        """Coefficients of the last step, ``{part: DataFrame features x genes}``."""
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

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> list(make_pipeline(FormulaTransformer("~ x"), NegBinRegressor()).named_steps)
    ['formulatransformer', 'negbinregressor']
    """
    stock = pipeline.make_pipeline(
        *steps, memory=memory, transform_input=transform_input, verbose=verbose
    )
    return Pipeline(stock.steps, memory=memory, transform_input=transform_input, verbose=verbose)
