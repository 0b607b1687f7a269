"""The contract of a regressor: parameters, fit, fitted attributes, summary and saved state."""

import os
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from sc_glm._contract.callbacks import CallbackSupportMixin, reporting_to_callbacks
from sc_glm._contract.docstrings import documented
from sc_glm._contract.state import StateMixin, restore_on_failure
from sc_glm._contract.user_warnings import warn
from sc_glm._counts.count_matrix import CountMatrix
from sc_glm._counts.similar_rows import representative_rows
from sc_glm._design.design import FloatArray
from sc_glm._design.layout import INTERCEPT, Layout
from sc_glm._likelihood.family import DISPERSION, MEAN
from sc_glm._solver.fitting import fit_genes
from sc_glm._solver.gene_block import Designs, GeneFits
from sc_glm._solver.status import Status, count_statuses
from sc_glm.estimators.docstring_entries import ENTRIES
from sc_glm.estimators.fit_designs import check_unique_columns, designs_of_fit
from sc_glm.estimators.given_sizes import given_log_sizes
from sc_glm.estimators.input_checks import (
    check_counts_of_fit,
    check_sample_weight,
    drop_cells_of_zero_weight,
)
from sc_glm.estimators.notebook import NotebookMixin, status_table
from sc_glm.estimators.parameters import (
    PARAMETER_CONSTRAINTS,
    keyword_only,
    penalty_strengths,
    solver_settings,
)
from sc_glm.estimators.prediction import PredictionMixin

# Smallest and largest mean weight of a fit. Convergence is judged by gains in log-likelihood, which
# grow with the weights: within these bounds weights are taken as they are, as numbers of cells.
_MEAN_WEIGHT_BOUNDS = 1.0, 4.0
# Rows of covariates that a fitted model keeps to represent its cells, and how far the cells of one
# row spread, in standard deviations of a column. They serve approximations, not exact results.
_N_REPRESENTATIVE_ROWS = 128
_SPREAD_WITHIN_ROW = 0.1
_COEFFICIENT_TABLES = ("params_", "undetermined_")


