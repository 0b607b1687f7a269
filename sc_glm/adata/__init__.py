"""Fit, predict and simulate with AnnData.

The cells' covariates are ``adata.obs``. Their counts are ``adata.X`` or a layer: dense, sparse or
in a file. (Counts of ``adata.raw`` are the ``X`` of ``adata.raw.to_adata()``.) :func:`fit`,
:func:`predict`, :func:`pseudobulk`, :func:`sample` and :func:`read_params` follow scanpy: `adata`
first, results under a key. :class:`AnnDataRegressor` follows scikit-learn: a model whose `X` is an
AnnData, for cross-validation and searches. Only functions that read or write an AnnData belong
here.
"""

from sc_glm.adata.anndata_regressor import AnnDataRegressor
from sc_glm.adata.fitting import fit
from sc_glm.adata.predictions import predict, sample
from sc_glm.adata.saved_fit import read_params
from sc_glm.adata.sums_of_cells import pseudobulk

__all__ = ["AnnDataRegressor", "fit", "predict", "pseudobulk", "read_params", "sample"]
