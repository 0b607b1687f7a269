"""Nesting of two fitted models: whether one is a special case of the other, and by which df."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sc_glm._design.design import PartDesign
from sc_glm._likelihood.family import (
    DISPERSION,
    LARGEST_LOG_SIZE,
    ZERO_INFLATION,
    ZINBFamily,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.fitted_model import FittedData

# Root mean square of a column's residual from a larger design, up to which it is rounding error.
# The columns are orthonormal.
_COLUMN_SPACE_TOLERANCE = 1e-6


class Nesting(NamedTuple):
    """Difference of two nested models.

    Attributes
    ----------
    df : int
        Number of additional coefficients of the full model.
    on_boundary : bool
        Whether the reduced model is on the boundary of the full one's parameter space.
    """

    df: int
    on_boundary: bool


class _NotNestedError(ValueError):
    """The full model does not contain the reduced one."""


def compare_nested_models(
    reduced: FittedData, full: FittedData, sample_weight: ArrayLike | None = None
) -> Nesting:
    """Compare two models of the same cells.

    Raises
    ------
    ValueError
        If the genes or offsets differ, or the models are equal. If the reduced family is not known
        to be a special case of the full one. If a part of the reduced model is not a special case
        of the same part of the full model. The message says whether exchanged models would be
        nested. Also if only the full model has a zero inflation, and that has covariates.
    """
    if list(reduced.names) != list(full.names):
        raise ValueError("The two models were fitted to different genes.")
    if not np.allclose(reduced.offset, full.offset, rtol=0, atol=1e-9):
        raise ValueError("The models are not nested: they have different offsets.")
    weights = full.weights(sample_weight)
    try:
        return _compare(reduced, full, weights)
    except _NotNestedError as error:
        try:
            _compare(full, reduced, weights)
        except ValueError:
            raise ValueError(str(error)) from None
        raise ValueError(
            "The reduced model is the larger one: the full model is a special case of it. Exchange "
            "the two models."
        ) from error


def _compare(reduced: FittedData, full: FittedData, weights: FloatArray) -> Nesting:
    """Compare two models of the same genes with equal offsets."""
    _check_families(reduced, full)
    cells, weights = weights > 0, weights[weights > 0]
    df, on_boundary = 0, False
    for part, matrix in full.designs.items():
        design = PartDesign.of(matrix[cells], weights)
        rank = design.U.shape[1]
        if part == DISPERSION and (reduced.has_given_size or full.has_given_size):
            rank, on_boundary = _compare_given_sizes(reduced, full, design, weights)
        elif part in reduced.params:
            smaller = PartDesign.of(reduced.designs[part][cells], weights)
            _check_column_space(smaller.U, design.U, weights, part)
            rank -= smaller.U.shape[1]
        elif part == ZERO_INFLATION:
            if rank != 1 or np.ptp(design.U) > _COLUMN_SPACE_TOLERANCE:
                raise ValueError(
                    f"The reduced model has no {part}, and the {part} of the full model has "
                    "covariates. Their coefficients have no meaning in the reduced model, so that "
                    "the likelihood ratio has no known distribution. First test a model whose "
                    f"{part} is '~ 1', then the covariates."
                )
            if on_boundary:
                raise ValueError(
                    "The reduced model is on two boundaries: it has no zero inflation, and an "
                    "infinite size. The likelihood ratio has no known distribution. Test one step "
                    "after the other."
                )
            on_boundary = True
        df += rank
    if not df:
        raise ValueError("The two models are equal: the full model has no additional coefficient.")
    return Nesting(df, on_boundary)


def _check_families(reduced: FittedData, full: FittedData) -> None:
    missing = [part for part in reduced.params if part not in full.params]
    if missing:
        raise _NotNestedError(
            f"The reduced model has a part {missing[0]!r} that the full model does not have: did "
            "you exchange the two models?"
        )
    families = type(reduced.family), type(full.family)
    if families[0] is not families[1] and not issubclass(families[1], ZINBFamily):
        raise _NotNestedError(
            f"The models are not nested: {families[0].__name__} is not known to be a special case "
            f"of {families[1].__name__}."
        )


def _compare_given_sizes(
    reduced: FittedData, full: FittedData, design: PartDesign, weights: FloatArray
) -> tuple[int, bool]:
    """Return the additional coefficients of the full dispersion if sizes are given.

    ``design`` is the dispersion's in the full model. Also return whether the reduced model is on a
    boundary, as the Poisson distribution is.
    """
    if not reduced.has_given_size:
        raise _NotNestedError(
            "The models are not nested: the reduced model estimates the sizes that the full model "
            "was given."
        )
    log_size = reduced.params[DISPERSION].to_numpy()[0]
    if full.has_given_size:
        differs = log_size != full.params[DISPERSION].to_numpy()[0]
        if differs.any():
            raise ValueError(
                "The models are not nested: they were given different sizes, such as for gene "
                f"{full.names[differs.argmax()]!r} ({int(differs.sum())} gene(s) differ)."
            )
        return 0, False
    _check_column_space(np.ones((len(weights), 1)), design.U, weights, DISPERSION)
    rank = design.U.shape[1]
    is_infinite = log_size >= LARGEST_LOG_SIZE
    if not is_infinite.any():
        return rank, False
    if rank > 1 or not is_infinite.all():
        raise ValueError(
            "The reduced model has an infinite size, which is on the boundary of the full model. "
            "The likelihood ratio has a known distribution if the sizes of all genes are infinite, "
            "and the dispersion of the full model is '~ 1'."
        )
    return rank, True


def _check_column_space(
    reduced: FloatArray, full: FloatArray, weights: FloatArray, part: str
) -> None:
    """Raise if a column of the reduced basis is not a combination of the full one's columns."""
    coordinates = (weights[:, None] * full).T @ reduced / weights.sum()
    residual = reduced - full @ coordinates
    root_mean_square = np.sqrt(np.average(residual**2, axis=0, weights=weights))
    if (root_mean_square > _COLUMN_SPACE_TOLERANCE).any():
        raise _NotNestedError(
            f"The models are not nested: the {part} of the reduced model is not a special case of "
            f"the {part} of the full model."
        )
