"""Negative binomial and zero-inflated regression of single-cell counts, with scikit-learn's interface."""
