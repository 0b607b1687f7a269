"""Residuals of a model as a layer of an AnnData."""

from typing import Any

import numpy as np
from anndata import AnnData

from sc_glm._contract.docstrings import documented
from sc_glm.adata.docstring_entries import ENTRIES
from sc_glm.adata.models import fitted_regressor
from sc_glm.adata.written_entries import check_writable, writing_into_a_view
from sc_glm.diagnostics.residuals import residual_blocks

_DTYPES = ("float32", "float64")
_MAX_NAMES_SHOWN = 5  # in a message


@documented(ENTRIES)
def residuals(
    adata: AnnData,
    model: Any,
    *,
    kind: str = "pearson",
    clip: float | str | None = None,
    key_added: str | None = None,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
    dtype: str = "float32",
) -> None:
    """Write residuals of a fitted model to a layer.

    Parameters
    ----------
    adata : AnnData
        The cells of the fit, or others, with the genes of the fit in any order. Only the layer
        `key_added` is written. A view becomes an AnnData of its own, as with any assignment.
    {fitted_model_of_adata}
    kind : {"pearson", "quantile", "deviance"}, default="pearson"
        Residuals of :func:`~sc_glm.diagnostics.pearson_residuals`,
        :func:`~sc_glm.diagnostics.quantile_residuals` or
        :func:`~sc_glm.diagnostics.deviance_residuals`.
    clip : float, "sqrt_n" or None, default=None
        Bound of Pearson residuals, as in :func:`~sc_glm.diagnostics.pearson_residuals`.
    key_added : str, default=None
        Name of the layer; None is ``f"{kind}_residuals"``.
    random_state : int, RandomState, Generator or None, default=None
        Seed of quantile residuals. An integer gives the same residuals each time.
    dtype : {"float32", "float64"}, default="float32"
        Type of the layer.

    Raises
    ------
    TypeError
        If `adata` is not an AnnData.
    ValueError
        If `kind`, `dtype` or `clip` is not valid, if the genes of the AnnData are not those of the
        fit, or if the model was not fitted to an AnnData.

    See Also
    --------
    sc_glm.diagnostics.residual_blocks : Residuals by blocks of genes, for larger data.

    Notes
    -----
    The layer is dense: 4 bytes for each cell and gene with ``"float32"``, so 4 GB for 100 000 cells
    and 10 000 genes. Beside it, one block of genes is in memory at a time.

    Examples
    --------
    >>> from anndata import AnnData
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm import adata as scg
    >>> from sc_glm.datasets import make_counts
    >>> data = make_counts(random_state=0)
    >>> adata = AnnData(data.counts, obs=data.obs.set_axis(data.obs.index.astype(str)))
    >>> model = make_pipeline(FormulaTransformer("~ pseudotime"), NegBinRegressor())
    >>> model = scg.fit(adata, model)
    >>> scg.residuals(adata, model)
    >>> adata.layers["pearson_residuals"].shape
    (500, 20)
    """
    key_added = f"{kind}_residuals" if key_added is None else key_added
    check_writable(adata, key_added)
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {list(_DTYPES)}, not {dtype!r}.")
    positions = adata.var_names.get_indexer(fitted_regressor(model).target_names_)
    other = adata.var_names.delete(positions[positions >= 0])
    if len(other):
        raise ValueError(
            f"{len(other)} genes of adata are not genes of the fit: "
            f"{list(other[:_MAX_NAMES_SHOWN])}. A layer has all genes: give "
            "adata[:, model_genes].copy(), or fit all genes."
        )
    blocks = residual_blocks(
        model,
        adata,
        kind=kind,  # type: ignore[arg-type]
        random_state=random_state,
        clip=clip,  # type: ignore[arg-type]
    )
    layer = np.empty(adata.shape, dtype=dtype)
    for genes, values in blocks:
        layer[:, positions[genes]] = values
    with writing_into_a_view():
        adata.layers[key_added] = layer
