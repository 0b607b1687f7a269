"""Docstring entries that the regressors, pipelines and :class:`AnnDataRegressor` share."""

__all__ = ["ENTRIES"]

ENTRIES = {
    # Parameters of the constructors
    "alpha": """
        alpha : float or dict of str to float, default=0.0
            Strength of the ridge penalty on all coefficients except intercepts: one number for all
            parts, or a number for each part. As in scikit-learn's GLMs, ``alpha / 2`` times the
            squared norm of the coefficients is subtracted from the mean log-likelihood per cell.
    """,
    "fit_intercept": """
        fit_intercept : bool, default=True
            Whether the mean has an intercept when `X` is a plain matrix. In a design frame, the
            formulas decide.
    """,
    "max_iter": """
        max_iter : int, default=100
            Largest number of Newton iterations for a gene.
    """,
    "tol": """
        tol : float, default=1e-6
            Tolerance of convergence. A gene has converged when the next Newton step is predicted
            to increase its log-likelihood by less. It refers to weights whose mean is between 1
            and 4; weights with another mean are scaled to the nearest of these bounds.
    """,
    "batch_size": """
        batch_size : int or "auto", default="auto"
            Number of genes that one worker fits at the same time.
    """,
    "n_jobs": """
        n_jobs : int, default=None
            Number of workers that share the genes of a fit, as joblib counts them. Each uses one
            thread. Samples are drawn by the same number of threads.
    """,
    "device": """
        device : str or torch.device, default="cpu"
            Where torch computes: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. The fitted model
            holds only NumPy and pandas objects, so it can be opened on any machine.
    """,
    "dtype": """
        dtype : {"float64", "float32"}, default="float64"
            Precision of the computation. Single precision is for devices on which double precision
            is slow, and for counts up to 2**24, about 17 million. Double precision is for counts
            up to a thousand million.
    """,
    "warm_start": """
        warm_start : bool, default=False
            Whether another fit of the same genes and columns starts at the last coefficients.
    """,
    "checkpoint_dir": """
        checkpoint_dir : str or path-like, default=None
            Folder in which finished genes are stored while the fit runs. If the fit is
            interrupted, calling it again with the same folder continues from there; `n_jobs`,
            `batch_size` and `device` may differ. The folder is kept after the fit and belongs to
            it: another fit raises an error, so leave this None in a cross-validation.
    """,
    "verbose": """
        verbose : int, default=0
            If positive, show in terminals and notebooks how many genes are done and the remaining
            time. Nothing is written to a file.
    """,
    "size": """
        size : float, array-like of shape (n_targets,) or Series, default=None
            Sizes r that are given and not estimated: one for all genes, or one for each. A Series
            is matched by the names of the genes, and may hold others. The other coefficients
            maximise the likelihood at these sizes, and standard errors take them as known.
            ``np.inf`` is the Poisson distribution. The dispersion must not have a formula.
    """,
    # Attributes of fitted regressors
    "params_": """
        params_ : dict of str to DataFrame
            Coefficients of each part, features x genes.
    """,
    "coef_": """
        coef_ : ndarray of shape (n_targets, n_features) or (n_features,)
            Coefficients of the mean, without the intercept.
    """,
    "intercept_": """
        intercept_ : ndarray of shape (n_targets,) or float
            Intercepts of the mean; zero if it has none.
    """,
    "log_likelihood_": """
        log_likelihood_ : ndarray of shape (n_targets,)
            Weighted log-likelihood of each gene at the estimate.
    """,
    "n_iter_": """
        n_iter_ : ndarray of shape (n_targets,)
            Number of Newton iterations of the run that ended at the estimate.
    """,
    "undetermined_": """
        undetermined_ : dict of str to DataFrame of bool
            Like ``params_``: whether a gene's counts do not determine a coefficient, because its
            estimate is infinite or because the likelihood does not depend on it.
    """,
    "aliased_": """
        aliased_ : dict of str to ndarray of str
            Aliased columns of each part: they are zero or linear combinations of other columns, so
            their coefficients are not identified.
    """,
    "converged_": """
        converged_ : ndarray of bool of shape (n_targets,)
            Whether the likelihood reached its supremum, which for some genes is at infinite
            coefficients.
    """,
    "target_names_": """
        target_names_ : ndarray of str of shape (n_targets,)
            Names of the genes: the column names of `y`, or ``y0, y1, ...``.
    """,
    "n_cells_": """
        n_cells_ : int
            Number of cells of the fit, without cells of weight zero.
    """,
    "layer_": """
        layer_ : str or None
            Layer of the AnnData with the counts of the fit; None is its ``X``. Only fits of an
            AnnData have it, by :func:`sc_glm.adata.fit` or an
            :class:`~sc_glm.adata.AnnDataRegressor`.
    """,
    "n_features_in_": """
        n_features_in_ : int
            Number of columns of `X`.
    """,
    "feature_names_in_": """
        feature_names_in_ : ndarray of str
            Names of the columns of `X`, if it has names.
    """,
    # Data
    "X": """
        X : array-like of shape (n_cells, n_features)
            Covariates of the cells, with the columns of the fit.
    """,
    "X_of_pipeline": """
        X : array-like or DataFrame of n_cells rows
            Covariates of the cells, as the first step takes them.
    """,
    "adata": """
        X : AnnData or DataFrame
            The cells, whose covariates are in ``obs``; or these covariates.
    """,
    "adata_with_counts": """
        X : AnnData
            The cells; their covariates are in ``obs``, and their counts in `layer`.
    """,
    "y": """
        y : array-like or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
            Counts of the genes of the fit.
    """,
    "y_is_none": """
        y : None
            For scikit-learn's conventions only: the counts are in `X`.
    """,
    "sample_weight": """
        sample_weight : array-like of shape (n_cells,), default=None
            Weights of the cells. An integer weight is equivalent to that number of copies of the
            cell. None is a weight of one for every cell.
    """,
    "n_draws": """
        n_draws : int, default=None
            Number of data sets to draw; None draws one, without an axis for it.
    """,
    "random_state": """
        random_state : int, RandomState, Generator or None, default=None
            Seed. An integer gives the same counts each time, for any number of jobs. A RandomState
            or a Generator provides a new seed at each call; None is NumPy's global state.
    """,
    # Results
    "summary": """
        DataFrame
            One row per gene, with columns ``status``, ``undetermined``, ``log_likelihood`` and
            ``n_iter``. ``undetermined`` has the names, spelled ``part__column``, of coefficients
            whose estimates are infinite or on which the likelihood does not depend. It is empty
            for most genes.
    """,
    "values_of_parts": """
        dict of str to ndarray of shape (n_cells, n_genes)
            ``mean``: mu, offset included; ``dispersion``: the size r (variance mu + mu²/r, the
            *inverse* of what DESeq2 and edgeR call dispersion); ``zero_inflation``: pi.
    """,
    "warns_not_estimable": """
        UserWarning
            If the fit does not determine the predictor of some rows, because no cell of the fit
            had their combination of columns. The values of these rows are NaN.
    """,
    "raises_not_estimable": """
        ValueError
            If `X` is not valid, or if the fit does not determine the predictor of a row, because
            no cell of the fit had its combination of columns.
    """,
    "distribution": """
        NB or ZINB
            It has SciPy's methods (``pmf``, ``cdf``, ``ppf``, ``mean``, ...), elementwise.
    """,
    "expected_counts": """
        ndarray of shape (n_cells, n_genes) or (n_cells,)
            E[y | x], which is (1 - pi) mu with zero inflation.
    """,
    "drawn_counts": """
        ndarray of int, of shape (n_cells, n_genes) or (n_draws, n_cells, n_genes)
            The last axis is missing if the counts of the fit had one dimension.
    """,
    "drawn_sparse_counts": """
        csr_array of int, of shape (n_cells, n_genes)
            For an integer seed, the counts that ``sample`` returns for it.
    """,
    "log_probabilities": """
        ndarray of shape (n_cells, n_genes) or (n_cells,)
            Logarithm of the probability of each count.
    """,
    "mean_log_likelihood": """
        float
            Weighted mean over cells and genes of the log-probabilities of counts.
    """,
}
