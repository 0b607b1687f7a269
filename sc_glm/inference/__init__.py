"""Inference on fitted coefficients: standard errors, intervals, tests and information criteria.

All functions take a fitted model and the data of its fit, and return results for all genes. A
coefficient without a standard error has missing values and a reason. New tests and intervals belong
here. ``diagnostics`` asks how well a model describes its counts.
"""

from sc_glm.inference.coefficients import coefficient_table, covariance, standard_errors
from sc_glm.inference.contrast_tests import differential_expression
from sc_glm.inference.expected_counts import predictions
from sc_glm.inference.information_criteria import aic, bic
from sc_glm.inference.intervals import confidence_intervals
from sc_glm.inference.likelihood_ratio import likelihood_ratio_test
from sc_glm.inference.margins import marginal_means
from sc_glm.inference.mean_comparisons import marginal_comparisons
from sc_glm.inference.new_counts import prediction_intervals
from sc_glm.inference.quasi_likelihood import quasi_likelihood_test
from sc_glm.inference.summary import GeneSummary, gene_summary
from sc_glm.inference.wald import wald_test

__all__ = [
    "GeneSummary",
    "aic",
    "bic",
    "coefficient_table",
    "confidence_intervals",
    "covariance",
    "differential_expression",
    "gene_summary",
    "likelihood_ratio_test",
    "marginal_comparisons",
    "marginal_means",
    "prediction_intervals",
    "predictions",
    "quasi_likelihood_test",
    "standard_errors",
    "wald_test",
]
