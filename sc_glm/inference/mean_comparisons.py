"""Comparisons of marginal means between levels of factors."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_glm._contract.docstrings import documented
from sc_glm._likelihood.family import MEAN
from sc_glm.inference.constrained_fits import FittedCells
from sc_glm.inference.contrast_tables import table_of_contrasts
from sc_glm.inference.contrast_tests import question_of_test
from sc_glm.inference.contrasts import contrast_of_rows
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.margins import average_margins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from sc_glm.inference.contrasts import Contrast
    from sc_glm.inference.margins import Margins

__all__ = ["marginal_comparisons"]

_COMPARE = ("pairs", "reference", "rest")


@documented(ENTRIES)
def marginal_comparisons(
    model: Any,
    X: Any,
    y: Any = None,
    by: str | Sequence[str] | None = None,
    *,
    compare: str = "pairs",
    at: Mapping[str, Any] | None = None,
    part: str = MEAN,
    method: str = "auto",
    kind: str = "observed",
    groups: ArrayLike | None = None,
    level: float = 0.95,
    sample_weight: ArrayLike | None = None,
) -> pd.DataFrame:
    """Compare the marginal means of every gene between levels of a factor.

    The differences are those of :func:`marginal_means`, so `at` matters if the factor has
    interactions: the effect at one pseudotime, or in one cell type.

    Parameters
    ----------
    {model}
        It must have a :class:`~sc_glm.FormulaTransformer`.
    {X_of_fit}
    {y_of_fit}
    by : str or sequence of str
        Factors of the formula of `part`, by their columns. Their levels, or combinations of levels,
        are compared.
    compare : {"pairs", "reference", "rest"}, default="pairs"
        ``"pairs"``: each level with each one before it. ``"reference"``: each with the first one.
        ``"rest"``: each with the mean of the means of all others.
    {at}
    part : str, default="mean"
        The part of the model.
    method : {"auto", "wald", "lr", "score"}, default="auto"
        The test, as in :func:`differential_expression`.
    {kind}
    {groups}
    {level}
    {sample_weight_of_fit}
        They are also weights of the averages.

    Returns
    -------
    DataFrame
        One row per comparison and gene, with the genes as index. The columns are ``level`` and
        ``reference``, which name what is compared with what, and those of
        :func:`differential_expression`. Levels of several factors are joined by a colon; all
        other levels together are named ``rest``.

    Raises
    ------
    {raises_margins}
    ValueError
        If `compare` is unknown, or there are fewer than two levels.
    {raises_kind}
    {raises_not_of_fit}

    Examples
    --------
    The difference of two cell types at one pseudotime, where it depends on the pseudotime:

    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import marginal_comparisons
    >>> data = make_counts(n_targets=1, random_state=0)
    >>> formula = FormulaTransformer("~ cell_type * pseudotime")
    >>> model = make_pipeline(formula, NegBinRegressor()).fit(data.obs, data.counts)
    >>> test = marginal_comparisons(
    ...     model, data.obs, data.counts, "cell_type", at={"pseudotime": 0.5}
    ... )
    >>> columns = ["gene", "level", "reference", "log2_fold_change", "p_value"]
    >>> test.reset_index()[columns].round(3)
         gene level reference  log2_fold_change  p_value
    0  gene_0     b         a            -0.367    0.158
    1  gene_0     c         a             0.141    0.570
    2  gene_0     c         b             0.509    0.047
    """
    if compare not in _COMPARE:
        raise ValueError(f"compare must be one of {list(_COMPARE)}, not {compare!r}.")
    question = question_of_test(method, kind, "two-sided", 0.0)
    fitted = FittedData.of(model, X, y)
    margins = average_margins(
        fitted, model, X, by=by, at=at, part=part, sample_weight=sample_weight
    )
    names = [":".join(map(str, row)) for row in margins.labels.itertuples(index=False)]
    if len(names) < 2:
        raise ValueError("A comparison needs a factor of at least two levels in by.")
    pairs = _pairs(len(names), compare)
    cells = FittedCells.of(fitted, sample_weight)
    contrasts = {
        str(number): _contrast(margins, first, others, part)
        for number, (first, others) in enumerate(pairs)
    }
    table = table_of_contrasts(
        cells,
        contrasts,
        part=part,
        method=method,
        question=question,
        kind=kind,
        groups=groups,
        level=level,
        sample_weight=sample_weight,
    )
    n_genes = len(fitted.names)
    first_names = [names[first] for first, _ in pairs]
    other_names = ["rest" if compare == "rest" else names[others[0]] for _, others in pairs]
    table = table.drop(columns="contrast")
    table.insert(0, "level", np.repeat(np.array(first_names, dtype=object), n_genes))
    table.insert(1, "reference", np.repeat(np.array(other_names, dtype=object), n_genes))
    return table


def _pairs(n_levels: int, compare: str) -> list[tuple[int, list[int]]]:
    """Return which level is compared with which others."""
    if compare == "rest":
        return [(i, [j for j in range(n_levels) if j != i]) for i in range(n_levels)]
    pairs = [(i, [0]) for i in range(1, n_levels)]
    if compare == "pairs":
        pairs = [(i, [j]) for j, i in combinations(range(n_levels), 2)]
    return pairs


def _contrast(margins: Margins, first: int, others: list[int], part: str) -> Contrast:
    """Return the contrast of one average row with others."""
    sides = margins.cells[first], np.any([margins.cells[i] for i in others], axis=0)
    return contrast_of_rows(margins.rows, first, others, sides, part)
