"""A fitted model beside counts: what inference and diagnostics start from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sc_glm._contract.validation import alike, check_same_order, shown
from sc_glm.distributions.log_mass import log_mass
from sc_glm.estimators.base import CountRegressor, present, weights_of
from sc_glm.estimators.pipeline import counts_in, last_step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import scipy.sparse as sp
    from numpy.typing import ArrayLike, NDArray

    from sc_glm._counts.count_matrix import CountMatrix
    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm._solver.gene_block import Designs, GeneFits
    from sc_glm.distributions.count_distributions import NB, ZINB
    from sc_glm.distributions.random_variates import RandomSource

    Seed: TypeAlias = int | RandomSource | None

_ENTRIES = 2_000_000  # cells x genes that are dense at a time


class Block(NamedTuple):
    """Some genes of a model with their counts and fitted distributions, cells x genes.

    ``predictors`` are those of the parts, of which the distributions are made.
    """

    genes: slice
    counts: FloatArray
    dist: NB | ZINB
    predictors: dict[str, FloatArray]


@dataclass(frozen=True)
class FittedData:
    """A fitted regressor, its designs for some cells, and their counts.

    Attributes
    ----------
    regressor : CountRegressor
        The last step of the model.
    X : array-like, DataFrame or AnnData
        What the model predicts from. Its rows may have labels, which steps of a pipeline may lose.
    covariates : ndarray of shape (n_cells, n_features)
        What the regressor makes of it, checked.
    counts : CountMatrix of shape (n_cells, n_genes)
        Counts of ``genes``.
    genes : ndarray of int of shape (n_genes,)
        Where these genes stand among those of the fit.

    Notes
    -----
    This module alone reads what regressors keep to themselves.
    """

    regressor: CountRegressor
    X: Any
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
            If the model does not end in a regressor of this package, or genes are no names.
        ValueError
            If data are not what they should be, or not of the model's genes.
        """
        check_same_order(X, y, "y")
        if y is None:
            y = counts_in(getattr(model, "best_estimator_", model), X)
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
            matrix = counts.by_column[:, chosen]
            counts = replace(counts, matrix=matrix, names=counts.names[chosen])
        return cls(regressor, X, covariates, counts, chosen)

    @property
    def names(self) -> NDArray[np.object_]:
        """Names of the genes."""
        return self.regressor.target_names_[self.genes]

    @property
    def params(self) -> dict[str, pd.DataFrame]:
        """Coefficients of the genes, features x genes, by part."""
        return {part: table.iloc[:, self.genes] for part, table in self.regressor.params_.items()}

    @property
    def n_coef(self) -> int:
        """Number of a gene's coefficients, of all parts."""
        return sum(len(table) for table in self.regressor.params_.values())

    def coordinates(self, designs: Designs) -> FloatArray:
        """Return the genes' coordinates in the bases of designs, genes x parameters."""
        return designs.coordinates({part: x.to_numpy() for part, x in self.params.items()})

    @property
    def status(self) -> NDArray[np.object_]:
        """How the genes' fits ended."""
        return self.regressor.status_[self.genes]

    @property
    def log_likelihood(self) -> FloatArray:
        """The genes' log-likelihoods at the fit, without a penalty."""
        return self.regressor.log_likelihood_[self.genes]

    @property
    def held(self) -> tuple[str, ...]:
        """Parts that are not where the likelihood has its maximum, as they were moderated."""
        return self.regressor._held

    @property
    def designs(self) -> dict[str, FloatArray]:
        """Each part's design matrix, a row for each cell."""
        return self.regressor._layout.designs(self.covariates)

    @property
    def offset(self) -> FloatArray:
        """What is added to the mean's predictor in each cell."""
        return self.regressor._layout.offset_of(self.covariates)

    @property
    def family(self) -> Family:
        """Distribution of the counts."""
        return self.regressor._family

    def weights(self, sample_weight: ArrayLike | None) -> FloatArray:
        """Return the cells' weights, checked."""
        return weights_of(sample_weight, self.X, self.covariates)

    def with_weight(self, sample_weight: ArrayLike | None) -> tuple[FittedData, FloatArray]:
        """Return the cells that have a weight, whose labels are checked, and their weights."""
        weights = self.weights(sample_weight)
        X = self.X[weights > 0] if isinstance(self.X, pd.DataFrame) else None  # for its labels
        counts, weights, covariates = present(self.counts, weights, self.covariates)
        return replace(self, X=X, counts=counts, covariates=covariates), weights

    def sample_sparse(self, cells: NDArray[np.intp], random_state: Seed) -> sp.csr_array:
        """Draw counts of these cells, some of them several times, from the model."""
        names = getattr(self.regressor, "feature_names_in_", None)
        covariates = pd.DataFrame(self.covariates[cells], columns=names)
        X = covariates.to_numpy() if names is None else covariates
        return self.regressor.sample_sparse(X, random_state)[:, self.genes]

    @property
    def typical(self) -> tuple[FittedData, FloatArray]:
        """A few cells that stand for those of the fit, without counts, and their weights."""
        covariates, weights = self.regressor._cells_of_fit
        return replace(self, X=None, covariates=covariates), weights

    def predictors(self, genes: slice) -> list[FloatArray]:
        """Return the parts' predictors of some of the genes, cells x genes."""
        own = self.regressor._predictors_of(self.designs, self.offset, self.genes[genes])
        return list(own.values())

    def weighted(self, weights: FloatArray) -> tuple[CountMatrix, Designs]:
        """Return the counts and the designs of the cells that have a weight, as a fit has them."""
        counts, weights, covariates = present(self.counts, weights, self.covariates)
        return counts, self.regressor._designs_of(self.regressor._layout, covariates, weights)

    @property
    def is_penalised(self) -> bool:
        """Whether the fit had a penalty on the coefficients of any part."""
        alpha = self.regressor.alpha
        return bool(np.any([*alpha.values()] if isinstance(alpha, dict) else alpha))

    def shaped(self, values: FloatArray) -> FloatArray:
        """Return cells x genes as the fit had its counts: a vector if it had one."""
        return self.regressor._shaped(values)

    def set_results(self, designs: Designs, fits: GeneFits, held: tuple[str, ...]) -> None:
        """Give the regressor other results, found with some parts held, for all genes."""
        regressor = self.regressor
        counts = replace(
            self.counts,
            names=regressor.target_names_,
            one_dimensional=regressor._one_dimensional,
        )
        regressor._set_fitted(regressor._layout, counts, designs, fits, held)

    def blocks(self, n_rows: int = 0) -> Iterator[Block]:
        """Yield the genes by blocks whose cells x genes, or rows x genes, are no large array.

        Raises
        ------
        ValueError
            If the fit does not determine what a cell has.
        """
        step = max(1, _ENTRIES // max(len(self.counts), n_rows))
        designs, offset = self.designs, self.offset
        self.regressor._check_determined(self.X, designs, np.ones(len(offset)))
        for first in range(0, len(self.genes), step):
            genes = slice(first, min(first + step, len(self.genes)))
            predictors = self.regressor._predictors_of(designs, offset, self.genes[genes])
            values = self.counts.dense(genes).astype(np.float64)
            dist = self.regressor._distribution_of(predictors)
            yield Block(genes, values, dist, predictors)

    def log_probs(self) -> Iterator[tuple[slice, FloatArray]]:
        """Yield the log-probabilities of the counts, cells x genes, by the same blocks.

        Those of ``dist`` may be minus infinity, where a zero inflation rounds to one.
        """
        family = self.regressor._family
        for block in self.blocks():
            yield block.genes, log_mass(family, block.counts, list(block.predictors.values()))


def _positions(names: NDArray[np.object_], genes: str | Sequence[str]) -> NDArray[np.intp]:
    asked = [genes] if isinstance(genes, str) else list(np.atleast_1d(np.asarray(genes, object)))
    if not all(isinstance(gene, str) for gene in asked):
        raise TypeError(f"genes must be names of genes, not {shown(asked[:5])}.")
    where = pd.Index(names).get_indexer(pd.Index(asked))
    missing = [gene for gene, position in zip(asked, where, strict=True) if position < 0]
    if missing:
        near = alike(missing[0], names, 3)  # such as murine Ins1 for human INS1
        hint = f" Like {shown(missing[0])} are {near}." if near else ""
        raise ValueError(f"{len(missing)} gene(s) are not of the fit: {shown(missing[:5])}.{hint}")
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
    return regressor._distribution_of(regressor._predictors_of(designs, offset, chosen))
