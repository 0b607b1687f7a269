"""The estimators: scikit-learn's contract around the solver.

Here are the regressors, which differ by their family alone, the pipeline with the methods of a
count distribution, and what a notebook shows of them. A new estimator belongs here. A question
asked of a fitted model does not: it is a function of ``inference``, ``diagnostics`` or ``metrics``.
"""

from sc_glm.estimators.pipeline import Pipeline, make_pipeline
from sc_glm.estimators.regressors import NegBinRegressor, ZINBRegressor

__all__ = ["NegBinRegressor", "Pipeline", "ZINBRegressor", "make_pipeline"]
