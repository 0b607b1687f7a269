"""What the regressors share: everything but their family."""

import functools
import inspect
import os
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, ParamSpec, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, RegressorMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_scalar
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from sc_glm._contract.callbacks import CallbackSupportMixin, reporting_to_callbacks
from sc_glm._contract.state import StateMixin, kept_if_failed
from sc_glm._contract.user_warnings import warn
from sc_glm._contract.validation import (
    alike,
    as_pandas,
    check_finite,
    check_numbers,
    check_same_order,
    shown,
)
from sc_glm._counts.count_matrix import CountMatrix, check_genes
from sc_glm._counts.equal_rows import group_rows, group_rows_ignoring_offset
from sc_glm._counts.similar_rows import representative_rows
from sc_glm._counts.tally import Grouping
from sc_glm._design import levels
from sc_glm._design.design import FloatArray, PartDesign
from sc_glm._design.layout import INTERCEPT, Layout
from sc_glm._likelihood.family import (
    DISPERSION,
    LARGEST_LOG_MEAN,
    LARGEST_LOG_SIZE,
    MEAN,
    ZERO_INFLATION,
    Family,
)
from sc_glm._solver.fitting import fit_genes
from sc_glm._solver.gene_block import Designs, GeneFits, Settings
from sc_glm._solver.status import tally
from sc_glm.distributions.count_distributions import NB, ZINB
from sc_glm.distributions.log_mass import log_mass
from sc_glm.distributions.sampling import sample_dense, sample_sparse
from sc_glm.estimators.notebook import NotebookMixin, status_table

_SHOWN = 5  # columns in a message
_MEAN_WEIGHTS = 1.0, 4.0  # from the least to the most that a fit has
_SCORED_ENTRIES = 2_000_000  # of the matrix at a time
# Rows that a fitted model keeps of its cells' covariates, and how much those of one differ. They
# tell how certain it is of other cells, for which it takes no exact number.
_TYPICAL_ROWS = 128
_NARROW = 0.1
_FORMULAS = (
    "Formulas go to a FormulaTransformer before it, as in make_pipeline(FormulaTransformer('~ x'), "
    "{0}())."
)
_TABLES = ("params_", "undetermined_")  # attributes of fitted models
_FACTORS = (
    " A formula makes numbers of text and categories, as in "
    "make_pipeline(FormulaTransformer('~ cell_type'), NegBinRegressor())."
)


P = ParamSpec("P")


def _by_name(init: Callable[P, None]) -> Callable[P, None]:
    """Refuse parameters that are given by position or that there are not, in the user's terms.

    Python would name the class that has the ``__init__``, which is a private one.
    """
    known = [name for name in inspect.signature(init).parameters if name != "self"]

    @functools.wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        name, given = type(args[0]).__name__, args[1:]
        if given:
            raise TypeError(
                f"{name} takes its parameters by name, such as {name}(alpha=0.1), but "
                f"{shown(given[0])} was given without one. {_FORMULAS.format(name)}"
            )
        for parameter in kwargs:
            if parameter not in known:
                near = alike(parameter, known, 1)
                hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known)}."
                raise TypeError(
                    f"{name} has no parameter {parameter!r}. {hint} {_FORMULAS.format(name)}"
                )
        init(*args, **kwargs)

    return checked


