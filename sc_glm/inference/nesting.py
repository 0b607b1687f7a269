"""Whether one fitted model is a special case of another, and by how many coefficients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sc_glm._design.design import PartDesign
from sc_glm._likelihood.family import ZERO_INFLATION

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.fitted_model import FittedData

_OUTSIDE = 1e-6  # share of a column outside of a larger design, up to which it is rounding's


class Nesting(NamedTuple):
    """How many coefficients the full model has more, and whether one of them is at its bound."""

    df: int
    on_boundary: bool


def nesting_of(
    reduced: FittedData, full: FittedData, sample_weight: ArrayLike | None = None
) -> Nesting:
    """Compare two models of the same cells.

    Raises
    ------
    ValueError
        If the genes differ, a part of the reduced model is no special case of the same of the full
        one, or there is no difference. Also if only the full model has a zero inflation, and that
        has covariates.
    """
    if list(reduced.names) != list(full.names):
        raise ValueError("The two models were fitted to different genes.")
    if not np.allclose(reduced.offset, full.offset, rtol=0, atol=1e-9):
        raise ValueError("The two models have different offsets: neither is a part of the other.")
    missing = [part for part in reduced.params if part not in full.params]
    if missing:
        raise ValueError(
            f"The reduced model has a part {missing[0]!r}, which the full one lacks: did you mean "
            "them the other way round?"
        )
    weights = full.weights(sample_weight)
    cells, weights = weights > 0, weights[weights > 0]
    df, on_boundary = 0, False
    for part, matrix in full.designs.items():
        design = PartDesign.of(matrix[cells], weights)
        rank = design.U.shape[1]
        if part in reduced.params:
            smaller = PartDesign.of(reduced.designs[part][cells], weights)
            _check_inside(smaller.U, design.U, weights, part)
            rank -= smaller.U.shape[1]
        elif part == ZERO_INFLATION:
            if rank != 1 or np.ptp(design.U) > _OUTSIDE:
                raise ValueError(
                    f"The reduced model has no {part}, and that of the full one has covariates: "
                    "these mean nothing where it is zero, so that the likelihood ratio has no "
                    "known distribution. First test a model whose zero_inflation is '~ 1', then "
                    "the covariates."
                )
            on_boundary = True
        df += rank
    if not df:
        raise ValueError("The two models are the same: the full one has no coefficient more.")
    return Nesting(df, on_boundary)


def _check_inside(small: FloatArray, large: FloatArray, weights: FloatArray, part: str) -> None:
    """Refuse a design with columns that no combination of a larger one makes."""
    coordinates = (weights[:, None] * large).T @ small / weights.sum()
    outside = np.sqrt(np.average((small - large @ coordinates) ** 2, axis=0, weights=weights))
    if (outside > _OUTSIDE).any():
        raise ValueError(
            f"The models are not nested: the {part} of the reduced one is no special case of that "
            "of the full one."
        )
