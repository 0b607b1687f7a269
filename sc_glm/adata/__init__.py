"""Fit, predict, simulate and rank genes with AnnData.

The cells' covariates are ``adata.obs``. Their counts are ``adata.X`` or a layer: dense, sparse or
in a file. (Counts of ``adata.raw`` are the ``X`` of ``adata.raw.to_adata()``.) Functions follow
scanpy: `adata` first, results under a key. :class:`AnnDataRegressor` follows scikit-learn: a model
whose `X` is an AnnData, for cross-validation and searches. Functions that write an AnnData belong
here, and no others. Those of other rooms take a fitted model and the AnnData as its `X`.
"""

from sc_glm.adata.anndata_regressor import AnnDataRegressor
from sc_glm.adata.fitting import fit
from sc_glm.adata.gene_ranking import rank_genes
from sc_glm.adata.predictions import predict, sample
from sc_glm.adata.residual_layers import residuals
from sc_glm.adata.saved_fit import read_params
from sc_glm.adata.sums_of_cells import pseudobulk

__all__ = [
    "AnnDataRegressor",
    "fit",
    "predict",
    "pseudobulk",
    "rank_genes",
    "read_params",
    "residuals",
    "sample",
]
