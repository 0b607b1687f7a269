"""Diagnostics: how well a fitted model describes counts, by residuals and tests of fit.

Like the functions of :mod:`sklearn.inspection`, these take a model, covariates and counts. They
work on blocks of genes, so that sparse counts are never dense as a whole. New residuals and tests
of fit belong here. ``inference`` is about coefficients.
"""

from sc_glm.diagnostics.fit_statistics import goodness_of_fit
from sc_glm.diagnostics.residuals import (
    deviance_residuals,
    pearson_residuals,
    quantile_residuals,
    residual_blocks,
)
from sc_glm.diagnostics.structural_zeros import zero_probability
from sc_glm.diagnostics.zero_counts import zero_test

__all__ = [
    "deviance_residuals",
    "goodness_of_fit",
    "pearson_residuals",
    "quantile_residuals",
    "residual_blocks",
    "zero_probability",
    "zero_test",
]
