"""Fit, predict and simulate with AnnData.

The cells' covariates are ``adata.obs``, the counts ``adata.X`` or one of ``adata.layers``, dense,
sparse or on disk; those of ``adata.raw`` are the X of ``adata.raw.to_adata()``. :func:`fit`,
:func:`predict`, :func:`sample` and :func:`read_params` follow scanpy: `adata` first, results under
a key. :class:`AnnDataRegressor` follows scikit-learn: a model whose `X` is an AnnData, for
cross-validation and searches.
"""

import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData, ImplicitModificationWarning
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from sc_glm._contract.callbacks import CallbackSupportMixin, reporting_to_callbacks, with_callbacks
from sc_glm._contract.state import StateMixin
from sc_glm._contract.user_warnings import warn
from sc_glm._contract.validation import check_same_order, sound_sparse
from sc_glm._counts.count_matrix import SAMPLED_VALUES, CountMatrix, are_counts
from sc_glm._counts.on_disk import StoredCounts, StoredMatrix, parse_bytes
from sc_glm.distributions.count_distributions import NB, ZINB
from sc_glm.estimators.base import CountRegressor
from sc_glm.estimators.notebook import NotebookMixin, notebook_html
from sc_glm.estimators.pipeline import fit_params, last_step
from sc_glm.formula.transformer import FormulaTransformer

__all__ = ["AnnDataRegressor", "fit", "predict", "read_params", "sample"]

_DENSE_ENTRIES = 2_000_000  # of a matrix at a time, where it goes from dense to sparse


