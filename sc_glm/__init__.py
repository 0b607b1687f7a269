"""Negative binomial and zero-inflated regression of single-cell counts, in scikit-learn's way."""

from sc_glm.formula import FormulaTransformer
from sc_glm.pipeline import Pipeline, make_pipeline
from sc_glm.regressors import NegBinRegressor, ZINBRegressor

__version__ = "0.1.0"

__all__ = [
    "FormulaTransformer",
    "NegBinRegressor",
    "Pipeline",
    "ZINBRegressor",
    "make_pipeline",
]
