"""Docstring entries that functions of AnnData share, besides the entries of estimators."""

from sc_glm.estimators.docstring_entries import ENTRIES as ESTIMATOR_ENTRIES

__all__ = ["ENTRIES"]

ENTRIES = ESTIMATOR_ENTRIES | {
    "layer": """
        layer : str, default=None
            Name of the layer with the counts; None means ``adata.X``.
    """,
    "sample_weight": """
        sample_weight : str or array-like of shape (n_cells,), default=None
            Weights of the cells, or the name of a column of ``obs``; None is a weight of one for
            every cell. An integer weight is equivalent to that number of copies of the cell.
    """,
    "memory_budget": """
        memory_budget : int or str, default="4GB"
            Memory for counts that are in a file (HDF5 or zarr), in bytes or as ``"500MB"``,
            ``"1.5GiB"``. A matrix that takes more than half of it is read by groups of genes. Each
            worker process reads its own groups, within the same budget. The results do not depend
            on it. Counts that are in memory stay there.
    """,
    "adata_or_obs": """
        adata_or_obs : AnnData or DataFrame
            The cells, or their covariates.
    """,
    "fitted_model": """
        model : estimator
            A fitted pipeline or regressor, a fitted :class:`~sc_glm.adata.AnnDataRegressor`, or a
            fitted search.
    """,
    "fitted_model_of_adata": """
        model : estimator
            A model that :func:`~sc_glm.adata.fit` fitted, a fitted
            :class:`~sc_glm.adata.AnnDataRegressor`, or a search over these. It knows the layer of
            its counts.
    """,
    "raises_invalid_counts": """
        ValueError
            If there are no cells or genes, if gene names are not unique, if the layer is missing,
            if it has negative, missing or infinite values, or if a single gene exceeds the memory
            budget.
    """,
    "raises_other_genes": """
        ValueError
            If the AnnData lacks genes of the fit, or if the fit does not determine the predictor
            of a cell, because no cell of the fit had its combination of covariates.
    """,
    "warns_no_counts": """
        UserWarning
            If most values are not integers, as after a normalisation by depth or a logarithm.
            Counts corrected for ambient RNA (SoupX, CellBender) may also be such.
        sklearn.exceptions.ConvergenceWarning
            If some genes have coefficients that their counts do not determine, or did not converge.
    """,
}
