"""Fit a model to the cells of an AnnData, and keep the fit in it."""

from typing import Any

import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import check_same_order, column_or_values
from sc_glm._counts.on_disk import parse_bytes
from sc_glm.adata.docstring_entries import ENTRIES
from sc_glm.adata.models import fitted_regressor, model_of_search
from sc_glm.adata.reading import read_counts_of_fit, read_covariates
from sc_glm.adata.saved_fit import write_fit
from sc_glm.adata.written_entries import check_writable, writing_into_a_view
from sc_glm.estimators.base import CountRegressor
from sc_glm.estimators.pipeline import fit_params

_MAX_COLUMNS_SHOWN = 5  # in a message


@documented(ENTRIES)
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
        The cells. Only the entries that `key_added` names are written; they replace an earlier fit
        under that key. A view of another AnnData becomes an AnnData of its own, as with any
        assignment to it. For a backed AnnData, the object in memory is written, never the file.
    model : estimator
        A pipeline of a :class:`~sc_glm.FormulaTransformer` and a regressor, or a search over such
        pipelines. A regressor alone takes all columns of ``obs``, which must be numbers, as the
        covariates of the mean. The model is fitted in place, and its genes are named by
        ``adata.var_names``.
    {layer}
    key_added : str, default="sc_glm"
        Name under which the fit is written:

        - ``varm[f"{key_added}_{part}"]``: coefficients of a part, genes x features. The names of
          the features are in ``uns``; :func:`read_params` puts both together;
        - ``var[f"{key_added}_status"]`` and ``..._undetermined``, ``..._n_iter``,
          ``..._log_likelihood``: the columns of the regressor's ``summary()``; ``..._converged``:
          its attribute;
        - ``uns[key_added]``: ``parts``, ``columns`` by part, ``formulas`` by part, ``layer``
          (unless it is None) and the ``version`` of the package.
    {sample_weight}
    {memory_budget}

    Returns
    -------
    estimator
        The fitted `model`. It knows the layer of its counts: functions of :mod:`sc_glm.inference`,
        :mod:`sc_glm.diagnostics`, :mod:`sc_glm.plots`, :mod:`sc_glm.moderation` and
        :mod:`sc_glm.selection` take it with the AnnData, as in ``coefficient_table(model, adata)``.

    Raises
    ------
    {raises_invalid_counts}

    Warns
    -----
    {warns_no_counts}

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
    check_writable(adata, key_added)
    fit_in_place(model, adata, layer, sample_weight, memory_budget)
    with writing_into_a_view():
        write_fit(adata, model, layer, key_added)
    return model


def fit_in_place(
    model: Any,
    adata: AnnData,
    layer: str | None,
    sample_weight: ArrayLike | None,
    memory_budget: int | str,
) -> None:
    """Fit ``model`` itself to an AnnData, which is not changed."""
    is_search = model_of_search(model) is not model
    budget = parse_bytes(memory_budget, "memory_budget")
    obs = read_covariates(adata)
    sample_weight = column_or_values(obs, sample_weight, "sample_weight")
    check_same_order(obs, sample_weight, "sample_weight", of="adata.obs")
    if isinstance(model, CountRegressor):
        _check_numeric(obs, type(model).__name__)
    # A search reads the same counts many times, so they are read into memory once.
    counts = read_counts_of_fit(adata, layer, None if is_search else budget)
    model.fit(obs, counts, **fit_params(model, sample_weight))
    fitted_regressor(model).layer_ = layer


def _check_numeric(obs: pd.DataFrame, regressor: str) -> None:
    other = [name for name in obs if not pd.api.types.is_numeric_dtype(obs[name])]
    if other:
        raise ValueError(
            f"{regressor} by itself takes every column of adata.obs as a covariate, but "
            f"{other[:_MAX_COLUMNS_SHOWN]} are not numbers. Choose covariates by a formula: "
            f"make_pipeline(FormulaTransformer(...), {regressor}(...))."
        )
