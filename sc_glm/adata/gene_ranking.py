"""Genes ranked by tests of a fitted model, in the structure of scanpy's ``rank_genes_groups``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import column_or_values, quoted
from sc_glm.adata.docstring_entries import ENTRIES
from sc_glm.adata.models import fitted_regressor
from sc_glm.adata.written_entries import check_writable, writing_into_a_view
from sc_glm.inference.contrast_tests import differential_expression

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import ArrayLike

_REST = "rest"  # scanpy's name of all other cells
_OTHER = "contrast"  # in place of the factor and the reference, if contrasts have several

# Fields of the structure, their columns in the table of tests, and scanpy's types
_FIELDS = {
    "names": ("gene", "O"),
    "scores": ("score", "float32"),
    "logfoldchanges": ("log2_fold_change", "float32"),
    "pvals": ("p_value", "float64"),
    "pvals_adj": ("p_adjusted", "float64"),
}


@documented(ENTRIES)
def rank_genes(
    adata: AnnData,
    model: Any,
    contrast: str | tuple[str, Any, Any] | Mapping[str, Any],
    *,
    reference: Any = _REST,
    method: str = "auto",
    kind: str = "observed",
    groups: ArrayLike | None = None,
    log2_threshold: float = 0.0,
    sample_weight: ArrayLike | None = None,
    n_genes: int | None = None,
    pts: bool = False,
    key_added: str = "rank_genes_groups",
) -> None:
    """Rank genes by the tests of a fitted model, and write them as scanpy does.

    Functions of scanpy read the result: ``sc.get.rank_genes_groups_df``,
    ``sc.pl.rank_genes_groups``, ``sc.pl.rank_genes_groups_dotplot`` and others.

    Parameters
    ----------
    adata : AnnData
        The cells of the fit. Only ``uns[key_added]`` is written. A view becomes an AnnData of its
        own, as with any assignment.
    {fitted_model_of_adata}
    contrast : str, tuple or dict
        What is compared:

        - the name of a factor, a column of ``obs``: each of its levels against `reference`;
        - ``(factor, level, reference)``: one comparison, which has the name of the level;
        - a dict of names and contrasts, as
          :func:`~sc_glm.inference.differential_expression` takes them.
    reference : object, default="rest"
        Level that the levels of a factor are compared with; ``"rest"`` is the mean of all others.
    method : {"auto", "wald", "lr", "score"}, default="auto"
        Test, as in :func:`~sc_glm.inference.differential_expression`.
    kind : {"observed", "robust", "cluster"}, default="observed"
        Estimator of the covariance, as in :func:`~sc_glm.inference.differential_expression`.
    groups : str or array-like of shape (n_cells,), default=None
        Group of each cell, such as its donor, or the name of a column of ``obs``, for
        ``kind="cluster"``.
    log2_threshold : float, default=0
        The tests ask for a log2 fold change beyond this one. With a threshold of 1, genes that
        differ a little in very many cells no longer rank first.
    sample_weight : str or array-like of shape (n_cells,), default=None
        Weights of the fit, or the name of a column of ``obs``.
    n_genes : int, default=None
        Number of genes to keep of each comparison, those with the largest scores; None is all.
    pts : bool, default=False
        Whether to write the fractions of cells with counts, too.
    key_added : str, default="rank_genes_groups"
        Name in ``uns``.

    Raises
    ------
    TypeError
        If `adata` is not an AnnData, or `contrast` is not of these types.
    ValueError
        If ``obs`` has no such factor, or the factor has no such reference or only one level. If
        `pts` is asked for contrasts that do not compare two levels. Also errors of
        :func:`~sc_glm.inference.differential_expression`.

    See Also
    --------
    sc_glm.inference.differential_expression : The same tests as a table, with the reason if a gene
        has none.

    Notes
    -----
    The structure has one field for each comparison in the arrays

    - ``names``, by falling score; genes without a test are last;
    - ``scores``: the normal quantile of the p-value with the sign of the fold change. It is finite
      and distinguishes genes also where p-values underflow;
    - ``logfoldchanges``: to the base 2, infinite where the estimate is. A dot plot of them
      (``values_to_plot="logfoldchanges"``) then needs limits of its colours: ``vmin=-4, vmax=4``;
    - ``pvals``, at least 2.2e-308, and ``pvals_adj`` (Benjamini and Hochberg 1995).

    With `pts`, the frames ``pts`` and, against the rest, ``pts_rest`` are added. ``params`` has
    ``groupby``, ``reference``, ``method``, ``use_raw``, ``corr_method`` and, unless it is None,
    ``layer``. If the contrasts do not share one factor or reference, ``"contrast"`` stands in their
    place: then give ``groupby=`` to functions of scanpy that draw cells.

    Examples
    --------
    >>> from anndata import AnnData
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm import adata as scg
    >>> from sc_glm.datasets import make_counts
    >>> data = make_counts(n_targets=5, random_state=0)
    >>> adata = AnnData(data.counts, obs=data.obs.set_axis(data.obs.index.astype(str)))
    >>> model = make_pipeline(FormulaTransformer("~ cell_type"), NegBinRegressor())
    >>> model = scg.fit(adata, model)
    >>> scg.rank_genes(adata, model, "cell_type")
    >>> adata.uns["rank_genes_groups"]["names"].dtype.names
    ('a', 'b', 'c')
    >>> adata.uns["rank_genes_groups"]["params"]["reference"]
    'rest'
    """
    check_writable(adata, key_added)
    contrasts = _named_contrasts(adata, contrast, reference)
    table = differential_expression(
        model,
        adata,
        contrast=contrasts,
        method=method,
        kind=kind,
        groups=groups,
        log2_threshold=log2_threshold,
        sample_weight=sample_weight,
    )
    tables = {name: _ranked(table[table["contrast"] == name]) for name in contrasts}
    factor, base = _common_factor_and_reference(contrasts)
    params = {
        "groupby": factor,
        "reference": base,
        "method": method,
        "use_raw": False,
        "corr_method": "benjamini-hochberg",
    }
    layer = fitted_regressor(model).layer_
    if layer is not None:  # anndata 0.11 cannot write None
        params["layer"] = layer
    entry = {
        "params": params,
        **{field: _structured(tables, *source, n_genes) for field, source in _FIELDS.items()},
    }
    if pts:
        entry |= _fractions(tables, adata.var_names, base)
    with writing_into_a_view():
        adata.uns[key_added] = entry


def _named_contrasts(adata: AnnData, contrast: Any, reference: Any) -> dict[str, Any]:
    """Return contrasts by name: each level of a factor, one comparison, or those of a dict."""
    if isinstance(contrast, Mapping):
        if not contrast or not all(isinstance(name, str) for name in contrast):
            raise TypeError("contrast must be a dict of strings and contrasts, and not empty.")
        return dict(contrast)
    if isinstance(contrast, tuple) and len(contrast) == 3:
        return {str(contrast[1]): contrast}
    if not isinstance(contrast, str):
        raise TypeError(
            "contrast must be the name of a factor, (factor, level, reference), or a dict of "
            f"contrasts, not {quoted(contrast)}."
        )
    column = pd.Categorical(column_or_values(adata, contrast, "contrast"))
    levels = list(column.remove_unused_categories().categories)
    if reference != _REST and reference not in levels:
        raise ValueError(
            f"reference={quoted(reference)} is not a level of {contrast!r}: {quoted(levels[:10])}."
        )
    compared = [level for level in levels if level != reference]
    if len(levels) < 2:
        raise ValueError(f"{contrast!r} has {len(levels)} level(s): at least two are compared.")
    return {str(level): (contrast, level, reference) for level in compared}


def _ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one contrast by falling score, with columns ``gene`` and ``score``."""
    # A two-sided p-value is the sum of both tails.
    log_tail = table["log10_p_value"].to_numpy() * np.log(10) - np.log(2)
    size = -special.ndtri_exp(log_tail)
    is_negative = table["log2_fold_change"].to_numpy() < 0
    ranked = table.rename_axis("gene").reset_index()
    ranked["score"] = np.where(is_negative, -size, size)
    return ranked.sort_values("score", ascending=False, kind="stable", ignore_index=True)


