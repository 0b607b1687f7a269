"""The status of each gene's fit, decided at the fitted point.

A likelihood that is flat in some direction has an infinite or an undetermined estimate. The status
names the part of the model that the direction belongs to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from sc_glm._design.design import FloatArray
from sc_glm._likelihood.family import DISPERSION, MEAN, ZERO_INFLATION

# Information on a predictor (per unit, squared) below which the likelihood is flat: the standard
# error is over 100, and a Newton step gains almost nothing.
FLAT_INFORMATION = 1e-4
# Information on the whole range of a predictor, below which the likelihood is flat. If a predictor
# spans many units, its maximum may be finite although the information on one unit is small.
_FLAT_RANGE_INFORMATION = 1e-2
_PART_SHARE = 0.3  # of the squared length of a flat direction, above which it belongs to a part
COEFFICIENT_SHARE = 0.05  # of a coefficient in flat directions, above which it is undetermined
_POISSON_GAP = 3.0  # log size less log mean above which a flat size is infinite
_VANISHING_LOG_SIZE = -7.0  # below which all counts are zero, whatever their mean
_DIVERGENT_LOG_ODDS = 7.0  # absolute log odds of a structural zero that may tend to infinity
_MIN_INFLATION_GAIN = 1e-3  # log-likelihood below which a zero inflation is absent


class Status(StrEnum):
    """Outcome of the fit of a gene; users see its value."""

    CONVERGED = "converged"
    POISSON = "Poisson boundary"
    NO_INFLATION = "no zero inflation"
    POISSON_NO_INFLATION = "Poisson boundary, no zero inflation"
    SEPARATED = "separated"
    ALL_ZERO = "all zero"
    TOO_FEW_COUNTS = "too few counts"
    NOT_IDENTIFIED = "not identified"
    ITERATION_LIMIT = "iteration limit"

    @property
    def meaning(self) -> str:
        """Explanation of the status."""
        return _MEANINGS[self]

    @property
    def reached_maximum(self) -> bool:
        """Whether the likelihood is at its supremum, where coefficients may be infinite."""
        return self is not Status.ITERATION_LIMIT

    @property
    def needs_warning(self) -> bool:
        """Whether some coefficient is arbitrary or has not converged.

        A Poisson gene and a gene without zero inflation need no warning: their distribution is that
        of maximum likelihood.
        """
        return self in {
            Status.SEPARATED,
            Status.ALL_ZERO,
            Status.TOO_FEW_COUNTS,
            Status.NOT_IDENTIFIED,
            Status.ITERATION_LIMIT,
        }


_MEANINGS = {
    Status.CONVERGED: "the likelihood has a maximum at finite coefficients",
    Status.POISSON: "the size is infinite: counts vary no more than Poisson counts",
    Status.NO_INFLATION: "there are no more zeros than the negative binomial has",
    Status.POISSON_NO_INFLATION: "the size is infinite, and there are no more zeros than a Poisson "
    "distribution has",
    Status.SEPARATED: "some coefficients are infinite, as for a group of cells without counts",
    Status.ALL_ZERO: "no cell has a count",
    Status.TOO_FEW_COUNTS: "there are no more positive counts than coefficients",
    Status.NOT_IDENTIFIED: "the counts do not determine some coefficients",
    Status.ITERATION_LIMIT: "max_iter iterations did not reach the maximum",
}


def count_statuses(
    statuses: NDArray[np.object_], names: NDArray[np.object_], n_names: int = 3
) -> Iterator[tuple[Status, int, str]]:
    """Count the genes of each status that occurs.

    Parameters
    ----------
    statuses, names : ndarray of str of shape (n_genes,)
        The status and the name of each gene.
    n_names : int, default=3
        Number of names in each tuple at most.

    Yields
    ------
    tuple of (Status, int, str)
        The status, its number of genes, and the names of the first genes.
    """
    for status in Status:
        genes = names[statuses == status]
        if len(genes):
            yield status, len(genes), ", ".join(genes[:n_names]) + ", ..." * (len(genes) > n_names)


def flat_directions(information: FloatArray, coordinates: FloatArray) -> FloatArray:
    """Find the directions in which the likelihoods of genes are flat.

    Parameters
    ----------
    information : ndarray of shape (n_genes, n_params, n_params)
        Observed information in coordinates whose unit is a unit of a predictor.
    coordinates : ndarray of shape (n_genes, n_params)
        The fitted points.

    Returns
    -------
    ndarray of shape (n_genes, n_params, n_params)
        In each matrix, orthonormal columns; columns are zero for directions that are not flat.
    """
    # Genes without a finite start have no information; they have not converged either.
    finite = np.nan_to_num(information, posinf=0.0, neginf=0.0)
    curvature, directions = np.linalg.eigh(finite)
    rounding = 100 * np.finfo(float).eps * np.abs(curvature).max(axis=1, initial=0.0)
    span = np.einsum("gij,gi->gj", directions, coordinates)
    flat = _is_flat(curvature, span, rounding[:, None])
    return np.where(flat[:, None, :], directions, 0.0)


def flat_directions_of_arrows(
    information: FloatArray, coordinates: FloatArray
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Find the directions in which likelihoods with many levels are flat.

    Parameters
    ----------
    information : ndarray of shape (n_genes, n_params, 1 + n_others)
        Observed information, packed as in :mod:`~sc_glm._likelihood.arrow_hessian`.
    coordinates : ndarray of shape (n_genes, n_params)
        The fitted points.

    Returns
    -------
    directions : ndarray of shape (n_genes, n_params, n_others)
        Orthonormal columns of flat directions that involve the other parameters; columns are zero
        for directions that are not flat.
    levels : ndarray of bool of shape (n_genes, n_params)
        Which coordinates belong to a level in which the likelihood is flat.
    """
    n_params, n_columns = information.shape[1:]
    level_params = slice(n_params - n_columns + 1)
    finite = np.nan_to_num(information, posinf=0.0, neginf=0.0)
    diagonal, border, corner = (
        finite[:, level_params, 0],
        finite[:, level_params, 1:],
        finite[:, level_params.stop :, 1:],
    )
    largest = np.abs(np.diagonal(corner, axis1=1, axis2=2)).max(axis=1, initial=0.0)
    largest = np.maximum(largest, np.abs(diagonal).max(axis=1))
    rounding = 100 * np.finfo(float).eps * largest[:, None]
    flat = _is_flat(diagonal, coordinates[:, level_params], rounding)
    levels = np.zeros(coordinates.shape, dtype=bool)
    levels[:, level_params] = flat
    # Levels that are not flat are eliminated.
    ratio = np.where(flat[..., None], 0.0, border / np.where(flat, 1.0, diagonal)[..., None])
    curvature, vectors = np.linalg.eigh(corner - np.swapaxes(border, 1, 2) @ ratio)
    directions = np.concatenate([-ratio @ vectors, vectors], axis=1)
    length = np.linalg.norm(directions, axis=1)
    directions /= length[:, None]
    span = np.einsum("gij,gi->gj", directions, coordinates)
    is_flat = _is_flat(curvature / length**2, span, rounding)
    directions = np.where(is_flat[:, None, :], directions, 0.0)
    for gene in np.flatnonzero(is_flat.sum(axis=1) > 1):  # these may not be orthogonal
        is_flat_in_gene = is_flat[gene]
        directions[gene][:, is_flat_in_gene] = np.linalg.qr(directions[gene][:, is_flat_in_gene])[0]
    return directions, levels


