"""Designs of a fit: each part's design matrix, its penalty, and cells with equal covariates."""

from collections import Counter

import numpy as np

from sc_glm._counts.equal_rows import group_rows, group_rows_ignoring_offset
from sc_glm._counts.tally import Grouping
from sc_glm._design import levels
from sc_glm._design.design import FloatArray, PartDesign
from sc_glm._design.layout import INTERCEPT, Layout
from sc_glm._solver.gene_block import Designs


def designs_of_fit(
    layout: Layout, covariates: FloatArray, weights: FloatArray, penalties: dict[str, float]
) -> Designs:
    """Return the designs of cells of positive weight; cells with equal covariates are one row."""
    offset, cells, groups = layout.offset_of(covariates), None, None
    rows = group_rows(covariates)
    if rows is not None:
        cells = Grouping(rows, weights)
        first = cells.first()
        covariates, offset, weights = covariates[first], offset[first], cells.row_weights()
    elif layout.offset is not None:
        groups = group_rows_ignoring_offset(np.delete(covariates, layout.offset, 1), offset)
    parts = {
        part: _part_design(matrix, weights, layout.columns[part], penalties[part])
        for part, matrix in layout.designs(covariates).items()
    }
    return Designs(parts, offset, weights, cells, groups)


def _part_design(
    matrix: FloatArray, weights: FloatArray, columns: list[str], penalty: float
) -> PartDesign:
    if penalty == 0:
        return levels.decompose(matrix, weights)
    penalised = np.array([column != INTERCEPT for column in columns])
    return PartDesign.of(matrix, weights, penalised=penalised, strength=penalty)


def check_unique_columns(layout: Layout) -> None:
    """Raise a ValueError if a part has two columns of one name."""
    for part, columns in layout.columns.items():
        repeated = [column for column, number in Counter(columns).items() if number > 1]
        if repeated:
            hint = " fit_intercept=False adds none." if repeated[0] == INTERCEPT else ""
            raise ValueError(f"{part!r} has more than one column named {repeated[0]!r}.{hint}")