class CountRegressor(
    NotebookMixin,
    StateMixin,
    PredictionMixin,
    CallbackSupportMixin,  # type: ignore[misc]
    RegressorMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Base class of the regressors, which differ only by their family and its distribution."""

    _fitted_state = (
        "_fixed_parts",
        "_largest_mean_predictors",
        "_layout",
        "_null_spaces",
        "_one_dimensional",
        "_representative_cells",
        "n_cells_",
        "n_features_in_",
        "params_",
        "target_names_",
    )
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = PARAMETER_CONSTRAINTS

    @keyword_only
    def __init__(
        self,
        *,
        alpha: float | dict[str, float] = 0.0,
        fit_intercept: bool = True,
        max_iter: int = 100,
        tol: float = 1e-6,
        batch_size: int | str = "auto",
        n_jobs: int | None = None,
        device: str | torch.device = "cpu",
        dtype: str = "float64",
        warm_start: bool = False,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        size: float | ArrayLike | None = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.device = device
        self.dtype = dtype
        self.warm_start = warm_start
        self.checkpoint_dir = checkpoint_dir
        self.verbose = verbose
        self.size = size

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = True
        tags.target_tags.required = True
        tags.regressor_tags.poor_score = True  # a log-likelihood, not an R²
        return tags

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Estimate the coefficients of every gene by maximum likelihood.

        Parameters
        ----------
        X : array-like of shape (n_cells, n_features)
            A design frame, whose columns are spelled ``part__column``, or the covariates of the
            mean.
        y : array-like or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
            Counts, which are required. The columns of a DataFrame name the genes.
        sample_weight : array-like of shape (n_cells,), default=None
            Weights of the cells. An integer weight is equivalent to that number of copies of the
            cell. Weights whose mean is below 1 or above 4 are scaled to this mean for the fit, and
            ``log_likelihood_`` is scaled back. So the unit of the weights changes neither
            coefficients nor statuses.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If `X`, `y` or a parameter is not valid. The message names the column, gene or part and
            the value.

        Warns
        -----
        UserWarning
            If most values of `y` are not integers, as after a normalisation by depth or a
            logarithm. Counts corrected for ambient RNA (SoupX, CellBender) may also be such.
        sklearn.exceptions.ConvergenceWarning
            Once, if some genes have coefficients that their counts do not determine, or did not
            converge; see ``status_``.
        """
        with (
            reporting_to_callbacks(self, X, y, sample_weight=sample_weight),
            restore_on_failure(self),
        ):
            self._fit(X, y, sample_weight)
        self._warn_of_statuses()
        return self

    def _fit(self, X: Any, y: Any, sample_weight: ArrayLike | None) -> None:
        settings = solver_settings(self.max_iter, self.tol, self.device, self.dtype)
        covariates = self._check_covariates(X, reset=True)
        counts = check_counts_of_fit(X, y, len(covariates), dtype=self.dtype)
        weights = check_sample_weight(sample_weight, X, covariates)
        layout = Layout.of(
            getattr(self, "feature_names_in_", None),
            covariates.shape[1],
            self._family.parts,
            intercept=self.fit_intercept,
        )
        check_unique_columns(layout)
        counts, weights, covariates = drop_cells_of_zero_weight(counts, weights, covariates)
        unit = _unit_of_weights(weights)
        designs = self._designs_of_fit(layout, covariates, weights / unit)
        log_size = given_log_sizes(self.size, counts.names, layout.designs(covariates))
        fits = fit_genes(
            self._family,
            counts,
            designs,
            settings,
            batch_size=self.batch_size,
            n_jobs=self.n_jobs,
            start=self._warm_start_values(layout, counts),
            log_size=log_size,
            checkpoint_dir=self.checkpoint_dir,
            progress=bool(self.verbose),
        )
        fits = replace(fits, log_likelihood=unit * fits.log_likelihood)
        fixed_parts: tuple[str, ...] = ()
        if log_size is not None:
            fits.coef[DISPERSION][:] = log_size
            fixed_parts = (DISPERSION,)
        self._set_fitted(layout, counts, designs, fits, fixed_parts)
        if hasattr(self, "layer_"):  # of an earlier fit, to an AnnData
            del self.layer_
        n_rows = max(_N_REPRESENTATIVE_ROWS, 2 * covariates.shape[1])
        self._representative_cells = representative_rows(
            covariates, weights, n_rows, _SPREAD_WITHIN_ROW
        )
        self.n_cells_ = len(counts)

    @property
    def _is_penalised(self) -> bool:
        """Whether any coefficient has a penalty. Tests that need a maximum depend on it."""
        alpha = self.alpha
        return bool(np.any([*alpha.values()] if isinstance(alpha, dict) else alpha))

    @property
    def _has_given_size(self) -> bool:
        """Whether the sizes of the fit were given, as constants of the model."""
        return bool(self._fixed_parts) and self.size is not None

    def _designs_of_fit(
        self, layout: Layout, covariates: FloatArray, weights: FloatArray
    ) -> Designs:
        """Return the designs of cells of positive weight, with the penalties of the fit."""
        penalties = penalty_strengths(self.alpha, self._family.parts, float(weights.sum()))
        return designs_of_fit(layout, covariates, weights, penalties)

    def _warm_start_values(
        self, layout: Layout, counts: CountMatrix
    ) -> dict[str, FloatArray] | None:
        """Return the coefficients of the last fit as initial values, if this is a warm start."""
        if not (self.warm_start and hasattr(self, "params_")):
            return None
        if self._fixed_parts and self.size is None:
            return None  # a given size may be so large that the likelihood is flat there
        same = list(self.target_names_) == list(counts.names) and all(
            list(self.params_[part].index) == columns for part, columns in layout.columns.items()
        )
        if not same:
            raise ValueError(
                "warm_start=True, but the genes or the columns are not those of the last fit. Fit "
                "these, or set warm_start=False."
            )
        return {part: table.to_numpy() for part, table in self.params_.items()}

    def _set_fitted(
        self,
        layout: Layout,
        counts: CountMatrix,
        designs: Designs,
        fits: GeneFits,
        fixed_parts: tuple[str, ...] = (),
    ) -> None:
        """Set the fitted attributes; coefficients of ``fixed_parts`` were given, not estimated."""
        self._layout = layout
        self._fixed_parts = fixed_parts
        self._one_dimensional = counts.one_dimensional
        self._largest_mean_predictors = fits.ceiling
        # Parts of full rank are left out: all rows are estimable, and need no check.
        self._null_spaces = {
            part: design.unidentified
            for part, design in designs.parts.items()
            if design.unidentified
        }
        self.target_names_ = counts.names
        self.params_ = _tables(fits.coef, layout, counts.names)
        self.undetermined_ = _tables(fits.undetermined, layout, counts.names)
        self.aliased_ = {
            part: np.array(layout.columns[part], dtype=object)[design.aliased]
            for part, design in designs.parts.items()
        }
        self.log_likelihood_ = fits.log_likelihood
        self.n_iter_ = fits.n_iter
        self.status_ = np.array([str(status) for status in fits.status], dtype=object)
        self.converged_ = np.array([status.reached_maximum for status in fits.status])
        mean = self.params_[MEAN]
        is_intercept = mean.index == INTERCEPT
        coef = mean.to_numpy()[~is_intercept].T
        intercept = mean.to_numpy()[is_intercept].sum(axis=0)
        self.coef_ = coef[0] if counts.one_dimensional else coef
        self.intercept_ = intercept[0] if counts.one_dimensional else intercept

    def _warn_of_statuses(self) -> None:
        reasons = [
            f"{number} {status} ({genes})"
            for status, number, genes in count_statuses(self.status_, self.target_names_)
            if status.needs_warning
        ]
        if reasons:
            warn(
                f"Of {len(self.status_)} genes, {'; '.join(reasons)}. "
                "Predictions for them are usable, some of their coefficients are not: summary() "
                f"names them.{self._most_often_infinite()}",
                ConvergenceWarning,
            )

    def _most_often_infinite(self) -> str:
        """Return a sentence on the coefficient that separated genes most often leave infinite."""
        genes = self.status_ == Status.SEPARATED
        numbers = {
            f"{part}__{name}": int(row[genes].sum())
            for part, table in self.undetermined_.items()
            for name, row in zip(table.index, table.to_numpy(), strict=True)
        }
        name = max(numbers, key=lambda name: numbers[name])
        if not numbers[name]:
            return ""
        return (
            f" Of separated genes, {numbers[name]} have no finite {name}; contrasts of other "
            "coefficients have their estimates and tests."
        )

    @documented(ENTRIES)
    def summary(self) -> pd.DataFrame:
        """Return how each gene's fit ended, and which coefficients its counts do not determine.

        Returns
        -------
        {summary}

        See Also
        --------
        sc_glm.inference.gene_summary : Of one gene, with standard errors and tests.
        sc_glm.inference.coefficient_table : The coefficients of all genes, with their tests.

        Examples
        --------
        >>> import numpy as np
        >>> from sc_glm import NegBinRegressor
        >>> rng = np.random.default_rng(0)
        >>> y = np.column_stack([rng.poisson(3, 200), rng.negative_binomial(1, 0.2, 200)])
        >>> table = NegBinRegressor().fit(rng.normal(size=(200, 1)), y).summary()
        >>> table[["status", "undetermined"]]
                      status           undetermined
        y0  Poisson boundary  dispersion__Intercept
        y1         converged
        >>> table["status"].value_counts().to_dict()
        {'Poisson boundary': 1, 'converged': 1}
        """
        check_is_fitted(self)
        names = np.array(
            [
                f"{part}__{name}"
                for part, table in self.undetermined_.items()
                for name in table.index
            ]
        )
        masks = np.vstack([table.to_numpy() for table in self.undetermined_.values()])
        return pd.DataFrame(
            {
                "status": self.status_,
                "undetermined": [", ".join(names[mask]) for mask in masks.T],
                "log_likelihood": self.log_likelihood_,
                "n_iter": self.n_iter_,
            },
            index=pd.Index(self.target_names_),
        )

    def _notebook_html(self) -> str:
        if not hasattr(self, "status_"):
            return ""
        return status_table(self.status_, self.target_names_, self.n_cells_)

    def _state_to_plain(self, state: dict[str, Any]) -> dict[str, Any]:
        arrays: dict[str, Any] = {
            name: {part: table.to_numpy() for part, table in state[name].items()}
            for name in _COEFFICIENT_TABLES
            if name in state
        }
        size = state["size"]
        if isinstance(size, pd.Series):
            arrays["size"] = {"genes": size.index.to_numpy(object), "sizes": size.to_numpy()}
        return {**state, **arrays}

    def _state_from_plain(self, state: dict[str, Any]) -> dict[str, Any]:
        tables: dict[str, Any] = {
            name: _tables(state[name], state["_layout"], state["target_names_"])
            for name in _COEFFICIENT_TABLES
            if name in state
        }
        size = state["size"]
        if isinstance(size, dict):
            tables["size"] = pd.Series(size["sizes"], index=size["genes"])
        return {**state, **tables}


def _unit_of_weights(weights: FloatArray) -> float:
    """Return the number by which weights are divided, for a mean weight within the bounds."""
    mean_weight = float(weights.mean())
    return float(mean_weight / np.clip(mean_weight, *_MEAN_WEIGHT_BOUNDS))


def _tables(
    values: dict[str, NDArray[Any]], layout: Layout, genes: NDArray[np.object_]
) -> dict[str, pd.DataFrame]:
    """Return values of each part's coefficients as frames, features x genes."""
    return {
        part: pd.DataFrame(value, index=layout.columns[part], columns=genes)
        for part, value in values.items()
    }
