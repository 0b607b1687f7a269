"""Estimators: scikit-learn's contract around the solver.

The regressors differ only by their family and its distribution. The pipeline adds the methods of a
count distribution to scikit-learn's. A new estimator belongs here. A question about a fitted model
does not: it is a function of ``inference``, ``diagnostics`` or ``metrics``.
"""

from sc_glm.estimators.pipeline import Pipeline, make_pipeline
from sc_glm.estimators.regressors import NegBinRegressor, ZINBRegressor

__all__ = ["NegBinRegressor", "Pipeline", "ZINBRegressor", "make_pipeline"]
