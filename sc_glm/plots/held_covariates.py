"""Covariates that a plot does not vary, and the values at which it holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_glm._contract.validation import as_pandas, covariates_in
from sc_glm.formula.covariates import check_cells, missing_column_message

if TYPE_CHECKING:
    from collections.abc import Collection

MEDIAN_DEPTH = "at the median depth"  # how plots say it


def model_and_frame(model: Any, X: Any) -> tuple[Any, pd.DataFrame]:
    """Return a model that predicts from a frame of covariates, and the frame of `X`."""
    model = getattr(model, "best_estimator_", model)
    model = getattr(model, "model_", model)  # of an AnnDataRegressor
    X = as_pandas(covariates_in(X))
    if not isinstance(X, pd.DataFrame):
        raise TypeError(f"X must be a DataFrame with columns to choose, not {type(X).__name__}.")
    return model, X


def check_columns(obs: pd.DataFrame, varying: list[str], at: dict[str, Any]) -> None:
    """Raise a ValueError if a column does not exist, or if one to vary is held or incomplete."""
    for name in [*varying, *at]:
        if name not in obs.columns:
            raise ValueError(missing_column_message(name, obs.columns))
    for name in varying:
        if name in at:
            raise ValueError(f"at has a value for {name!r}, which varies along the plot.")
        check_cells(obs[name].isna().to_numpy(), obs[name], f"column {name!r} is missing")
    if len(set(varying)) < len(varying):
        raise ValueError(f"covariate and by are the same column, {varying[0]!r}.")


def fixed_values(obs: pd.DataFrame, varying: list[str], at: dict[str, Any]) -> dict[Any, Any]:
    """Return the values of the columns that do not vary: given ones, or else typical ones."""
    return {
        name: at[name] if name in at else _typical_value(obs[name])
        for name in obs.columns
        if name not in varying
    }


def is_at_median_depth(model: Any, held: Collection[Any], at: Collection[Any]) -> bool:
    """Test whether the columns of a model's offset are held, and at their medians."""
    columns = _offset_columns(model)
    return bool(columns) and columns <= set(held) and not columns & set(at)


def _offset_columns(model: Any) -> set[Any]:
    """Return the names of the columns that the offset of a model reads."""
    for _, step in getattr(model, "steps", []):
        if hasattr(step, "covariates_"):
            return set(step.covariates_.get("offset", {}))
    names = getattr(model, "feature_names_in_", [])
    return {name for name in names if str(name).startswith("offset__")}


def has_levels(column: pd.Series) -> bool:
    """Test whether the values of a column are levels, and not numbers."""
    return pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column)


def _typical_value(column: pd.Series) -> Any:
    """Return a value of a cell: the lower median of numbers, or the most frequent of others."""
    if has_levels(column):
        modes = column.mode()
        return modes.iloc[0] if len(modes) else None
    ascending = column.dropna().sort_values()
    return ascending.iloc[(len(ascending) - 1) // 2] if len(ascending) else np.nan
