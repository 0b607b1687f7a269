"""Docstring entries that the displays share."""

from sc_glm.inference.docstring_entries import ENTRIES as FITTED_MODEL_ENTRIES

__all__ = ["ENTRIES"]

ENTRIES = FITTED_MODEL_ENTRIES | {
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
