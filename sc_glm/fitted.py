"""A fitted model beside counts: what inference and diagnostics start from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sc_glm.base import CountRegressor, distribution_of
from sc_glm.pipeline import last_step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sc_glm.counts import CountMatrix
    from sc_glm.design import FloatArray
    from sc_glm.distributions import NB, ZINB

_ENTRIES = 2_000_000  # cells x genes that are dense at a time


class Block(NamedTuple):
    """Some genes of a model with their counts and fitted distributions, cells x genes."""

    genes: slice
    counts: FloatArray
    dist: NB | ZINB


@dataclass(frozen=True)
class FittedData:
    """A fitted regressor, its designs for some cells, and their counts.

    Attributes
    ----------
    regressor : CountRegressor
        The last step of the model.
    covariates : ndarray of shape (n_cells, n_features)
        Its `X`, checked.
    counts : CountMatrix of shape (n_cells, n_genes)
        Counts of ``genes``.
    genes : ndarray of int of shape (n_genes,)
        Where these genes stand among those of the fit.

    Notes
    -----
    This module alone reads what regressors keep to themselves.
    """

    regressor: CountRegressor
    covariates: FloatArray
    counts: CountMatrix
    genes: NDArray[np.intp]

    @classmethod
    def of(
        cls, model: Any, X: Any, y: Any = None, *, genes: str | Sequence[str] | None = None
    ) -> FittedData:
        """Check a model, covariates and counts.

        Parameters
        ----------
        model : estimator
            A fitted regressor, a pipeline that ends in one, a search over these, or an
            :class:`~sc_glm.adata.AnnDataRegressor`.
        X : array-like, DataFrame or AnnData
            What the model predicts from.
        y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
            Counts of all genes of the fit; None where `X` is an AnnData that holds them.
        genes : str or sequence of str, default=None
            Names of the genes to keep, in this order; None is all.

        Raises
        ------
        TypeError
            If the model does not end in a regressor of this package.
        ValueError
            If data are not what they should be, or not of the model's genes.
        """
        if y is None:
            holder = getattr(model, "best_estimator_", model)
            if not hasattr(holder, "counts"):
                raise ValueError(
                    "The target y is None, and X holds the counts of an AnnDataRegressor alone."
                )
            y = holder.counts(X)
        regressor, design = last_step(model, X)
        if not isinstance(regressor, CountRegressor):
            raise TypeError(
                "The model must be a fitted NegBinRegressor or ZINBRegressor, or end in one; this "
                f"ends in a {type(regressor).__name__}."
            )
        check_is_fitted(regressor)
        covariates = regressor._covariates(design, reset=False)
        counts = regressor._checked(design, y, len(covariates))
        chosen = np.arange(counts.n_genes)
        if genes is not None:
            chosen = _positions(regressor.target_names_, genes)
            counts = replace(counts, matrix=counts.matrix[:, chosen], names=counts.names[chosen])
        return cls(regressor, covariates, counts, chosen)

    @property
    def names(self) -> NDArray[np.object_]:
        """Names of the genes."""
        return self.regressor.target_names_[self.genes]

    def blocks(self) -> Iterator[Block]:
        """Yield the genes by blocks whose cells x genes are no large array."""
        step = max(1, _ENTRIES // len(self.counts))
        layout = self.regressor._layout
        designs, offset = layout.designs(self.covariates), layout.offset_of(self.covariates)
        for first in range(0, len(self.genes), step):
            genes = slice(first, min(first + step, len(self.genes)))
            predictors = self.regressor._predictors_of(designs, offset, self.genes[genes])
            values = self.counts.dense(genes).astype(np.float64)
            yield Block(genes, values, distribution_of(predictors))


def _positions(names: NDArray[np.object_], genes: str | Sequence[str]) -> NDArray[np.intp]:
    asked = [genes] if isinstance(genes, str) else list(genes)
    where = pd.Index(names).get_indexer(pd.Index(asked))
    missing = [gene for gene, position in zip(asked, where, strict=True) if position < 0]
    if missing:
        raise ValueError(f"{len(missing)} gene(s) are not of the fit: {missing[:5]}.")
    if not asked:
        raise ValueError("genes is empty: at least one is needed, and None is all.")
    return where


def distributions(model: Any, X: Any, genes: str | Sequence[str]) -> NB | ZINB:
    """Return the distributions of some genes' counts in cells that need not have any.

    Parameters
    ----------
    model : estimator
        As in :meth:`FittedData.of`.
    X : array-like, DataFrame or AnnData
        What the model predicts from.
    genes : str or sequence of str
        Names of the genes.

    Returns
    -------
    NB or ZINB of shape (n_cells, n_genes)
    """
    regressor, design = last_step(model, X)
    designs, offset = regressor._designs(design)
    chosen = _positions(regressor.target_names_, genes)
    return distribution_of(regressor._predictors_of(designs, offset, chosen))
