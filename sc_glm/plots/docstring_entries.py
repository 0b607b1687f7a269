"""Docstring entries that the displays share."""

__all__ = ["ENTRIES"]

ENTRIES = {
    "model": """
        model : estimator
            A fitted regressor, a pipeline that ends in one, a search over these, or an
            :class:`~sc_glm.adata.AnnDataRegressor`.
    """,
    "X": """
        X : array-like, DataFrame or AnnData
            Covariates of the cells, as the model takes them to predict.
    """,
    "y": """
        y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
            Counts of all genes of the fit; None if `X` is an AnnData that holds the counts.
    """,
    "genes": """
        genes : str or sequence of str, default=None
            Names of the genes to show; None shows all genes of the fit.
    """,
    "sample_weight": """
        sample_weight : array-like of shape (n_cells,), default=None
            Weights of the cells. An integer weight is equivalent to that number of copies of the
            cell.
    """,
    "ax": """
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
    """,
    "four_axes": """
        ax : array-like of four matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
    """,
    "line_kwargs": """
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the points.
    """,
    "line_kwargs_of_residuals": """
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the residuals.
    """,
    "bar_kwargs": """
        bar_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.bar` for the bars.
    """,
    "confidence": """
        confidence : float, default=0.95
            Probability of the envelope at each point.
    """,
    "significance_level": """
        alpha : float, default=0.05
            False discovery rate: genes whose adjusted p-value is at most `alpha` are in colour.
    """,
    "n_labels": """
        n_labels : int, default=10
            Largest number of coloured genes to label, those with the smallest p-values. A label
            that would cover another label or a point is left out.
    """,
    "ax_": """
        ax_ : matplotlib Axes
            Axes with the plot.
    """,
    "figure_": """
        figure_ : matplotlib Figure
            The figure of the axes.
    """,
    "raises_no_matplotlib": """
        ImportError
            If matplotlib is not installed.
    """,
    "raises_invalid_data": """
        ValueError
            If `X`, `y`, `genes` or weights are not valid.
    """,
}
