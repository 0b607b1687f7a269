"""The fitted regressor in a pipeline, a search or an AnnDataRegressor."""

from typing import Any

import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sc_glm.estimators.base import CountRegressor
from sc_glm.estimators.pipeline import last_step
from sc_glm.formula.transformer import FormulaTransformer


def check_count_regressor(regressor: Any) -> None:
    """Raise a TypeError unless ``regressor`` is a regressor of this package."""
    if not isinstance(regressor, CountRegressor):
        raise TypeError(
            "The model must be a NegBinRegressor or ZINBRegressor, or a pipeline that ends in one, "
            f"not {regressor!r}."
        )


def model_of_search(model: Any) -> Any:
    """Return the model that a search fits, or ``model`` if it is none; check its regressor."""
    inner = model
    while hasattr(inner, "estimator"):
        if not getattr(inner, "refit", True):
            raise ValueError(
                f"refit=False: this {type(inner).__name__} would keep no model. Set refit=True."
            )
        inner = inner.estimator
    check_count_regressor(inner.steps[-1][1] if isinstance(inner, Pipeline) else inner)
    return inner


def fitted_regressor(model: Any) -> Any:
    """Return the fitted regressor, which is the last step of a pipeline."""
    model = _best_model(model)
    regressor = model[-1] if isinstance(model, Pipeline) else model
    check_count_regressor(regressor)
    check_is_fitted(regressor)
    return regressor


def regressor_and_design(model: Any, obs: pd.DataFrame) -> tuple[Any, Any]:
    """Return the fitted regressor, and its `X` for the cells of ``obs``."""
    regressor = fitted_regressor(model)
    return regressor, last_step(_best_model(model), obs)[1]


def formulas_of(model: Any) -> dict[str, str]:
    """Return the formulas of a model by part; a model without a transformer has none."""
    model = _best_model(model)
    return {
        part: formula
        for _, step in (model.steps if isinstance(model, Pipeline) else [])
        if isinstance(step, FormulaTransformer)
        for part, formula in step.get_params().items()
        if formula is not None
    }


def _best_model(model: Any) -> Any:
    """Return the fitted pipeline or regressor of a search or an AnnDataRegressor."""
    if hasattr(model, "best_estimator_"):
        return _best_model(model.best_estimator_)
    if hasattr(model, "model"):  # an AnnDataRegressor, whose module imports this one
        check_is_fitted(model, "model_")
        return _best_model(model.model_)
    return model
