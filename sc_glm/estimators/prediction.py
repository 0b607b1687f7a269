"""Predictions, samples and likelihoods of a fitted regressor: what needs its coefficients only."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from sc_glm._contract.docstrings import documented
from sc_glm._contract.user_warnings import warn
from sc_glm._counts.count_matrix import CountMatrix
from sc_glm._design.design import FloatArray
from sc_glm._design.layout import Layout
from sc_glm._design.null_space import NullSpace
from sc_glm._likelihood.family import (
    DISPERSION,
    LARGEST_LOG_MEAN,
    LARGEST_LOG_SIZE,
    MEAN,
    ZERO_INFLATION,
    Family,
)
from sc_glm.distributions.count_distributions import NB, ZINB
from sc_glm.distributions.log_mass import log_mass, log_mass_of_matrix
from sc_glm.distributions.sampling import sample_dense, sample_sparse
from sc_glm.estimators.docstring_entries import ENTRIES
from sc_glm.estimators.input_checks import (
    check_counts_of_genes,
    check_covariates,
    check_sample_weight,
)

_MAX_COLUMNS_SHOWN = 5  # of a combination that a message describes
_MAX_DENSE_ENTRIES = 2_000_000  # cells x genes whose log-probabilities are in memory at once


class PredictionMixin:
    """The methods of a regressor that need its fitted coefficients and no other data of the fit."""

    _family: ClassVar[Family]
    _distribution: ClassVar[type[NB] | type[ZINB]]
    _layout: Layout
    _null_spaces: dict[str, NullSpace]
    _largest_mean_predictors: FloatArray
    _one_dimensional: bool
    n_jobs: int | None
    params_: dict[str, pd.DataFrame]
    target_names_: NDArray[np.object_]

    @documented(ENTRIES)
    def predict_params(self, X: ArrayLike) -> dict[str, FloatArray]:
        """Return the value of each part for every cell and gene.

        Parameters
        ----------
        {X}

        Returns
        -------
        {values_of_parts}

        Warns
        -----
        {warns_not_estimable}
        """
        predictors = self._predictors_or_nan(X, self._family.parts)
        values = _inverse_links(predictors)
        return {part: self._in_shape_of_counts(value) for part, value in values.items()}

    @documented(ENTRIES)
    def predict_dist(self, X: ArrayLike) -> NB | ZINB:
        """Return the fitted distribution of every cell's and gene's count.

        Parameters
        ----------
        {X}

        Returns
        -------
        {distribution}

        Raises
        ------
        {raises_not_estimable}
        """
        predictors = self._linear_predictors(*self._estimable_designs(X))
        return self._distribution_of(
            {part: self._in_shape_of_counts(x) for part, x in predictors.items()}
        )

    @documented(ENTRIES)
    def predict(self, X: ArrayLike) -> FloatArray:
        """Return the expected counts.

        Parameters
        ----------
        {X}

        Returns
        -------
        {expected_counts}

        Warns
        -----
        {warns_not_estimable}
        """
        check_is_fitted(self)
        predictors = self._predictors_or_nan(X, [p for p in self.params_ if p != DISPERSION])
        mean = _mean(predictors[MEAN])
        if ZERO_INFLATION in predictors:
            mean *= expit(-predictors[ZERO_INFLATION])
        return self._in_shape_of_counts(mean)

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
        {X}
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
        draws = 1 if n_draws is None else check_scalar(n_draws, "n_draws", Integral, min_val=1)
        dist_of, shape = self._distributions_by_cells(X)
        drawn = sample_dense(
            dist_of, (draws, *shape), random_state=random_state, n_jobs=self.n_jobs
        )
        counts = self._in_shape_of_counts(drawn)
        return counts[0] if n_draws is None else counts

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
        {X}
        {random_state}

        Returns
        -------
        {drawn_sparse_counts}

        Raises
        ------
        {raises_not_estimable}

        Examples
        --------
        >>> import numpy as np
        >>> from sc_glm import NegBinRegressor
        >>> X = np.array([[0.0], [1.0], [0.0], [1.0]])
        >>> model = NegBinRegressor().fit(X, [[1], [4], [3], [8]])
        >>> counts = model.sample_sparse(X, random_state=0)
        >>> bool((counts.toarray() == model.sample(X, random_state=0)).all())
        True
        """
        dist_of, shape = self._distributions_by_cells(X)
        return sample_sparse(dist_of, shape, random_state=random_state, n_jobs=self.n_jobs)

    @documented(ENTRIES)
    def log_prob(self, X: ArrayLike, y: Any) -> FloatArray:
        """Return the log-probability of each count under the fitted model.

        It is computed from the linear predictors, so it is finite even if the probability rounds
        to zero or one.

        Parameters
        ----------
        {X}
        {y}

        Returns
        -------
        {log_probabilities}

        Raises
        ------
        {raises_not_estimable}
        """
        designs, offset = self._estimable_designs(X)
        counts = self._check_counts(X, y, len(offset)).load()
        designs = without_repeated_rows(designs)

        def predictors_of(cells: slice) -> list[FloatArray]:
            of_cells = {
                part: x[cells] if len(x) == len(offset) else x for part, x in designs.items()
            }
            return list(self._linear_predictors(of_cells, offset[cells]).values())

        log_probs = log_mass_of_matrix(self._family, counts.by_row, predictors_of)
        return self._in_shape_of_counts(log_probs)

    @documented(ENTRIES)
    def score(self, X: ArrayLike, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean log-likelihood per cell and gene; a larger value is a better fit.

        Unlike R², it depends on the dispersion and the zero inflation as well as the mean, so
        cross-validation can compare formulas of any part by it.

        Parameters
        ----------
        {X}
        {y}
        {sample_weight}

        Returns
        -------
        {mean_log_likelihood}

        Raises
        ------
        {raises_not_estimable}
        """
        designs, offset = self._estimable_designs(X, sample_weight)
        predictors = list(self._linear_predictors(designs, offset).values())
        n_cells = len(predictors[0])
        counts = self._check_counts(X, y, n_cells)
        weights = check_sample_weight(sample_weight, X, predictors[0])
        step = max(1, _MAX_DENSE_ENTRIES // n_cells)
        total = 0.0
        for first in range(0, counts.n_genes, step):
            genes = slice(first, first + step)
            values = counts.dense(genes).astype(np.float64)
            log_probs = log_mass(self._family, values, [p[:, genes] for p in predictors])
            total += float(weights @ log_probs.sum(axis=1))
        return total / (float(weights.sum()) * counts.n_genes)

    # Checks

    def _check_covariates(self, X: Any, *, reset: bool) -> FloatArray:
        return check_covariates(self, X, reset=reset)

    def _check_counts(self, X: Any, y: Any, n_cells: int) -> CountMatrix:
        return check_counts_of_genes(X, y, n_cells, self.target_names_)

    # Designs, and the rows whose predictors the fit determines

    def _designs(self, X: ArrayLike) -> tuple[dict[str, FloatArray], FloatArray]:
        """Check `X`, and return the parts' designs and the offset."""
        check_is_fitted(self)
        covariates = self._check_covariates(X, reset=False)
        return self._layout.designs(covariates), self._layout.offset_of(covariates)

    def _estimable_designs(
        self, X: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[dict[str, FloatArray], FloatArray]:
        """Return designs and offset; raise if a predictor of positive weight is not estimable."""
        designs, offset = self._designs(X)
        if self._null_spaces:
            self._check_estimable(X, designs, check_sample_weight(sample_weight, X, offset))
        return designs, offset

    def _check_estimable(self, X: Any, designs: dict[str, FloatArray], weights: FloatArray) -> None:
        """Raise a ValueError if a row of positive weight has a predictor that is not estimable."""
        for part in self._null_spaces:
            rows, message = self._not_estimable_rows(
                part, X, np.where(weights[:, None] > 0, designs[part], 0)
            )
            if len(rows):
                raise ValueError(
                    f"{message} Leave such rows out, fit cells that have the combination, or take "
                    "a formula without it."
                )

    def _predictors_or_nan(self, X: ArrayLike, parts: Sequence[str]) -> dict[str, FloatArray]:
        """Return the linear predictors, cells x genes; those of ``parts`` are NaN if not estimable.

        Warn of rows that have such predictors.
        """
        designs, offset = self._designs(X)
        predictors = self._linear_predictors(designs, offset)
        for part in parts:
            rows, message = self._not_estimable_rows(part, X, designs[part])
            if len(rows):
                predictors[part][rows] = np.nan
                warn(f"{message} Predictions there are NaN.")
        return predictors

    def _not_estimable_rows(
        self, part: str, X: Any, design: FloatArray
    ) -> tuple[NDArray[np.intp], str]:
        """Return the rows of a design that are not estimable from the fit, and a message."""
        if part not in self._null_spaces:
            return np.empty(0, dtype=np.intp), ""
        null_space = self._null_spaces[part]
        rows = np.flatnonzero(null_space.not_estimable(design, unit=1.0))
        if not len(rows):
            return rows, ""
        row = design[rows[0]]
        columns = null_space.columns_of(row)
        named = [
            f"{self._layout.columns[part][i]} = {row[i]:g}" for i in columns[:_MAX_COLUMNS_SHOWN]
        ]
        more = ", ..." if len(columns) > _MAX_COLUMNS_SHOWN else ""
        label = X.index[rows[0]] if isinstance(X, pd.DataFrame) else rows[0]
        message = (
            f"The fit does not determine the {part} in row {label}: no cell of the fit had a "
            f"combination of columns like {', '.join(named)}{more}."
        )
        if len(rows) > 1:
            message += f" This holds for {len(rows)} of {len(design)} rows."
        return rows, message

    # Linear predictors, distributions

    def _linear_predictors(
        self, designs: dict[str, FloatArray], offset: FloatArray, genes: Any = slice(None)
    ) -> dict[str, FloatArray]:
        """Return the linear predictor of each part for some genes, cells x genes."""
        predictors = {
            part: designs[part] @ table.to_numpy()[:, genes] for part, table in self.params_.items()
        }
        mean = predictors[MEAN]
        np.minimum(mean, self._largest_mean_predictors[genes], out=mean)
        mean += offset[:, None]
        return predictors

    def _distribution_of(self, predictors: dict[str, FloatArray]) -> NB | ZINB:
        """Return the distribution of counts with these linear predictors of the parts."""
        return self._distribution(*_inverse_links(predictors).values())

    def _distributions_by_cells(
        self, X: ArrayLike
    ) -> tuple[Callable[[slice], NB | ZINB], tuple[int, int]]:
        """Return a function from a slice of cells to their distributions, and the shape of all."""
        designs, offset = self._estimable_designs(X)

        def dist_of(cells: slice) -> NB | ZINB:
            designs_of_cells = {part: design[cells] for part, design in designs.items()}
            return self._distribution_of(self._linear_predictors(designs_of_cells, offset[cells]))

        return dist_of, (len(offset), len(self.target_names_))

    def _in_shape_of_counts(self, values: NDArray[Any]) -> NDArray[Any]:
        """Drop the last axis if the counts of the fit had one dimension."""
        return values[..., 0] if self._one_dimensional else values


def without_repeated_rows(designs: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Return one row of the designs that are the same in all cells, except of the mean's."""
    return {
        part: x[:1] if part != MEAN and len(x) and (x == x[0]).all() else x
        for part, x in designs.items()
    }


def _inverse_links(predictors: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the parts' values, by the inverse of each part's link."""
    inverse_links: dict[str, Any] = {MEAN: _mean, DISPERSION: _size, ZERO_INFLATION: expit}
    return {part: inverse_links[part](predictor) for part, predictor in predictors.items()}


def _mean(predictor: FloatArray) -> FloatArray:
    """Return the mean: the exponential, positive and at most the largest mean of a family."""
    return np.exp(np.clip(predictor, np.log(np.finfo(float).tiny), LARGEST_LOG_MEAN))


def _size(predictor: FloatArray) -> FloatArray:
    """Return the size: the exponential, within the bounds of a family."""
    return np.exp(np.clip(predictor, -LARGEST_LOG_SIZE, LARGEST_LOG_SIZE))
