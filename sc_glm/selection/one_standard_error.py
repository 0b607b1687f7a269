"""Choice of a model for each gene by the one-standard-error rule."""

from __future__ import annotations

import pandas as pd

# Log-likelihood per cell, in nats, by which fits of equivalent models may differ numerically.
_LOG_LIKELIHOOD_TOLERANCE = 1e-6


def choose_model(table: pd.DataFrame) -> pd.Series:
    """Choose each gene's simplest model that is within one standard error of its best.

    This is the one-standard-error rule [1]_: ``shortfall`` is at most ``shortfall_error``, the
    standard error of the paired difference between both models. A shortfall of up to 1e-6 counts as
    zero, because a gene without zero inflation has the same likelihood with and without it.

    Parameters
    ----------
    table : DataFrame
        Result of :func:`compare_models` for models in the order from the simplest to the most
        complex, or its rows of some genes.

    Returns
    -------
    Series
        The name of a model for each gene, a categorical in the order of the models. The index has
        the genes, in the order of their first rows.

    Raises
    ------
    TypeError
        If `table` is not a DataFrame with the columns of :func:`compare_models`.
    ValueError
        If a gene does not have one row for each model.

    See Also
    --------
    compare_models : Makes the table; its example includes this function.

    References
    ----------
    .. [1] Hastie, Tibshirani and Friedman (2009), The Elements of Statistical Learning, 2nd
       edition, section 7.10.
    """
    needed = ["gene", "model", "shortfall", "shortfall_error"]
    if not isinstance(table, pd.DataFrame) or not {*needed} <= {*table.columns}:
        raise TypeError(f"table must be a frame of compare_models, with the columns {needed}.")
    if not isinstance(table["model"].dtype, pd.CategoricalDtype):
        raise TypeError(
            "The column 'model' must be categorical, as compare_models returns it: the first of "
            "its categories is the simplest model."
        )
    names, genes = table["model"].cat.categories, pd.unique(table["gene"])
    order = pd.MultiIndex.from_product([genes, names])
    rows = table.set_index(["gene", "model"])
    if len(rows) != len(order) or not order.isin(rows.index).all():
        raise ValueError(f"Each gene must have one row for each of the models {list(names)}.")
    rows = rows.loc[order]
    within = rows["shortfall"] <= rows["shortfall_error"].clip(lower=_LOG_LIKELIHOOD_TOLERANCE)
    first = within.to_numpy().reshape(len(genes), len(names)).argmax(axis=1)
    chosen = pd.Categorical.from_codes(first, dtype=table["model"].dtype)
    return pd.Series(chosen, index=pd.Index(genes, name="gene"), name="model")