class AnnDataRegressor(
    NotebookMixin,
    StateMixin,
    CallbackSupportMixin,  # type: ignore[misc]
    MetaEstimatorMixin,  # type: ignore[misc]
    RegressorMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """A model whose `X` is an AnnData: covariates from ``obs``, counts from ``X`` or a layer.

    An AnnData is sliced by cells as an array is by rows, so that it goes straight into
    :func:`~sklearn.model_selection.cross_validate`, :class:`~sklearn.model_selection.GridSearchCV`
    and splitters by group; `y` stays None. Sparse counts stay sparse.

    Parameters
    ----------
    model : estimator
        A pipeline of a :class:`~sc_glm.FormulaTransformer` and a regressor, or a regressor alone,
        which takes all columns of ``obs`` (they must be numbers) as the mean's covariates.
    layer : str, default=None
        The layer with the counts; None is ``adata.X``.
    memory_budget : int or str, default="4GB"
        See :func:`fit`.

    Attributes
    ----------
    model_ : estimator
        The fitted clone of `model`; it predicts from data frames. Its genes are the ``var_names``.
    params_ : dict of str to DataFrame
        Its coefficients, features x genes.

    See Also
    --------
    fit : Fits a model to an AnnData and keeps the results in it.

    Notes
    -----
    The scorers of :mod:`sc_glm.metrics` work as ``scoring``: without a `y` they ask for
    :meth:`counts`.

    A category that no training cell has is no level of the fit. Scoring cells that have it is an
    error, as for any unknown level.

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

    @with_callbacks
    def fit(self, X: AnnData, y: None = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit a clone of the model to cells, which are left as they are.

        Raises and warns as the function :func:`fit`.
        """
        _check_no_target(y)
        model = clone(self.model)
        with reporting_to_callbacks(self, X, sample_weight=sample_weight):
            _fit(model, X, self.layer, sample_weight, self.memory_budget)
            self.model_ = model
        return self

    @property
    def params_(self) -> dict[str, pd.DataFrame]:
        """Coefficients of the fitted model, ``{part: DataFrame features x genes}``."""
        return _regressor(self).params_

    def summary(self) -> pd.DataFrame:
        """Tell how each gene's fit ended; see :meth:`NegBinRegressor.summary`."""
        return _regressor(self).summary()

    def _notebook_html(self) -> str:
        return notebook_html(_regressor(self)) if hasattr(self, "model_") else ""

    def counts(self, X: AnnData) -> Any:
        """Return the counts of the model's genes, found by name, as the AnnData stores them."""
        genes = _regressor(self).target_names_
        matrix = _read_counts(X, self.layer)
        where = X.var_names.get_indexer(genes)
        if (where < 0).any():
            missing = list(genes[where < 0])
            raise ValueError(
                f"{len(missing)} genes of the fit are not in adata.var_names: {missing[:5]}."
            )
        return matrix if np.array_equal(where, np.arange(X.n_vars)) else matrix[:, where]

    def last_step(self, X: AnnData) -> tuple[Any, Any]:
        """Return the fitted regressor, and its `X` for the cells of an AnnData."""
        return _apply(self, _obs(X))

    def predict(self, X: AnnData) -> NDArray[np.float64]:
        """Return the expected counts; see :meth:`NegBinRegressor.predict`."""
        regressor, design = self.last_step(X)
        return regressor.predict(design)

    def predict_params(self, X: AnnData) -> dict[str, NDArray[np.float64]]:
        """Return each part's value; see :meth:`NegBinRegressor.predict_params`."""
        regressor, design = self.last_step(X)
        return regressor.predict_params(design)

    def predict_dist(self, X: AnnData) -> NB | ZINB:
        """Return the counts' distribution; see :meth:`NegBinRegressor.predict_dist`."""
        regressor, design = self.last_step(X)
        return regressor.predict_dist(design)

    def sample(
        self,
        X: AnnData,
        n_draws: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> NDArray[np.int64]:
        """Draw counts, a dense array; see :meth:`NegBinRegressor.sample`.

        The function :func:`sample` draws them sparse.
        """
        regressor, design = self.last_step(X)
        return regressor.sample(design, n_draws, random_state)

    def log_prob(self, X: AnnData) -> NDArray[np.float64]:
        """Return the log-probability of each count; see :meth:`NegBinRegressor.log_prob`."""
        regressor, design = self.last_step(X)
        return regressor.log_prob(design, self.counts(X))

    def score(self, X: AnnData, y: None = None, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean log-likelihood per entry; see :meth:`NegBinRegressor.score`."""
        _check_no_target(y)
        check_same_order(X, sample_weight, "sample_weight")
        regressor, design = self.last_step(X)
        return regressor.score(design, self.counts(X), sample_weight=sample_weight)


def fit(
    adata: AnnData,
    model: Any,
    *,
    layer: str | None = None,
    key_added: str = "sc_glm",
    sample_weight: ArrayLike | None = None,
    memory_budget: int | str = "4GB",
) -> Any:
    """Fit a model to cells and keep its coefficients and each gene's status in the AnnData.

    Parameters
    ----------
    adata : AnnData
        The cells. Only what `key_added` names is written; an earlier fit under that key goes.
        A view of another AnnData becomes an AnnData of its own, as in any assignment to it. Of a
        backed AnnData, the object in memory is written and never the file.
    model : estimator
        A pipeline or a regressor, as :class:`AnnDataRegressor` takes it. It is fitted in place, and
        names its genes by ``adata.var_names``.
    layer : str, default=None
        The layer with the counts; None is ``adata.X``.
    key_added : str, default="sc_glm"
        Under which name to write:

        - ``varm[f"{key_added}_{part}"]``: coefficients of a part, genes x features, whose names
          are in ``uns``; :func:`read_params` puts both together;
        - ``var[f"{key_added}_status"]`` and ``..._undetermined``, ``..._n_iter``,
          ``..._log_likelihood``: the columns of the regressor's ``summary()``; ``..._converged``:
          its attribute;
        - ``uns[key_added]``: ``parts``, ``columns`` by part, ``formulas`` by part, ``layer``
          (unless it is None) and ``version``, that of the package.
    sample_weight : array-like of shape (n_cells,), default=None
        Weights of the cells.
    memory_budget : int or str, default="4GB"
        How much memory counts in a file (HDF5 or zarr) may take, in bytes or as ``"500MB"``,
        ``"1.5GiB"``. A matrix that takes more than half of it is read by groups of genes, and each
        worker process reads its own, within as much each. Results are the same. Counts that are in
        memory stay there.

    Returns
    -------
    estimator
        The fitted `model`.

    Raises
    ------
    ValueError
        If there are no cells or genes, gene names are not unique, the layer is missing, it has
        negative, missing or infinite values, or a single gene exceeds the memory budget.

    Warns
    -----
    UserWarning
        If most values are not integers, as after a normalisation by depth or a logarithm. Counts
        corrected for ambient RNA (SoupX, CellBender) may be so as well.
    sklearn.exceptions.ConvergenceWarning
        As the regressor warns.

    Examples
    --------
    >>> from anndata import AnnData
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm import adata as scg
    >>> from sc_glm.datasets import make_counts
    >>> data = make_counts(random_state=0)
    >>> adata = AnnData(data.counts, obs=data.obs.set_axis(data.obs.index.astype(str)))
    >>> model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor())
    >>> model = scg.fit(adata, model)
    >>> bool(adata.var["sc_glm_converged"].all())
    True
    >>> scg.read_params(adata)["mean"].equals(model.params_["mean"])
    True
    """
    if not isinstance(key_added, str) or not key_added:
        raise TypeError(f"key_added must be a name, not {key_added!r}.")
    if "/" in key_added:
        raise ValueError(f"key_added={key_added!r}: files cannot hold a key with '/'.")
    if _checked(adata).is_view and adata.isbacked:
        raise ValueError("A view of a backed AnnData cannot be written to; .to_memory() can.")
    _fit(model, adata, layer, sample_weight, memory_budget)
    with warnings.catch_warnings():
        # Writing to it is what was asked for.
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        _write(adata, model, layer, key_added)
    return model


def predict(adata_or_obs: AnnData | pd.DataFrame, model: Any) -> AnnData:
    """Return expected counts, and the value of each part of the model, for cells.

    Parameters
    ----------
    adata_or_obs : AnnData or DataFrame
        The cells or their covariates.
    model : estimator
        A fitted pipeline or regressor, a fitted :class:`AnnDataRegressor`, or a fitted search.

    Returns
    -------
    AnnData
        A copy of ``obs``, the names of the model's genes, in ``X`` the expected counts E[y | x] and
        in ``layers`` the parts: ``mean`` (mu), ``dispersion`` (the size r: the variance is mu +
        mu²/r) and ``zero_inflation`` (pi).

    Examples
    --------
    >>> import pandas as pd
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm import adata as scg
    >>> obs = pd.DataFrame({"x": [0.0, 1.0, 0.0, 1.0]}, index=list("abcd"))
    >>> model = NegBinRegressor().fit(obs, pd.DataFrame({"Ins1": [1, 4, 3, 8]}))
    >>> scg.predict(obs.head(2), model).to_df().round(3)
       Ins1
    a   2.0
    b   6.0
    """
    obs = _obs_of(adata_or_obs)
    regressor, design = _apply(model, obs)
    shape = (len(obs), len(regressor.target_names_))
    layers = {
        part: values.reshape(shape) for part, values in regressor.predict_params(design).items()
    }
    return _anndata(regressor.predict(design).reshape(shape), obs, model, layers)


def sample(
    adata_or_obs: AnnData | pd.DataFrame,
    model: Any,
    *,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
) -> AnnData:
    """Return simulated counts for cells.

    Parameters
    ----------
    adata_or_obs : AnnData or DataFrame
        The cells or their covariates.
    model : estimator
        A fitted pipeline or regressor, a fitted :class:`AnnDataRegressor`, or a fitted search.
    random_state : int, RandomState, Generator or None, default=None
        Seed, as in :meth:`NegBinRegressor.sample`, which gives the same counts for the same
        integer.

    Returns
    -------
    AnnData
        A copy of ``obs``, the names of the model's genes, and in ``X`` the counts, a CSR matrix. It
        is drawn by blocks of cells, and never dense as a whole.

    Examples
    --------
    >>> import pandas as pd
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm import adata as scg
    >>> obs = pd.DataFrame({"x": [0.0, 1.0, 0.0, 1.0]}, index=list("abcd"))
    >>> model = NegBinRegressor().fit(obs, pd.DataFrame({"Ins1": [1, 4, 3, 8]}))
    >>> scg.sample(obs, model, random_state=0).X.shape
    (4, 1)
    """
    obs = _obs_of(adata_or_obs)
    regressor, design = _apply(model, obs)
    counts = regressor.sample_sparse(design, random_state)
    return _anndata(sp.csr_matrix(counts), obs, model, {})


def read_params(adata: AnnData, key: str = "sc_glm") -> dict[str, pd.DataFrame]:
    """Return the coefficients that :func:`fit` wrote, also to a file since.

    Parameters
    ----------
    adata : AnnData
        Cells; of a subset of the genes, those.
    key : str, default="sc_glm"
        The `key_added` of the fit.

    Returns
    -------
    dict of str to DataFrame
        ``{part: DataFrame features x genes}``, equal to ``model.params_``.

    Raises
    ------
    ValueError
        If there is no fit under `key`, or something else than its coefficients was put there.

    Notes
    -----
    Only text and numbers are read, never a pickled object.

    Examples
    --------
    See :func:`fit`.
    """
    entry = _checked(adata).uns.get(key) if isinstance(key, str) else None
    if not _is_ours(entry):
        fits = [name for name, other in adata.uns.items() if _is_ours(other)]
        raise ValueError(f"adata has no fit under {key!r}; it has fits under {fits}.")
    genes = np.asarray(adata.var_names, dtype=object)
    where = f"uns[{key!r}]"
    columns = entry["columns"]
    if not isinstance(columns, Mapping):
        raise ValueError(f"{where}['columns'] is damaged: it is a {type(columns).__name__}.")  # noqa: TRY004
    return {
        part: _stored_table(
            adata.varm.get(f"{key}_{part}"),
            _words(columns.get(part), f"{where}['columns'][{part!r}]"),
            genes,
            f"varm['{key}_{part}']",
        )
        for part in _words(entry["parts"], f"{where}['parts']")
    }


def _words(stored: Any, where: str) -> list[str]:
    words = list(stored) if isinstance(stored, np.ndarray | list) else []
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{where} is damaged: it must be a list of text.")
    return [str(word) for word in words]


def _stored_table(
    stored: Any, columns: list[str], genes: NDArray[np.object_], where: str
) -> pd.DataFrame:
    coef = np.asarray(stored)
    if coef.dtype.kind != "f" or coef.shape != (len(genes), len(columns)):
        raise ValueError(
            f"{where} is damaged: it must hold {len(columns)} coefficients for each of "
            f"{len(genes)} genes, but has the type {coef.dtype} and the shape {coef.shape}."
        )
    return pd.DataFrame(coef.T, index=columns, columns=genes)


def _is_ours(entry: Any) -> bool:
    return isinstance(entry, Mapping) and {"parts", "columns", "version"} <= set(entry)


def _write(adata: AnnData, model: Any, layer: str | None, key: str) -> None:
    earlier = adata.uns.get(key)
    if _is_ours(earlier):
        for part in earlier["parts"]:
            adata.varm.pop(f"{key}_{part}", None)
    regressor = _regressor(model)
    tables = regressor.params_
    entry = {
        "parts": np.array(list(tables), dtype=object),
        "columns": {part: np.array(table.index, dtype=object) for part, table in tables.items()},
        "formulas": _formulas(model),
        "version": version("sc_glm"),
    }
    if layer is not None:  # anndata 0.11 writes no None
        entry["layer"] = layer
    for part, table in tables.items():
        # An array: in a frame, a column named 'a/b' would be a path in the file.
        adata.varm[f"{key}_{part}"] = np.ascontiguousarray(table.to_numpy().T)
    # Categories, into which anndata would turn text anyway when it writes a file.
    summary = regressor.summary()
    for name in ("status", "undetermined"):
        adata.var[f"{key}_{name}"] = pd.Categorical(summary[name])
    for name in ("n_iter", "log_likelihood"):
        adata.var[f"{key}_{name}"] = summary[name].to_numpy()
    adata.var[f"{key}_converged"] = regressor.converged_
    adata.uns[key] = entry


def _formulas(model: Any) -> dict[str, str]:
    model = _unwrapped(model)
    return {
        part: formula
        for _, step in (model.steps if isinstance(model, Pipeline) else [])
        if isinstance(step, FormulaTransformer)
        for part, formula in step.get_params().items()
        if formula is not None
    }


def _fit(
    model: Any,
    adata: AnnData,
    layer: str | None,
    sample_weight: ArrayLike | None,
    memory_budget: int | str,
) -> None:
    """Fit ``model`` in place, its genes named by ``adata.var_names``."""
    inner = model
    while hasattr(inner, "estimator"):  # a search
        if not getattr(inner, "refit", True):
            raise ValueError(f"refit=False: this {type(inner).__name__} would keep no model.")
        inner = inner.estimator
    _check_regressor(inner.steps[-1][1] if isinstance(inner, Pipeline) else inner)
    budget = parse_bytes(memory_budget, "memory_budget")
    matrix = _matrix_of(adata, layer)
    stored = StoredMatrix.of(matrix, _spell(layer))
    # A search reads the same counts many times.
    if inner is not model or stored is None or 2 * stored.n_bytes() <= budget:
        stored = None
        matrix = _read_counts(adata, layer)
        values = _stored(matrix)
    else:
        values = stored.sample(SAMPLED_VALUES)
        _check_values(values, adata, layer)
    if not are_counts(values):
        warn(
            f"Most values of {_spell(layer)} are not integers, as if they were normalised or "
            f"logarithms; the model is one of counts.{_advice(adata, layer)}"
        )
    obs = _obs(adata)
    check_same_order(obs, sample_weight, "sample_weight", of="adata.obs")
    if isinstance(model, CountRegressor):
        _check_numeric(obs, type(model).__name__)
    names = np.asarray(adata.var_names, dtype=object)
    if stored is None:
        counts = CountMatrix.of(matrix, n_cells=adata.n_obs, names=names)
    else:
        counts = StoredCounts.scan(stored, names, budget)
    del matrix, values  # not to be kept beside the counts
    model.fit(obs, counts, **fit_params(model, sample_weight))


def _check_regressor(regressor: Any) -> None:
    if not isinstance(regressor, CountRegressor):
        raise TypeError(
            "The model must be a NegBinRegressor or ZINBRegressor, or a pipeline that ends in one, "
            f"not {regressor!r}."
        )


def _check_numeric(obs: pd.DataFrame, regressor: str) -> None:
    text = [name for name in obs if not pd.api.types.is_numeric_dtype(obs[name])]
    if text:
        raise ValueError(
            f"{regressor} by itself takes every column of adata.obs as a covariate, but {text[:5]} "
            "are not numbers. Choose covariates by a formula: "
            f"make_pipeline(FormulaTransformer(...), {regressor}(...))."
        )


def _unwrapped(model: Any) -> Any:
    """Return the fitted pipeline or regressor in a search or an AnnDataRegressor."""
    if isinstance(model, AnnDataRegressor):
        check_is_fitted(model, "model_")
        return _unwrapped(model.model_)
    return _unwrapped(model.best_estimator_) if hasattr(model, "best_estimator_") else model


def _regressor(model: Any) -> Any:
    """Return the fitted regressor, the last step of a pipeline."""
    model = _unwrapped(model)
    regressor = model[-1] if isinstance(model, Pipeline) else model
    _check_regressor(regressor)
    check_is_fitted(regressor)
    return regressor


def _apply(model: Any, obs: pd.DataFrame) -> tuple[Any, Any]:
    """Return the fitted regressor, and its `X` for some cells."""
    regressor = _regressor(model)
    return regressor, last_step(_unwrapped(model), obs)[1]


def _checked(adata: Any) -> AnnData:
    if not isinstance(adata, AnnData):
        hint = " It comes first, and the model second." if hasattr(adata, "fit") else ""
        raise TypeError(f"An AnnData is needed, not a {type(adata).__name__}.{hint}")
    return adata


def _check_no_target(y: Any) -> None:
    if y is not None:
        raise ValueError("AnnDataRegressor reads the counts from X, an AnnData: y must be None.")


def _obs(adata: AnnData) -> pd.DataFrame:
    obs = _checked(adata).obs
    # A lazily loaded frame is read; a view's becomes a plain one, without its care for writes.
    return obs.to_memory() if hasattr(obs, "to_memory") else pd.DataFrame(obs)


def _obs_of(adata_or_obs: AnnData | pd.DataFrame) -> pd.DataFrame:
    return adata_or_obs if isinstance(adata_or_obs, pd.DataFrame) else _obs(adata_or_obs)


def _anndata(X: Any, obs: pd.DataFrame, model: Any, layers: dict[str, Any]) -> AnnData:
    obs = obs.set_axis(obs.index.astype(str)).copy()  # anndata wants text, and warns otherwise
    return AnnData(
        X, obs=obs, var=pd.DataFrame(index=_regressor(model).target_names_), layers=layers
    )


def _spell(layer: str | None) -> str:
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def _layers(adata: AnnData) -> list[str]:
    """Return the names of the layers, of which anndata 0.13 has None for ``X``."""
    return [name for name in adata.layers if name is not None]


def _matrix_of(adata: AnnData, layer: str | None) -> Any:
    """Return ``X`` or a layer as it is."""
    if not all(_checked(adata).shape):
        raise ValueError(f"adata has {adata.n_obs} cells and {adata.n_vars} genes.")
    if not adata.var_names.is_unique:
        twice = list(adata.var_names[adata.var_names.duplicated()].unique())
        raise ValueError(
            f"adata.var_names has {len(twice)} name(s) more than once: {twice[:5]}. "
            "adata.var_names_make_unique() makes them unique."
        )
    if layer is not None and not (isinstance(layer, str) and layer in adata.layers):
        raise ValueError(f"adata has no layer {layer!r}; its layers are {_layers(adata)}.")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError(f"adata.X is None; name one of its layers, layer=: {_layers(adata)}.")
    return matrix


def _read_counts(adata: AnnData, layer: str | None) -> Any:
    """Return ``X`` or a layer, in memory, dense or sparse, of finite values from zero up."""
    matrix = _in_memory(_matrix_of(adata, layer), _spell(layer))
    _check_values(_stored(matrix), adata, layer, matrix)
    return matrix


def _check_values(
    values: NDArray[Any], adata: AnnData, layer: str | None, matrix: Any = None
) -> None:
    """Refuse what no count can be; a ``matrix`` of these values tells where it stands."""
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{_spell(layer)} holds {values.dtype}, not numbers.")
    low, high = values.min(initial=0), values.max(initial=0)  # NaN spreads to both
    if low >= 0 and np.isfinite(high):
        return
    what = "negative" if (values < 0).any() else "missing or infinite"
    where = ""
    if matrix is not None:
        entries = sp.coo_array(matrix)
        wrong = entries.data < 0 if what == "negative" else ~np.isfinite(entries.data)
        cell, gene = (int(index[wrong][0]) for index in entries.coords)
        where = (
            f", such as {entries.data[wrong][0]} in cell {adata.obs_names[cell]!r} for gene "
            f"{adata.var_names[gene]!r}"
        )
    raise ValueError(
        f"{_spell(layer)} has {what} values{where}: these are not counts.{_advice(adata, layer)}"
    )


def _in_memory(matrix: Any, where: str) -> Any:
    if hasattr(matrix, "compute"):  # a dask array
        matrix = matrix.compute()
    if hasattr(matrix, "to_memory"):  # a sparse matrix on disk
        matrix = matrix.to_memory()
    if _is_sparse(matrix):
        sound = sound_sparse(matrix, where)
        return sound if sound.format in ("csr", "csc") else sound.tocsr()
    if isinstance(matrix, np.ndarray):
        return np.asarray(matrix)
    step = max(1, _DENSE_ENTRIES // matrix.shape[1])  # a dense matrix on disk
    rows = range(0, matrix.shape[0], step)
    return sp.vstack([sp.csr_matrix(matrix[i : i + step]) for i in rows], format="csr")


def _is_sparse(matrix: Any) -> bool:
    return bool(sp.issparse(matrix))


def _stored(matrix: Any) -> NDArray[Any]:
    return matrix.data if _is_sparse(matrix) else matrix.ravel(order="K")


def _looks_like_counts(matrix: Any) -> bool:
    stored = StoredMatrix.of(matrix, "")
    if stored is not None:
        return are_counts(stored.sample(SAMPLED_VALUES))
    if _is_sparse(matrix) or isinstance(matrix, np.ndarray):
        return are_counts(np.asarray(_stored(matrix)))
    return False  # not computed yet


def _advice(adata: AnnData, layer: str | None) -> str:
    """Name the other matrices that look like counts."""
    others: dict[str | None, Any] = {n: adata.layers[n] for n in _layers(adata) if n != layer}
    if layer is not None:
        others[None] = adata.X
    names = [_spell(name) for name, matrix in others.items() if _looks_like_counts(matrix)]
    if adata.raw is not None and _looks_like_counts(adata.raw.X):
        names.append("adata.raw.X (it is the X of adata.raw.to_adata())")
    return f" Counts may be in {', '.join(names)}." if names else ""
