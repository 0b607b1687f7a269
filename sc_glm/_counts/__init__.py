"""Count matrices: in memory or in a file, checked once, and compressed without loss.

Here counts are read by blocks of genes, cells with equal covariates are grouped, and equal counts
within a group are tabulated. New code belongs here if it reads or stores counts. A new file format
goes into ``on_disk``, and enters by ``anndata_matrix`` or ``estimators.input_checks``. Models and
coefficients belong elsewhere.
"""
