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
    "genes_to_label": """
        genes : str or sequence of str, default=None
            Names of genes to label in any case, also if they are not significant. With
            ``n_labels=0`` they are the only labels.
    """,
    "log2_fold_change": """
        log2_fold_change : array-like of shape (n_genes,)
            Logarithms of the fold changes to the base 2. They are infinite for *separated* genes,
            which have counts on one side of the contrast only.
    """,
    "p_value_and_adjusted": """
        p_value, p_adjusted : array-like of shape (n_genes,)
            P-values, and p-values adjusted for the number of genes, which decide about the
            colours. They are NaN for genes that were not tested.
    """,
    "names_of_genes": """
        genes : sequence of str of length n_genes
            Names of the genes.
    """,
    "reason": """
        reason : sequence of str of length n_genes, default=None
            Why genes were not tested.
    """,
    "log10_p_value": """
        log10_p_value : array-like of shape (n_genes,), default=None
            Logarithms of the p-values to the base 10, which do not underflow; None computes them
            from `p_value`.
    """,
    "interval_ends": """
        log2_low, log2_high : array-like of shape (n_genes,), default=None
            Ends of confidence intervals of the fold changes. A labelled separated gene has a line
            to the finite end of its interval.
    """,
    "sides": """
        sides : tuple of two str, default=None
            What is compared: genes with negative fold changes are higher in the first, genes with
            positive fold changes in the second. The ends of the axis say so.
    """,
    "table": """
        table : DataFrame of n_genes rows
            Result of a test in :mod:`sc_glm.inference`, one contrast only, or the rows of one
            coefficient from :func:`~sc_glm.inference.coefficient_table`. The index, or a column
            ``gene``, names the genes.
    """,
    "contrast": """
        contrast : tuple, str, list of str or array-like
            What is tested, as in :func:`~sc_glm.inference.differential_expression`: two levels
            such as ``("cell_type", "T", "B")``, a term of the formula, a constraint such as
            ``"condition[T.treated] = 0"``, or a vector.
    """,
    "see_tests": """
        sc_glm.inference.differential_expression : Computes the tests.
    """,
    "raises_contrast": """
        TypeError
            If the model does not end in a regressor of this package, or if `contrast` is missing or
            of another type.
        ValueError
            If data, `contrast`, `kind` or `groups` are not valid, or if `contrast` is a dict.
    """,
    "raises_table": """
        ValueError
            If a column is missing, if the table has several contrasts, or if a gene has several
            rows.
    """,
    "raises_named": """
        ValueError
            If `genes` names a gene without a row.
    """,
    "raises_fold_changes": """
        ValueError
            If tests have no fold changes, as those of other parts in a table of
            :func:`~sc_glm.inference.wald_test`.
    """,
    "joint": """
        joint : bool, default=False
            Whether the tests are of several coefficients. Their fold changes are the largest minus
            the smallest fitted log2 mean, which has no direction.
    """,
    "labels_and_intervals_": """
        labels_ : list of matplotlib Annotation
            The labels that are drawn.
        intervals_ : matplotlib LineCollection
            Lines from labelled separated genes to the finite ends of their intervals.
    """,
    "n_bins": """
        n_bins : int, default=20
            Number of bars.
    """,
    "raises_n_bins": """
        ValueError
            If `n_bins` is below 2.
    """,
    "mesh_kwargs": """
        mesh_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.pcolormesh`, such as ``cmap``.
    """,
    "model_of_frames": """
        model : estimator
            A fitted pipeline or regressor that predicts from a DataFrame, a search over these, or
            an :class:`~sc_glm.adata.AnnDataRegressor`.
    """,
    "notes_held": """
        The other columns are fixed at a typical value: the lower median of numbers, and the most
        frequent of other values. Thus an offset has the value of a typical cell, such as the median
        size factor. The attribute ``held`` of the display has the values.
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
