"""Information criteria of Akaike and Schwarz."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_glm._contract.docstrings import documented
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.log_likelihood import check_maximum, log_likelihoods

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike

__all__ = ["aic", "bic"]

# Penalty for each coefficient, as a function of the number of cells
PENALTIES: Mapping[str, Callable[[float], float]] = {"aic": lambda _: 2.0, "bic": np.log}


@documented(ENTRIES)
def aic(model: Any, X: Any, y: Any = None, *, sample_weight: ArrayLike | None = None) -> pd.Series:
    """Return each gene's Akaike information criterion; smaller is better.

    Parameters
    ----------
    {model}
    {X_of_fit}
    {y_of_fit}
    {sample_weight_of_fit}

    Returns
    -------
    Series
        ``2 k - 2 log L`` by gene, with the log-likelihood ``log L`` and the number ``k`` of
        coefficients that are not aliased. Given sizes do not count.

    Raises
    ------
    ValueError
        If the model is penalised or moderated.
    {raises_not_of_fit}

    Examples
    --------
    >>> from sc_glm import NegBinRegressor, ZINBRegressor
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import aic
    >>> data = make_counts(n_targets=3, zero_inflation="~ 1", random_state=0)
    >>> X = data.obs[["pseudotime"]]
    >>> models = [NegBinRegressor(), ZINBRegressor()]
    >>> negative_binomial, inflated = (aic(m.fit(X, data.counts), X, data.counts) for m in models)
    >>> (inflated - negative_binomial).round(1)
    gene
    gene_0    1.3
    gene_1    2.0
    gene_2    2.0
    dtype: float64
    """
    return information_criterion(FittedData.of(model, X, y), sample_weight, "aic")


@documented(ENTRIES)
def bic(model: Any, X: Any, y: Any = None, *, sample_weight: ArrayLike | None = None) -> pd.Series:
    """Return each gene's Bayesian information criterion; smaller is better.

    Parameters
    ----------
    {model}
    {X_of_fit}
    {y_of_fit}
    {sample_weight_of_fit}

    Returns
    -------
    Series
        ``log(n) k - 2 log L`` by gene (Schwarz 1978), with the log-likelihood ``log L``, the number
        ``k`` of coefficients that are not aliased, and the number ``n`` of cells or the sum of
        their weights. Given sizes do not count as coefficients.

    Raises
    ------
    ValueError
        If the model is penalised or moderated.
    {raises_not_of_fit}

    Examples
    --------
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import aic, bic
    >>> data = make_counts(n_targets=1, random_state=0)
    >>> X = data.obs[["pseudotime"]]
    >>> model = NegBinRegressor().fit(X, data.counts)
    >>> float((bic(model, X, data.counts) - aic(model, X, data.counts)).iloc[0].round(2))
    12.64
    """
    return information_criterion(FittedData.of(model, X, y), sample_weight, "bic")


def information_criterion(
    fitted: FittedData, sample_weight: ArrayLike | None, name: str
) -> pd.Series:
    """Return each gene's ``"aic"`` or ``"bic"``.

    Raises
    ------
    ValueError
        If the model is penalised or moderated, or the data are not those of the fit.
    """
    check_maximum(fitted, "An information criterion")
    weights = fitted.weights(sample_weight)
    counts, designs = fitted.counts_and_designs(weights)
    rank = sum(
        design.to_coef.shape[1]
        for part, design in designs.parts.items()
        if part not in fitted.fixed_parts
    )
    penalty = PENALTIES[name](weights.sum()) * rank
    value = penalty - 2 * log_likelihoods(fitted, counts, designs)
    return pd.Series(value, index=fitted.gene_index)
