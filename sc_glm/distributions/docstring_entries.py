"""Docstring entries that functions of this room share.

They are filled in by :func:`~sc_glm._contract.docstrings.documented`.
"""

__all__ = ["ENTRIES"]

ENTRIES = {
    "mu": """
        mu : array-like
            Means, finite and at least 0. A mean of 0 is a point mass at zero.
    """,
    "r": """
        r : array-like
            Sizes, greater than 0: the variance is ``mu + mu**2 / r``, and ``np.inf`` is Poisson.
            A size is the ``n`` of :data:`scipy.stats.nbinom` and the ``size`` of R's ``dnbinom``.
            It is the *inverse* of what DESeq2 and edgeR call dispersion (see `overdispersion`).
    """,
    "k_of_mass": """
        k : array-like
            Counts. They may be fractions, as ambient-correction tools leave them: gamma functions
            extend the mass to these, where SciPy returns minus infinity.
    """,
    "y": """
        y : array-like
            Observed counts.
    """,
    "k": """
        k : array-like
            Counts at which the function is evaluated. It steps at integers.
    """,
    "log_probability": """
        ndarray or float
            The log-probability.
    """,
    "invalid_parameters": """
        ValueError
            If a parameter is out of its range or NaN, or the shapes do not broadcast.
    """,
    "random_state": """
        random_state : int, RandomState, Generator or None, default=None
            Source of random numbers. An int makes the draws reproducible; None is NumPy's global
            random state.
    """,
    "dist_of": """
        dist_of : callable
            Function of a slice of cells that returns their distributions, of shape (n_cells,
            n_genes). Several threads call it.
    """,
    "seed_source": """
        random_state : int, RandomState, Generator or None
            Source of the seed: one number is drawn from it.
    """,
    "n_jobs": """
        n_jobs : int or None
            Number of threads, as joblib counts workers.
    """,
}
