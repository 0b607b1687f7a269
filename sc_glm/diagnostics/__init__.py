"""How well a fitted model describes counts, cell by cell and gene by gene.

The functions take a model, covariates and counts as those of :mod:`sklearn.inspection` do, and work
on blocks of genes: sparse counts are never made dense as a whole. New residuals and tests of fit
belong here. Questions about coefficients are asked in ``inference``.
"""

from sc_glm.diagnostics.residuals import (
    deviance_residuals,
    goodness_of_fit,
    pearson_residuals,
    quantile_residuals,
    residual_blocks,
    zero_test,
)

__all__ = [
    "deviance_residuals",
    "goodness_of_fit",
    "pearson_residuals",
    "quantile_residuals",
    "residual_blocks",
    "zero_test",
]
