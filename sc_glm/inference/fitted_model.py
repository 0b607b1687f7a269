"""A fitted model with data: covariates and counts of cells, checked and arranged by gene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import (
    check_same_order,
    column_or_values,
    covariates_in,
    is_anndata,
    quoted,
    similar_names,
)
from sc_glm.distributions.log_mass import log_mass
from sc_glm.estimators.base import CountRegressor
from sc_glm.estimators.input_checks import check_sample_weight, drop_cells_of_zero_weight
from sc_glm.estimators.pipeline import counts_in, last_step
from sc_glm.estimators.prediction import without_repeated_rows
from sc_glm.inference.docstring_entries import ENTRIES

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

_MAX_DENSE_ENTRIES = 2_000_000  # cells x genes that are dense at a time


class Block(NamedTuple):
    """Some genes of a model with their counts and fitted distributions, cells x genes.

    ``predictors`` are the linear predictors of the parts, which determine the distributions.
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
    X : array-like or DataFrame
        Covariates as the steps of the model take them. It is kept for the labels of its rows, which
        these steps may lose, and for columns that are not covariates of the model.
    covariates : ndarray of shape (n_cells, n_features)
        Input of the regressor, checked.
    counts : CountMatrix of shape (n_cells, n_genes)
        Counts of ``genes``.
    genes : ndarray of int of shape (n_genes,)
        Positions of these genes among the genes of the fit.

    Notes
    -----
    No other module outside ``estimators`` reads private attributes of regressors.
    """

    regressor: CountRegressor
    X: Any
    covariates: FloatArray
    counts: CountMatrix
    genes: NDArray[np.intp]

    @classmethod
    @documented(ENTRIES)
    def of(
        cls, model: Any, X: Any, y: Any = None, *, genes: str | Sequence[str] | None = None
    ) -> FittedData:
        """Check a model, covariates and counts.

        Parameters
        ----------
        {model}
        {X}
        {y}
        {genes}

        Raises
        ------
        {raises_not_a_regressor}
        TypeError
            If `genes` are not strings, if `y` is one, or if the model is an AnnData.
        {raises_invalid_data}
        ValueError
            If a gene is not a gene of the fit, or `genes` is empty.
        """
        if is_anndata(model):
            raise TypeError("The model comes first, and the AnnData second.")
        if isinstance(y, str):
            raise TypeError(
                f"y holds counts, but is {quoted(y)}. With an AnnData, give further arguments by "
                "name, as in (model, adata, genes=...)."
            )
        check_same_order(X, y, "y")
        if y is None:
            y = counts_in(model, X)
        X = covariates_in(X)
        regressor, design = last_step(model, X)
        if not isinstance(regressor, CountRegressor):
            raise TypeError(
                "The model must be a fitted NegBinRegressor or ZINBRegressor, or end in one; this "
                f"ends in a {type(regressor).__name__}."
            )
        check_is_fitted(regressor)
        covariates = regressor._check_covariates(design, reset=False)
        counts = regressor._check_counts(design, y, len(covariates))
        all_genes = cls(regressor, X, covariates, counts, np.arange(counts.n_genes))
        if genes is None:
            return all_genes
        return all_genes.of_genes(_positions(all_genes.names, genes))

    def of_genes(self, positions: NDArray[np.intp]) -> FittedData:
        """Return the genes at some positions among these, in this order."""
        counts = self.counts.of_genes(positions)
        return replace(self, counts=counts, genes=self.genes[positions])

    @property
    def names(self) -> NDArray[np.object_]:
        """Names of the genes."""
        return self.regressor.target_names_[self.genes]

    @property
    def gene_index(self) -> pd.Index:
        """Index of a table with a row for each gene."""
        return pd.Index(self.names, name="gene")

    @property
    def params(self) -> dict[str, pd.DataFrame]:
        """Coefficients of the genes, features x genes, by part."""
        return {part: table.iloc[:, self.genes] for part, table in self.regressor.params_.items()}

    @property
    def n_coef(self) -> int:
        """Number of coefficients of a gene, summed over the parts."""
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
    def fixed_parts(self) -> tuple[str, ...]:
        """Parts whose coefficients were fixed in the fit, as moderated and given sizes are."""
        return self.regressor._fixed_parts

    @property
    def has_given_size(self) -> bool:
        """Whether the sizes are constants of the model, and not estimates from its counts."""
        return self.regressor._has_given_size

    @property
    def designs(self) -> dict[str, FloatArray]:
        """Design matrix of each part, a row for each cell."""
        return self.regressor._layout.designs(self.covariates)

    def at_rows(self, design: Any) -> FittedData:
        """Return the model at other rows, as the regressor takes its X, without their counts."""
        covariates = self.regressor._check_covariates(design, reset=False)
        return replace(self, X=design, covariates=covariates)

    @property
    def offset(self) -> FloatArray:
        """Offset of the mean's predictor in each cell."""
        return self.regressor._layout.offset_of(self.covariates)

    @property
    def family(self) -> Family:
        """Distribution of the counts."""
        return self.regressor._family

    def weights(self, sample_weight: ArrayLike | None) -> FloatArray:
        """Return the cells' weights, checked."""
        sample_weight = column_or_values(self.X, sample_weight, "sample_weight")
        return check_sample_weight(sample_weight, self.X, self.covariates)

    def with_positive_weight(
        self, sample_weight: ArrayLike | None
    ) -> tuple[FittedData, FloatArray]:
        """Return the cells of positive weight, and their weights; check the labels of weights."""
        weights = self.weights(sample_weight)
        X = self.X[weights > 0] if isinstance(self.X, pd.DataFrame) else None  # for its labels
        counts, weights, covariates = drop_cells_of_zero_weight(
            self.counts, weights, self.covariates
        )
        return replace(self, X=X, counts=counts, covariates=covariates), weights

    def sample_sparse(self, cells: NDArray[np.intp], random_state: Seed) -> sp.csr_array:
        """Draw counts of cells from the model; a cell may occur several times."""
        names = getattr(self.regressor, "feature_names_in_", None)
        covariates = pd.DataFrame(self.covariates[cells], columns=names)
        X = covariates.to_numpy() if names is None else covariates
        return self.regressor.sample_sparse(X, random_state)[:, self.genes]

    @property
    def typical_cells(self) -> tuple[FittedData, FloatArray]:
        """A few cells that represent the cells of the fit, with their weights, without counts."""
        covariates, weights = self.regressor._representative_cells
        return replace(self, X=None, covariates=covariates), weights

    def predictors(self, genes: slice) -> list[FloatArray]:
        """Return the linear predictor of each part for some genes, cells x genes."""
        return self.predictors_at(self.designs, self.offset, genes)

    def predictors_by_gene(self, genes: slice) -> list[FloatArray]:
        """Return the linear predictors of each part for some genes, genes x cells.

        Parts other than the mean have one column if their design is the same in all cells.
        """
        predictors = self.predictors_at(self._short_designs, self._offset, genes)
        return [np.ascontiguousarray(by_cell.T) for by_cell in predictors]

    @cached_property
    def _short_designs(self) -> dict[str, FloatArray]:
        return without_repeated_rows(self.designs)

    @cached_property
    def _offset(self) -> FloatArray:
        return self.offset

    def predictors_at(
        self, designs: dict[str, FloatArray], offset: FloatArray, genes: slice
    ) -> list[FloatArray]:
        """Return the linear predictor of each part at rows of the designs, rows x genes."""
        by_part = self.regressor._linear_predictors(designs, offset, self.genes[genes])
        return list(by_part.values())

    def distribution_of(self, predictors: dict[str, FloatArray]) -> NB | ZINB:
        """Return the distribution of counts with these linear predictors of the parts."""
        return self.regressor._distribution_of(predictors)

    def counts_and_designs(self, weights: FloatArray) -> tuple[CountMatrix, Designs]:
        """Return the counts and the designs of the cells of positive weight, as a fit has them."""
        counts, weights, covariates = drop_cells_of_zero_weight(
            self.counts, weights, self.covariates
        )
        return counts, self.regressor._designs_of_fit(self.regressor._layout, covariates, weights)

    @property
    def is_penalised(self) -> bool:
        """Whether the coefficients of any part were penalised."""
        return self.regressor._is_penalised

    def in_shape_of_counts(self, values: FloatArray) -> FloatArray:
        """Return cells x genes, or a vector if the counts of the fit were a vector."""
        return self.regressor._in_shape_of_counts(values)

    def set_results(self, designs: Designs, fits: GeneFits, fixed_parts: tuple[str, ...]) -> None:
        """Replace the regressor's results by a fit of all genes with some parts fixed."""
        regressor = self.regressor
        counts = replace(
            self.counts,
            names=regressor.target_names_,
            one_dimensional=regressor._one_dimensional,
        )
        regressor._set_fitted(regressor._layout, counts, designs, fits, fixed_parts)

    def gene_slices(self, n_rows: int = 0) -> list[slice]:
        """Return slices of genes, so that arrays of cells x genes, or rows x genes, stay small.

        Raises
        ------
        ValueError
            If the fit does not determine the predictor of a cell.
        """
        self.regressor._check_estimable(self.X, self.designs, np.ones(len(self.counts)))
        step = max(1, _MAX_DENSE_ENTRIES // max(len(self.counts), n_rows))
        n_genes = len(self.genes)
        return [slice(first, min(first + step, n_genes)) for first in range(0, n_genes, step)]

    def blocks(self, n_rows: int = 0) -> Iterator[Block]:
        """Yield blocks of genes by :meth:`gene_slices`, whose error this raises as well."""
        designs, offset = self.designs, self.offset
        for genes in self.gene_slices(n_rows):
            predictors = self.regressor._linear_predictors(designs, offset, self.genes[genes])
            values = self.counts.dense(genes).astype(np.float64)
            dist = self.distribution_of(predictors)
            yield Block(genes, values, dist, predictors)

    def log_probs(self) -> Iterator[tuple[slice, FloatArray]]:
        """Yield the log-probabilities of the counts, cells x genes, by :meth:`blocks`.

        They are finite also where a zero inflation rounds to one, unlike those of ``dist``.
        """
        family = self.regressor._family
        for block in self.blocks():
            yield block.genes, log_mass(family, block.counts, list(block.predictors.values()))


def _positions(names: NDArray[np.object_], genes: str | Sequence[str]) -> NDArray[np.intp]:
    wanted = [genes] if isinstance(genes, str) else list(np.atleast_1d(np.asarray(genes, object)))
    if not all(isinstance(gene, str) for gene in wanted):
        raise TypeError(f"genes must be names of genes, not {quoted(wanted[:5])}.")
    positions = pd.Index(names).get_indexer(pd.Index(wanted))
    missing = [gene for gene, position in zip(wanted, positions, strict=True) if position < 0]
    if missing:
        similar = similar_names(missing[0], names, 3)  # for example murine Ins1 for human INS1
        hint = f" Names similar to {quoted(missing[0])}: {similar}." if similar else ""
        raise ValueError(
            f"{len(missing)} gene(s) are not genes of the fit: {quoted(missing[:5])}.{hint}"
        )
    if not wanted:
        raise ValueError("genes is empty: give at least one name, or None for all genes.")
    return positions


@documented(ENTRIES)
def predicted_distributions(model: Any, X: Any, genes: str | Sequence[str]) -> NB | ZINB:
    """Return the distributions of some genes' counts in cells, which need no counts.

    Parameters
    ----------
    {model}
    {X}
    genes : str or sequence of str
        Names of the genes.

    Returns
    -------
    NB or ZINB of shape (n_cells, n_genes)
    """
    regressor, design = last_step(model, covariates_in(X))
    designs, offset = regressor._estimable_designs(design)
    chosen = _positions(regressor.target_names_, genes)
    return regressor._distribution_of(regressor._linear_predictors(designs, offset, chosen))
