"""The formulas of a fitted model, and its designs for cells whose covariates are set to values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from sc_glm._contract.validation import as_pandas, covariates_in, quoted, similar_names
from sc_glm.formula.transformer import FormulaTransformer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sc_glm._design.design import FloatArray
    from sc_glm.formula.terms import Covariate, FittedTerms
    from sc_glm.inference.fitted_model import FittedData


@dataclass(frozen=True)
class ModelFormula:
    """The formulas of a pipeline, with the covariates of cells.

    Attributes
    ----------
    fitted : FittedData
        The regressor and the cells.
    transformer : FormulaTransformer
        The fitted formulas.
    later_steps : Pipeline or None
        Transformers between the formulas and the regressor.
    cells : DataFrame
        Covariates of the cells, as the formulas read them.
    """

    fitted: FittedData
    transformer: FormulaTransformer
    later_steps: Pipeline | None
    cells: pd.DataFrame

    @classmethod
    def of(cls, fitted: FittedData, model: Any, X: Any) -> ModelFormula | None:
        """Return the formulas of a fitted model; None if it has no FormulaTransformer."""
        steps = _pipeline_of(model)
        if steps is None:
            return None
        for number, (_, step) in enumerate(steps.steps[:-1]):
            if isinstance(step, FormulaTransformer):
                cells = as_pandas(covariates_in(X))
                if number:
                    cells = steps[:number].transform(cells)
                if not isinstance(cells, pd.DataFrame):
                    values = np.asarray(cells)
                    cells = pd.DataFrame(values, columns=[f"x{i}" for i in range(values.shape[1])])
                later = steps[number + 1 : -1]
                return cls(fitted, step, later if len(later.steps) else None, cells)
        return None

    def terms(self, part: str) -> FittedTerms | None:
        """Return the terms of a part; None if it has no formula."""
        has_formula = part in self.transformer.model_specs_ and self.later_steps is None
        return self.transformer.terms_of(part) if has_formula else None

    def covariate(self, part: str, name: str) -> Covariate:
        """Return a covariate that the formula of a part reads.

        Raises
        ------
        ValueError
            If the formula of the part does not read it.
        """
        terms = self.terms(part)
        found = None if terms is None else terms.covariate(name)
        if found is None:
            known = list(self.transformer.covariates_.get(part, {}))
            similar = similar_names(name, known, 3) if isinstance(name, str) else []
            hint = f" Similar: {similar}." if similar else ""
            raise ValueError(
                f"The formula of the {part} has no factor {quoted(name)}: it reads {known}.{hint}"
            )
        return found

    def rows_of_first_cell(self, part: str, column: str, values: Sequence[Any]) -> FloatArray:
        """Return the design rows of a part for the first cell with each of some values in a column.

        Parameters
        ----------
        part : str
        column : str
        values : sequence of object

        Returns
        -------
        ndarray of shape (n_values, n_columns)
        """
        cells = self.cells.iloc[np.zeros(len(values), dtype=int)].reset_index(drop=True)
        return self._at(cells.assign(**{column: pd.Series(list(values)).to_numpy()})).designs[part]

    def average_row(
        self, part: str, values: Mapping[str, Any], weights: FloatArray | None = None
    ) -> FloatArray:
        """Return the average design row of a part if covariates are set to values in all cells.

        Parameters
        ----------
        part : str
        values : mapping of str to object
            Values of covariates by their column.
        weights : ndarray of shape (n_cells,), optional
            Weights of the cells in the average.

        Returns
        -------
        ndarray of shape (n_columns,)
            The linear predictor of the average is its product with the coefficients of the part.
        """
        rows = self._with(values).designs[part]
        return np.asarray(np.average(rows, axis=0, weights=weights))

    def average_offset(self, values: Mapping[str, Any], weights: FloatArray | None = None) -> float:
        """Return the average offset if covariates are set to values in all cells.

        Parameters
        ----------
        values : mapping of str to object
            Values of covariates by their column.
        weights : ndarray of shape (n_cells,), optional
            Weights of the cells in the average.

        Returns
        -------
        float
        """
        return float(np.average(self._with(values).offset, weights=weights))

    def _with(self, values: Mapping[str, Any]) -> FittedData:
        """Return the cells with covariates set to values, without counts."""
        columns = {name: _constant(value, len(self.cells)) for name, value in values.items()}
        return self._at(self.cells.assign(**columns))

    def _at(self, cells: pd.DataFrame) -> FittedData:
        """Return the rows of other cells, without counts."""
        design = self.transformer.transform(cells)
        if self.later_steps is not None:
            design = self.later_steps.transform(design)
        return self.fitted.at_rows(design)


def _constant(value: Any, n_cells: int) -> Any:
    return pd.Series([value]).repeat(n_cells).to_numpy()


def _pipeline_of(model: Any) -> Pipeline | None:
    """Return the pipeline of a fitted model; None if it is a regressor alone."""
    model = getattr(model, "best_estimator_", model)
    model = getattr(model, "model_", model)
    model = getattr(model, "best_estimator_", model)
    return model if isinstance(model, Pipeline) else None
