"""What fitted coefficients tell: standard errors, intervals, tests and information criteria.

All functions take a fitted model and the data of its fit, and answer for all genes at once. A
coefficient that the counts or the design leave open has no number, and a word that says why.
New tests and intervals belong here. How well a model describes its counts is asked in
``diagnostics``.
"""

from sc_glm.inference.coefficients import (
    aic,
    bic,
    coefficient_table,
    confidence_intervals,
    covariance,
    gene_summary,
    likelihood_ratio_test,
    standard_errors,
    wald_test,
)
from sc_glm.inference.summary import GeneSummary

__all__ = [
    "GeneSummary",
    "aic",
    "bic",
    "coefficient_table",
    "confidence_intervals",
    "covariance",
    "gene_summary",
    "likelihood_ratio_test",
    "standard_errors",
    "wald_test",
]
