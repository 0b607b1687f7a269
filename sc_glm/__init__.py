"""Negative binomial and zero-inflated regression of single-cell counts, for scikit-learn."""

import importlib
from typing import TYPE_CHECKING

from sc_glm.estimators import NegBinRegressor, Pipeline, ZINBRegressor, make_pipeline
from sc_glm.formula import FormulaTransformer

if TYPE_CHECKING:
    from sc_glm import (
        adata,
        datasets,
        diagnostics,
        distributions,
        inference,
        metrics,
        moderation,
        plots,
        selection,
    )
else:

    def __getattr__(name: str) -> object:
        """Import a public module at its first use, because importing anndata takes long."""
        if name in __all__:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "FormulaTransformer",
    "NegBinRegressor",
    "Pipeline",
    "ZINBRegressor",
    "adata",
    "datasets",
    "diagnostics",
    "distributions",
    "inference",
    "make_pipeline",
    "metrics",
    "moderation",
    "plots",
    "selection",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
