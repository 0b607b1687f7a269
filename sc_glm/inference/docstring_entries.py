"""Docstring entries that functions of fitted models share.

They are filled in by :func:`~sc_glm._contract.docstrings.documented`. Rooms above ``inference``
use them, too. The entries ``X``, ``y`` and ``sample_weight`` are about any cells; those that end
in ``_of_fit`` are about functions that need the data of the fit.
"""

__all__ = ["ENTRIES"]

ENTRIES = {
    "model": """
        model : estimator
            A fitted regressor, a pipeline that ends in one, a search over these, or an
            :class:`~sc_glm.adata.AnnDataRegressor`.
    """,
    "X": """
        X : array-like, DataFrame or AnnData
            Covariates of the cells, as the model takes them to predict. An AnnData has them in
            ``obs``.
    """,
    "y": """
        y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
            Counts of all genes of the fit. None reads them from the AnnData `X`, in the layer of
            the fit, which :func:`sc_glm.adata.fit` and an
            :class:`~sc_glm.adata.AnnDataRegressor` remember. Genes are found by name.
    """,
    "sample_weight": """
        sample_weight : str or array-like of shape (n_cells,), default=None
            Weights of the cells, or the name of a column of `X`. A weight of three stands for three
            equal cells. None is a weight of one for every cell.
    """,
    "X_of_fit": """
        X : array-like, DataFrame or AnnData
            Covariates of the cells of the fit. An AnnData has them in ``obs``.
    """,
    "X_new": """
        X_new : array-like, DataFrame or AnnData, default=None
            Covariates of the cells to predict, with their offsets. They need not be cells of the
            fit. None means the cells of the fit.
    """,
    "y_of_fit": """
        y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
            Counts of the fit. None reads them from the AnnData `X`, in the layer of the fit, which
            :func:`sc_glm.adata.fit` and an :class:`~sc_glm.adata.AnnDataRegressor` remember. Genes
            are found by name.
    """,
    "sample_weight_of_fit": """
        sample_weight : str or array-like of shape (n_cells,), default=None
            Weights of the fit, or the name of a column of `X`; None if the fit had none.
    """,
    "kind": """
        kind : {"observed", "robust", "cluster"}, default="observed"
            Estimator of the covariance.

            - ``"observed"``: the inverse of the observed information. It holds for independent
              cells and a correct model.
            - ``"robust"``: the sandwich HC0. It holds for independent cells, also if their
              distribution differs from the model's, as long as the fitted predictors are correct.
              It needs more than a few cells with information on each coefficient.
            - ``"cluster"``: the cluster-robust sandwich CR2. It holds for cells that are correlated
              within `groups`, such as donors, if the groups are independent.
    """,
    "groups": """
        groups : str or array-like of shape (n_cells,), default=None
            Label of each cell's group, such as its donor, or the name of a column of `X`, such as
            ``"donor"``. ``kind="cluster"`` needs it, and the other kinds do not take it.
    """,
    "clip": """
        clip : float or "sqrt_n", default=None
            Largest absolute value; larger residuals are set to it. ``"sqrt_n"`` is the square root
            of the number of cells, as in scanpy. None does not change residuals.
    """,
    "genes": """
        genes : str or sequence of str, default=None
            Names of the genes, in the order of the result; None means all genes of the fit.
    """,
    "random_state": """
        random_state : int, RandomState, Generator or None, default=None
            Seed of the random numbers. An integer gives the same result each time; None uses
            NumPy's global state.
    """,
    "by": """
        by : str or sequence of str, default=None
            Factors of the formula of `part`, by their columns. There is a mean for each level, or
            for each combination of levels. None is one mean over all cells.
    """,
    "at": """
        at : mapping of str to object, default=None
            Values of other covariates by their columns, such as ``{"pseudotime": 0.5}``, which
            all cells take in the average. Covariates that are not in it keep each cell's own value.
    """,
    "level": """
        level : float, default=0.95
            Confidence level of the intervals.
    """,
    "raises_margins": """
        ValueError
            If the model has no formula or no such part, or if a name in `by` or `at` is not that of
            a covariate. Also if a value is not valid, or `level` is not between 0 and 1.
    """,
    "raises_not_a_regressor": """
        TypeError
            If the model does not end in a regressor of this package.
    """,
    "raises_invalid_data": """
        ValueError
            If `X` or `y` is not valid, or if `y` does not have the genes of the fit.
    """,
    "raises_not_of_fit": """
        ValueError
            If `X`, `y` and `sample_weight` are not the data of the fit.
    """,
    "raises_kind": """
        ValueError
            If `kind` is unknown, or if `groups` are missing, not needed or not valid.
    """,
    "log10_p_value": """
        log10_p_value
            Logarithm of the p-value to the base 10. It does not underflow: sort by it.
    """,
    "p_adjusted": """
        p_adjusted
            P-value adjusted for the number of genes (Benjamini and Hochberg 1995).
    """,
}