def _is_flat(curvature: FloatArray, span: FloatArray, rounding: FloatArray) -> NDArray[np.bool_]:
    flat = (curvature < FLAT_INFORMATION) & (curvature * span**2 < _FLAT_RANGE_INFORMATION)
    return np.asarray(flat | (curvature < rounding))


@dataclass(frozen=True)
class Endpoints:
    """Properties of the likelihoods of genes at their fitted points.

    Attributes
    ----------
    flat : ndarray of shape (n_genes, n_params, n_directions)
        Directions in which the likelihood is flat, see :func:`flat_directions`.
    ranks : dict of str to int
        Number of coordinates of each part, in their order.
    converged : ndarray of bool of shape (n_genes,)
        Whether the solver met its tolerance.
    n_positive : ndarray of int of shape (n_genes,)
        Number of positive counts.
    poisson_gap : ndarray of shape (n_genes,)
        Maximum of log size less log mean over the positive counts; NaN without a flat direction.
    lowest_size : ndarray of shape (n_genes,)
        Minimum of the log size over the cells.
    largest_inflation : ndarray of shape (n_genes,)
        Maximum of the absolute log odds of a structural zero over the cells.
    inflation_gain : ndarray of shape (n_genes,)
        Log-likelihood less that without the zero inflation.
    flat_levels : ndarray of bool of shape (n_genes, n_params)
        Coordinates of levels in which the likelihood is flat, in addition.
    """

    flat: FloatArray
    ranks: dict[str, int]
    converged: NDArray[np.bool_]
    n_positive: NDArray[np.int64]
    poisson_gap: FloatArray
    lowest_size: FloatArray
    largest_inflation: FloatArray
    inflation_gain: FloatArray
    flat_levels: NDArray[np.bool_]

    def slices(self) -> dict[str, slice]:
        """Return the positions of the coordinates of each part."""
        stops = np.cumsum([0, *self.ranks.values()])
        return {
            part: slice(start, stop)
            for part, start, stop in zip(self.ranks, stops, stops[1:], strict=False)
        }