class CountRegressor(
    NotebookMixin,
    StateMixin,
    CallbackSupportMixin,  # type: ignore[misc]
    RegressorMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """What the estimators share; they differ by their family and its distribution."""

    _family: ClassVar[Family]
    _distribution: ClassVar[type[NB] | type[ZINB]]
    _fitted_state = (
        "_cells_of_fit",
        "_ceiling",
        "_held",
        "_layout",
        "_one_dimensional",
        "_open",
        "n_cells_",
        "n_features_in_",
        "params_",
        "target_names_",
    )

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "alpha": [Interval(Real, 0, None, closed="left"), dict],
        "fit_intercept": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "n_jobs": [Integral, None],
        "device": [str, torch.device],
        "dtype": [StrOptions({"float64", "float32"})],
        "warm_start": ["boolean"],
        "checkpoint_dir": [str, os.PathLike, None],
        "verbose": ["verbose"],
    }

    @_by_name
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

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = True
        tags.target_tags.required = True
        tags.regressor_tags.poor_score = True  # a log-likelihood, not an R²
        return tags

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Estimate every gene's coefficients by maximum likelihood.

        Parameters
        ----------
        X : array-like of shape (n_cells, n_features)
            A design frame, whose columns are spelled ``part__column``, or the covariates of the
            mean.
        y : array-like or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
            Counts, which must be given; the columns of a DataFrame name the genes.
        sample_weight : array-like of shape (n_cells,), default=None
            Weights of the cells. An integer weight equals as many copies of the cell. Weights whose
            mean is below 1 or above 4 are fitted as if it were that, and `log_likelihood_` is
            scaled back: their unit changes neither coefficients nor statuses.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If `X`, `y` or a parameter is not what it should be; the message names the column,
            gene or part and the value.

        Warns
        -----
        UserWarning
            If most values of `y` are not integers, as after a normalisation by depth or a
            logarithm. Counts corrected for ambient RNA (SoupX, CellBender) may be so as well.
        sklearn.exceptions.ConvergenceWarning
            Once, if some genes have coefficients that no finite number of counts determines, or
            did not converge; see ``status_``.
        """
        with reporting_to_callbacks(self, X, y, sample_weight=sample_weight), kept_if_failed(self):
            self._fit(X, y, sample_weight)
        self._warn()
        return self

    def _fit(self, X: Any, y: Any, sample_weight: ArrayLike | None) -> None:
        settings = self._settings()
        covariates = self._covariates(X, reset=True)
        check_same_order(X, y, "y")
        counts = CountMatrix.of(y, n_cells=len(covariates))
        if self.dtype == "float32":
            counts.check_single_precision()
        if counts is not y and not counts.look_like_counts():
            warn(
                "Most values of y are not integers, as if they were normalised, logarithms or "
                "covariates; the model is one of counts, cells x genes."
            )
        weights = weights_of(sample_weight, X, covariates)
        parts = self._family.parts
        layout = Layout.of(
            getattr(self, "feature_names_in_", None),
            covariates.shape[1],
            parts,
            intercept=self.fit_intercept,
        )
        _check_unique(layout)
        counts, weights, covariates = present(counts, weights, covariates)
        # Gains in log-likelihood are judged by their size, which must not be one of the weights'.
        mean_weight = float(weights.mean())
        unit = mean_weight / np.clip(mean_weight, *_MEAN_WEIGHTS)
        designs = self._designs_of(layout, covariates, weights / unit)
        fits = fit_genes(
            self._family,
            counts,
            designs,
            settings,
            batch_size=self.batch_size,
            n_jobs=self.n_jobs,
            start=self._start(layout, counts),
            checkpoint_dir=self.checkpoint_dir,
            progress=bool(self.verbose),
        )
        fits = replace(fits, log_likelihood=unit * fits.log_likelihood)
        self._set_fitted(layout, counts, designs, fits)
        self._cells_of_fit = representative_rows(
            covariates, weights, max(_TYPICAL_ROWS, 2 * covariates.shape[1]), _NARROW
        )
        self.n_cells_ = len(counts)

    def _designs_of(self, layout: Layout, covariates: FloatArray, weights: FloatArray) -> Designs:
        """Return the designs of cells, all with a weight; equal cells are one row of them."""
        penalties = self._penalties(float(weights.sum()))
        offset, cells, groups = layout.offset_of(covariates), None, None
        rows = group_rows(covariates)
        if rows is not None:
            cells = Grouping(rows, weights)
            first = cells.first()
            covariates, offset, weights = covariates[first], offset[first], cells.row_weights()
        elif layout.offset is not None:
            groups = group_rows_ignoring_offset(np.delete(covariates, layout.offset, 1), offset)
        return Designs(
            {
                part: _part_design(matrix, weights, layout.columns[part], penalties[part])
                for part, matrix in layout.designs(covariates).items()
            },
            offset,
            weights,
            cells,
            groups,
        )

    def _settings(self) -> Settings:
        try:
            device = torch.device(self.device)
            torch.zeros((), dtype=getattr(torch, self.dtype), device=device).item()
        except (RuntimeError, AssertionError, TypeError, ImportError) as error:
            sentence = str(error).splitlines()[0].split(". ")[0].rstrip(".")
            raise ValueError(
                f"device={str(self.device)!r} with dtype={self.dtype!r} is not available here: "
                f"{textwrap.shorten(sentence, 100, placeholder=' ...')}. Devices are 'cpu', which "
                "is always there, 'cuda', 'cuda:1' and so on, and 'mps', for dtype='float32' alone."
            ) from error
        return Settings(self.max_iter, self.tol, device, getattr(torch, self.dtype))

    def _penalties(self, total_weight: float) -> dict[str, float]:
        """Penalty of each part on the scale of the summed log-likelihood."""
        parts = self._family.parts
        alpha = self.alpha if isinstance(self.alpha, dict) else dict.fromkeys(parts, self.alpha)
        for part, value in alpha.items():
            if part not in parts:
                raise ValueError(
                    f"alpha names the part {part!r}; this model's parts are {list(parts)}."
                )
            check_scalar(value, f"alpha[{part!r}]", Real, min_val=0)
            if not np.isfinite(value):
                raise ValueError(f"alpha[{part!r}] must be finite, not {value}.")
        return {part: total_weight * float(alpha.get(part, 0.0)) for part in parts}

    def _start(self, layout: Layout, counts: CountMatrix) -> dict[str, FloatArray] | None:
        if not (self.warm_start and hasattr(self, "params_")):
            return None
        same = list(self.target_names_) == list(counts.names) and all(
            list(self.params_[part].index) == columns for part, columns in layout.columns.items()
        )
        if not same:
            raise ValueError(
                "warm_start=True, but the genes or the columns are not those of the last fit."
            )
        return {part: table.to_numpy() for part, table in self.params_.items()}

    def _set_fitted(
        self,
        layout: Layout,
        counts: CountMatrix,
        designs: Designs,
        fits: GeneFits,
        held: tuple[str, ...] = (),
    ) -> None:
        """Set the results; the parts ``held`` are not where the likelihood is largest."""
        self._layout = layout
        self._held = held
        self._one_dimensional = counts.one_dimensional
        self._ceiling = fits.ceiling
        # Most designs leave nothing open, and rows of these need no check.
        self._open = {
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

    def _written(self, state: dict[str, Any]) -> dict[str, Any]:
        plain = {
            name: {part: table.to_numpy() for part, table in state[name].items()}
            for name in _TABLES
            if name in state
        }
        return {**state, **plain}

    def _read(self, state: dict[str, Any]) -> dict[str, Any]:
        tables = {
            name: _tables(state[name], state["_layout"], state["target_names_"])
            for name in _TABLES
            if name in state
        }
        return {**state, **tables}

    def _warn(self) -> None:
        reasons = [
            f"{number} {status} ({named})"
            for status, number, named in tally(self.status_, self.target_names_)
            if status.worth_warning
        ]
        if reasons:
            warn(
                f"Of {len(self.status_)} genes, {'; '.join(reasons)}. "
                "Predictions for them are usable, some of their coefficients are not: summary() "
                "names them.",
                ConvergenceWarning,
            )

    def summary(self) -> pd.DataFrame:
        """Tell how each gene's fit ended, and which of its coefficients the counts leave open.

        Returns
        -------
        DataFrame
            One row per gene, with columns ``status``, ``undetermined`` (names of coefficients that
            run to infinity, or that nothing depends on, spelled ``part__column``; empty for most
            genes), ``log_likelihood`` and ``n_iter``.

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

    def _covariates(self, X: Any, *, reset: bool) -> FloatArray:
        """Return `X` as a matrix of finite numbers; ``reset`` learns its columns."""
        X = as_pandas(X)
        check_numbers(X, "X", _FACTORS)
        covariates: FloatArray = validate_data(
            self, X, dtype=np.float64, reset=reset, ensure_all_finite=False
        )
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(covariates.shape[1])])
        check_finite(covariates, names)
        return covariates

    def _determined_predictors(self, X: ArrayLike, parts: Sequence[str]) -> dict[str, FloatArray]:
        """Each part's linear predictor, cells x genes; NaN where the fit does not determine it."""
        designs, offset = self._all_designs(X)
        predictors = self._predictors_of(designs, offset)
        for part in parts:
            rows, words = self._undetermined(part, X, designs[part])
            if len(rows):
                predictors[part][rows] = np.nan
                warn(f"{words} Predictions there are NaN.")
        return predictors

    def _designs(
        self, X: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[dict[str, FloatArray], FloatArray]:
        """Check `X`, and return the parts' designs and the offset.

        Rows that have a weight must be such that the fit determines their predictors.
        """
        designs, offset = self._all_designs(X)
        if self._open:
            self._check_determined(X, designs, weights_of(sample_weight, X, offset))
        return designs, offset

    def _all_designs(self, X: ArrayLike) -> tuple[dict[str, FloatArray], FloatArray]:
        check_is_fitted(self)
        covariates = self._covariates(X, reset=False)
        return self._layout.designs(covariates), self._layout.offset_of(covariates)

    def _check_determined(
        self, X: Any, designs: dict[str, FloatArray], weights: FloatArray
    ) -> None:
        """Refuse rows of which the fit does not determine a predictor, unless without a weight."""
        for part in self._open:
            rows, words = self._undetermined(
                part, X, np.where(weights[:, None] > 0, designs[part], 0)
            )
            if len(rows):
                raise ValueError(
                    f"{words} Leave such rows out, fit cells that have the combination, or take a "
                    "formula without it."
                )

    def _undetermined(self, part: str, X: Any, design: FloatArray) -> tuple[NDArray[np.intp], str]:
        """Return the rows of a part's design that the fit's cells do not span, and say so."""
        if part not in self._open:
            return np.empty(0, dtype=np.intp), ""
        space = self._open[part]
        rows = np.flatnonzero(space.not_estimable(design, unit=1.0))
        if not len(rows):
            return rows, ""
        row = design[rows[0]]
        columns = space.columns_of(row)
        named = [f"{self._layout.columns[part][i]} = {row[i]:g}" for i in columns[:_SHOWN]]
        label = X.index[rows[0]] if isinstance(X, pd.DataFrame) else rows[0]
        words = (
            f"The fit does not determine the {part} in row {label}: no cell of the fit had a "
            f"combination of columns like {', '.join(named)}{', ...' * (len(columns) > _SHOWN)}."
        )
        others = f" Of {len(design)} rows, {len(rows)} are so." if len(rows) > 1 else ""
        return rows, words + others

    def _predictors_of(
        self, designs: dict[str, FloatArray], offset: FloatArray, genes: Any = slice(None)
    ) -> dict[str, FloatArray]:
        predictors = {
            part: designs[part] @ table.to_numpy()[:, genes] for part, table in self.params_.items()
        }
        mean = predictors[MEAN]
        np.minimum(mean, self._ceiling[genes], out=mean)
        mean += offset[:, None]
        return predictors

    def _distribution_of(self, predictors: dict[str, FloatArray]) -> NB | ZINB:
        """Return the distributions of counts with these linear predictors of the parts."""
        return self._distribution(*_values(predictors).values())

    def _shaped(self, values: NDArray[Any]) -> NDArray[Any]:
        return values[..., 0] if self._one_dimensional else values

    def predict_params(self, X: ArrayLike) -> dict[str, FloatArray]:
        """Return the value of each part for every cell and gene.

        Parameters
        ----------
        X : array-like of shape (n_cells, n_features)

        Returns
        -------
        dict of str to ndarray of shape (n_cells, n_genes)
            ``mean``: mu, offset included; ``dispersion``: the size r (variance mu + mu²/r, the
            *inverse* of what DESeq2 and edgeR call dispersion); ``zero_inflation``: pi.

        Warns
        -----
        UserWarning
            If the fit does not determine a part in some rows, as no cell of it had their
            combination of columns: these are NaN.
        """
        values = _values(self._determined_predictors(X, self._family.parts))
        return {part: self._shaped(value) for part, value in values.items()}

    def predict_dist(self, X: ArrayLike) -> NB | ZINB:
        """Return the fitted distribution of every cell's and gene's count.

        Parameters
        ----------
        X : array-like of shape (n_cells, n_features)

        Returns
        -------
        NB or ZINB
            With SciPy's methods (``pmf``, ``cdf``, ``ppf``, ``mean``, ...), elementwise.
        """
        predictors = self._predictors_of(*self._designs(X))
        return self._distribution_of({part: self._shaped(x) for part, x in predictors.items()})

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return the expected counts.

        Parameters
        ----------
        X : array-like of shape (n_cells, n_features)

        Returns
        -------
        ndarray of shape (n_cells, n_genes) or (n_cells,)
            E[y | x]; with zero inflation (1 - pi) mu.

        Warns
        -----
        UserWarning
            If the fit does not determine them in some rows, as no cell of it had their combination
            of columns: these are NaN.
        """
        check_is_fitted(self)
        predictors = self._determined_predictors(X, [p for p in self.params_ if p != DISPERSION])
        mean = _mean(predictors[MEAN])
        if ZERO_INFLATION in predictors:
            mean *= expit(-predictors[ZERO_INFLATION])
        return self._shaped(mean)

    def sample(
        self,
        X: ArrayLike,
        n_draws: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> NDArray[np.int64]:
        """Draw counts from the fitted model.

        For the same seed they are the same in any number of jobs.

        Parameters
        ----------
        X : array-like of shape (n_cells, n_features)
        n_draws : int, default=None
            Number of data sets to draw; None draws one, without an axis for it.
        random_state : int, RandomState, Generator or None, default=None
            Seed; an integer gives the same counts each time. From a RandomState or a Generator one
            seed is drawn, so that each call gives other counts; None is NumPy's global state.

        Returns
        -------
        ndarray of int, of shape (n_cells, n_genes) or (n_draws, n_cells, n_genes)
            Without the last axis if the counts of the fit had one dimension.

        Raises
        ------
        ValueError
            If `X`, `n_draws` or `random_state` is not what it should be.

        See Also
        --------
        sample_sparse : The same counts as a sparse array.
        """
        draws = 1 if n_draws is None else check_scalar(n_draws, "n_draws", Integral, min_val=1)
        dist_of, shape = self._distributions_of(X)
        drawn = sample_dense(
            dist_of, (draws, *shape), random_state=random_state, n_jobs=self.n_jobs
        )
        counts = self._shaped(drawn)
        return counts[0] if n_draws is None else counts

    def sample_sparse(
        self,
        X: ArrayLike,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> sp.csr_array:
        """Draw counts from the fitted model into a sparse array, at no time dense as a whole.

        Parameters
        ----------
        X : array-like of shape (n_cells, n_features)
        random_state : int, RandomState, Generator or None, default=None
            Seed, as in :meth:`sample`, which gives the same counts for the same integer.

        Returns
        -------
        csr_array of int, of shape (n_cells, n_genes)

        Raises
        ------
        ValueError
            If `X` or `random_state` is not what it should be.

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
        dist_of, shape = self._distributions_of(X)
        return sample_sparse(dist_of, shape, random_state=random_state, n_jobs=self.n_jobs)

    def _distributions_of(
        self, X: ArrayLike
    ) -> tuple[Callable[[slice], NB | ZINB], tuple[int, int]]:
        """Return what gives the distributions of a slice of the cells, and the shape of all."""
        designs, offset = self._designs(X)

        def dist_of(cells: slice) -> NB | ZINB:
            some = {part: design[cells] for part, design in designs.items()}
            return self._distribution_of(self._predictors_of(some, offset[cells]))

        return dist_of, (len(offset), len(self.target_names_))

    def log_prob(self, X: ArrayLike, y: Any) -> FloatArray:
        """Return the log-probability of each count under the fitted model.

        It is computed from the linear predictors, and finite also where a probability is not
        distinguishable from zero or one.

        Parameters
        ----------
        X : array-like of shape (n_cells, n_features)
        y : array-like or sparse matrix of shape (n_cells, n_genes) or (n_cells,)

        Returns
        -------
        ndarray of shape (n_cells, n_genes) or (n_cells,)
        """
        predictors = list(self._predictors_of(*self._designs(X)).values())
        counts = self._checked(X, y, len(predictors[0]))
        values = counts.dense(slice(None)).astype(np.float64)
        return self._shaped(log_mass(self._family, values, predictors))

    def score(self, X: ArrayLike, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean log-likelihood per entry: higher is a better fit.

        Unlike R², it sees the dispersion and the zero inflation as well as the mean, so that
        formulas of any part can be compared by cross-validation.

        Parameters
        ----------
        X : array-like of shape (n_cells, n_features)
        y : array-like or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
        sample_weight : array-like of shape (n_cells,), default=None

        Returns
        -------
        float
        """
        designs, offset = self._designs(X, sample_weight)
        predictors = list(self._predictors_of(designs, offset).values())
        n_cells = len(predictors[0])
        counts = self._checked(X, y, n_cells)
        weights = weights_of(sample_weight, X, predictors[0])
        step = max(1, _SCORED_ENTRIES // n_cells)
        total = 0.0
        for first in range(0, counts.n_genes, step):
            genes = slice(first, first + step)
            values = counts.dense(genes).astype(np.float64)
            logs = log_mass(self._family, values, [p[:, genes] for p in predictors])
            total += float(weights @ logs.sum(axis=1))
        return total / (float(weights.sum()) * counts.n_genes)

    def _checked(self, X: Any, y: Any, n_cells: int) -> CountMatrix:
        check_same_order(X, y, "y")
        counts = CountMatrix.of(y, n_cells=n_cells)
        if counts.n_genes != len(self.target_names_):
            raise ValueError(
                f"y has {counts.n_genes} genes, but the model was fitted on "
                f"{len(self.target_names_)}."
            )
        check_genes(y, self.target_names_)
        return counts


def _tables(
    values: dict[str, NDArray[Any]], layout: Layout, genes: NDArray[np.object_]
) -> dict[str, pd.DataFrame]:
    """Return what is known of each part's coefficients, features x genes."""
    return {
        part: pd.DataFrame(value, index=layout.columns[part], columns=genes)
        for part, value in values.items()
    }


def weights_of(sample_weight: Any, X: Any, rows: FloatArray) -> FloatArray:
    """Return one weight, at least zero, for each of ``rows``, which belong to `X`."""
    check_numbers(sample_weight, "sample_weight")
    check_same_order(X, sample_weight, "sample_weight")
    weights: FloatArray = _check_sample_weight(
        sample_weight, rows, dtype=np.float64, ensure_non_negative=True
    )
    if not weights.any():  # which not every version of scikit-learn refuses
        raise ValueError("sample_weight is zero for every cell.")
    return weights


def present(
    counts: CountMatrix, weights: FloatArray, covariates: FloatArray
) -> tuple[CountMatrix, FloatArray, FloatArray]:
    """Return the counts, weights and covariates of cells that have a weight."""
    if weights.all():
        return counts, weights, covariates
    own = np.flatnonzero(weights)
    return counts[own], weights[own], covariates[own]


def _check_unique(layout: Layout) -> None:
    for part, columns in layout.columns.items():
        twice = [column for column, number in Counter(columns).items() if number > 1]
        if twice:
            hint = " fit_intercept=False adds none." if twice[0] == INTERCEPT else ""
            raise ValueError(f"{part!r} has more than one column named {twice[0]!r}.{hint}")


def _part_design(
    matrix: FloatArray, weights: FloatArray, columns: list[str], penalty: float
) -> PartDesign:
    if penalty == 0:
        return levels.design_of(matrix, weights)
    penalised = np.array([column != INTERCEPT for column in columns])
    return PartDesign.of(matrix, weights, penalised=penalised, strength=penalty)


def _values(predictors: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the parts' values, by the inverse of each part's link."""
    inverse_links: dict[str, Any] = {MEAN: _mean, DISPERSION: _size, ZERO_INFLATION: expit}
    return {part: inverse_links[part](predictor) for part, predictor in predictors.items()}


def _mean(predictor: FloatArray) -> FloatArray:
    """Return the mean, which is positive and no larger than any count may be."""
    return np.exp(np.clip(predictor, np.log(np.finfo(float).tiny), LARGEST_LOG_MEAN))


def _size(predictor: FloatArray) -> FloatArray:
    """Return the size, with the family's bounds."""
    return np.exp(np.clip(predictor, -LARGEST_LOG_SIZE, LARGEST_LOG_SIZE))
