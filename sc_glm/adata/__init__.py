"""Fit, predict and simulate with AnnData.

The cells' covariates are ``adata.obs``, the counts ``adata.X`` or one of ``adata.layers``, dense,
sparse or on disk; those of ``adata.raw`` are the X of ``adata.raw.to_adata()``. :func:`fit`,
:func:`predict`, :func:`sample` and :func:`read_params` follow scanpy: `adata` first, results under
a key. :class:`AnnDataRegressor` follows scikit-learn: a model whose `X` is an AnnData, for
cross-validation and searches. What reads or writes an AnnData belongs here, and nothing else does.
"""

from sc_glm.adata.anndata_regressor import AnnDataRegressor, fit, predict, read_params, sample

__all__ = ["AnnDataRegressor", "fit", "predict", "read_params", "sample"]