def fit_statuses(at: Endpoints) -> list[Status]:
    """Return the status of each gene."""
    weight = (at.flat**2).sum(axis=2) + at.flat_levels
    diverges = {
        part: weight[:, params].sum(axis=1) > _PART_SHARE for part, params in at.slices().items()
    }
    return [
        _status_of_gene(at, gene, {part for part, genes in diverges.items() if genes[gene]})
        for gene in range(len(at.converged))
    ]


def _status_of_gene(at: Endpoints, gene: int, divergent_parts: set[str]) -> Status:
    if at.n_positive[gene] == 0:
        return Status.ALL_ZERO
    if not at.converged[gene]:
        return Status.ITERATION_LIMIT
    no_inflation = at.inflation_gain[gene] < _MIN_INFLATION_GAIN
    if not no_inflation and at.largest_inflation[gene] < _DIVERGENT_LOG_ODDS:
        divergent_parts = divergent_parts - {ZERO_INFLATION}  # the maximum is finite
    vanishing_size = DISPERSION in divergent_parts and at.lowest_size[gene] < _VANISHING_LOG_SIZE
    if (
        MEAN in divergent_parts
        or vanishing_size
        or (ZERO_INFLATION in divergent_parts and not no_inflation)
    ):
        return Status.SEPARATED
    if DISPERSION in divergent_parts and at.poisson_gap[gene] < _POISSON_GAP:
        has_few_counts = at.n_positive[gene] <= sum(at.ranks.values())
        return Status.TOO_FEW_COUNTS if has_few_counts else Status.NOT_IDENTIFIED
    return {
        frozenset[str](): Status.CONVERGED,
        frozenset({DISPERSION}): Status.POISSON,
        frozenset({ZERO_INFLATION}): Status.NO_INFLATION,
        frozenset({DISPERSION, ZERO_INFLATION}): Status.POISSON_NO_INFLATION,
    }[frozenset(divergent_parts)]


def undetermined(
    flat: FloatArray, to_coef: FloatArray, flat_levels: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return which coefficients of a part the counts do not determine.

    Parameters
    ----------
    flat : ndarray of shape (n_genes, rank, n_directions)
        The coordinates of the part in the flat directions.
    to_coef : ndarray of shape (n_columns, rank)
        Matrix that maps coordinates to coefficients.
    flat_levels : ndarray of bool of shape (n_genes, rank), optional
        Coordinates that are flat directions by themselves, in addition.

    Returns
    -------
    ndarray of bool of shape (n_columns, n_genes)
    """
    squared = (np.einsum("pr,grk->gpk", to_coef, flat) ** 2).sum(axis=2)
    if flat_levels is not None:
        squared += flat_levels @ (to_coef.T**2)
    return (squared > COEFFICIENT_SHARE**2 * (to_coef**2).sum(axis=1)).T