def _structured(
    tables: dict[str, pd.DataFrame], column: str, dtype: str, n_genes: int | None
) -> Any:
    """Return a column of the tables as a structured array with a field for each of them."""
    columns = {name: table[column].to_numpy()[:n_genes] for name, table in tables.items()}
    return pd.DataFrame(columns).to_records(index=False, column_dtypes=dtype)


def _common_factor_and_reference(contrasts: dict[str, Any]) -> tuple[str, str]:
    """Return the factor and the reference of all contrasts, or a word for several."""
    triples = [
        (contrast[0], str(contrast[2])) if isinstance(contrast, tuple) else (_OTHER, _OTHER)
        for contrast in contrasts.values()
    ]
    factors, references = ({*parts} for parts in zip(*triples, strict=True))
    return (
        factors.pop() if len(factors) == 1 else _OTHER,
        references.pop() if len(references) == 1 else _OTHER,
    )


def _fractions(
    tables: dict[str, pd.DataFrame], genes: pd.Index, reference: str
) -> dict[str, pd.DataFrame]:
    """Return the fractions of cells with counts, genes x groups, as scanpy writes them."""
    columns: dict[str, dict[str, pd.Series]] = {"fraction": {}, "fraction_reference": {}}
    for name, table in tables.items():
        by_gene = table.set_index("gene")
        for column, frame in columns.items():
            if column not in by_gene or by_gene[column].isna().all():
                raise ValueError(
                    f"pts=True, but the contrast {name!r} does not compare two levels, so that "
                    "there are no fractions of their cells."
                )
            frame[name] = by_gene[column].reindex(genes[genes.isin(by_gene.index)])
    own, others = (pd.DataFrame(frame) for frame in columns.values())
    if reference == _REST:
        return {"pts": own, "pts_rest": others}
    if reference != _OTHER:
        own[reference] = others.iloc[:, 0]
    return {"pts": own}
