"""How a gene's fit ended, in words that are decided from the fitted point."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from sc_glm._design.design import FloatArray
from sc_glm._likelihood.family import DISPERSION, MEAN, ZERO_INFLATION

# Information on a predictor (per unit, squared) under which the counts say nothing about it: its
# standard error is over 100, and a Newton step along it promises next to no likelihood. A predictor
# that spans many units may have a firm maximum all the same, so that the information on the whole
# span must be small as well.
FLAT = 1e-4
_FLAT_ALONG = 1e-2
_SHARE = 0.3  # of a flat direction, to lay it to a part
COEFFICIENT_SHARE = 0.05  # of a coefficient in flat directions, to call it undetermined
_POISSON_GAP = 3.0  # log size less log mean at which a flat size is taken for an infinite one
_NO_SIZE = -7.0  # log size under which counts are zero whatever their mean
_CERTAIN = 7.0  # log odds of a structural zero, either way, that may be on their way to infinity
_NO_GAIN = 1e-3  # log-likelihood that a zero inflation must bring to be there at all


class Status(StrEnum):
    """Outcome of one gene's fit; its value is the word shown to users."""

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
        """What it says of the gene."""
        return _MEANINGS[self]

    @property
    def reached_maximum(self) -> bool:
        """Whether the likelihood is at its supremum, be the coefficients finite there or not."""
        return self is not Status.ITERATION_LIMIT

    @property
    def worth_warning(self) -> bool:
        """Whether some coefficient is arbitrary or unfinished.

        A Poisson gene or one without zero inflation is as well fitted as any: its distribution is
        the maximum-likelihood one.
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
    Status.NOT_IDENTIFIED: "the counts leave some coefficients open",
    Status.ITERATION_LIMIT: "max_iter iterations did not reach the maximum",
}


def tally(
    statuses: NDArray[np.object_], names: NDArray[np.object_], most: int = 3
) -> Iterator[tuple[Status, int, str]]:
    """Count the genes of each status that occurs.

    Parameters
    ----------
    statuses, names : ndarray of str of shape (n_genes,)
    most : int, default=3
        Number of names to give.

    Yields
    ------
    tuple of (Status, int, str)
        The status, its number of genes, and the names of the first of them.
    """
    for status in Status:
        genes = names[statuses == status]
        if len(genes):
            yield status, len(genes), ", ".join(genes[:most]) + ", ..." * (len(genes) > most)


def flat_directions(information: FloatArray, coordinates: FloatArray) -> FloatArray:
    """Find the directions in which genes' likelihoods are flat.

    Parameters
    ----------
    information : ndarray of shape (n_genes, n_params, n_params)
        Observed information in coordinates whose unit is a unit of a predictor.
    coordinates : ndarray of shape (n_genes, n_params)
        The fitted points.

    Returns
    -------
    ndarray of shape (n_genes, n_params, n_params)
        In each matrix, columns of length one, or zero for directions that are not flat.
    """
    # Without a finite start there is no information, and no convergence either.
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
        As of :func:`flat_directions`, those that are no level's.
    levels : ndarray of bool of shape (n_genes, n_params)
        Which coordinates are those of a level along which the likelihood is flat.
    """
    n_params, n_columns = information.shape[1:]
    own = slice(n_params - n_columns + 1)
    finite = np.nan_to_num(information, posinf=0.0, neginf=0.0)
    diagonal, border, corner = finite[:, own, 0], finite[:, own, 1:], finite[:, own.stop :, 1:]
    largest = np.abs(np.diagonal(corner, axis1=1, axis2=2)).max(axis=1, initial=0.0)
    largest = np.maximum(largest, np.abs(diagonal).max(axis=1))
    rounding = 100 * np.finfo(float).eps * largest[:, None]
    flat = _is_flat(diagonal, coordinates[:, own], rounding)
    levels = np.zeros(coordinates.shape, dtype=bool)
    levels[:, own] = flat
    # The other levels follow the rest of the parameters.
    ratio = np.where(flat[..., None], 0.0, border / np.where(flat, 1.0, diagonal)[..., None])
    curvature, rest = np.linalg.eigh(corner - np.swapaxes(border, 1, 2) @ ratio)
    directions = np.concatenate([-ratio @ rest, rest], axis=1)
    length = np.linalg.norm(directions, axis=1)
    directions /= length[:, None]
    span = np.einsum("gij,gi->gj", directions, coordinates)
    is_flat = _is_flat(curvature / length**2, span, rounding)
    directions = np.where(is_flat[:, None, :], directions, 0.0)
    for gene in np.flatnonzero(is_flat.sum(axis=1) > 1):  # these need not be orthogonal
        some = is_flat[gene]
        directions[gene][:, some] = np.linalg.qr(directions[gene][:, some])[0]
    return directions, levels


def _is_flat(curvature: FloatArray, span: FloatArray, rounding: FloatArray) -> NDArray[np.bool_]:
    flat = (curvature < FLAT) & (curvature * span**2 < _FLAT_ALONG)
    return np.asarray(flat | (curvature < rounding))


@dataclass(frozen=True)
class Endpoints:
    """What is known of genes at their fitted points.

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
        Log size less log mean, the largest at a positive count; NaN where no direction is flat.
    lowest_size : ndarray of shape (n_genes,)
        Smallest log size of all cells.
    largest_inflation : ndarray of shape (n_genes,)
        Log odds of a structural zero, the largest in absolute value of all cells.
    inflation_gain : ndarray of shape (n_genes,)
        Log-likelihood that is lost without the zero inflation.
    flat_levels : ndarray of bool of shape (n_genes, n_params)
        Coordinates that are further such directions by themselves, those of levels.
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
        """Where each part's coordinates stand."""
        stops = np.cumsum([0, *self.ranks.values()])
        return {
            part: slice(start, stop)
            for part, start, stop in zip(self.ranks, stops, stops[1:], strict=False)
        }


def fit_statuses(at: Endpoints) -> list[Status]:
    """Decide each gene's status."""
    weight = (at.flat**2).sum(axis=2) + at.flat_levels
    runs_away = {part: weight[:, own].sum(axis=1) > _SHARE for part, own in at.slices().items()}
    return [
        _one(at, gene, {part for part, runs in runs_away.items() if runs[gene]})
        for gene in range(len(at.converged))
    ]


def _one(at: Endpoints, gene: int, runs_away: set[str]) -> Status:
    if at.n_positive[gene] == 0:
        return Status.ALL_ZERO
    if not at.converged[gene]:
        return Status.ITERATION_LIMIT
    no_inflation = at.inflation_gain[gene] < _NO_GAIN
    if not no_inflation and at.largest_inflation[gene] < _CERTAIN:
        runs_away = runs_away - {ZERO_INFLATION}  # flat, and yet at a finite maximum
    vanishing_size = DISPERSION in runs_away and at.lowest_size[gene] < _NO_SIZE
    if MEAN in runs_away or vanishing_size or (ZERO_INFLATION in runs_away and not no_inflation):
        return Status.SEPARATED
    if DISPERSION in runs_away and at.poisson_gap[gene] < _POISSON_GAP:
        scarce = at.n_positive[gene] <= sum(at.ranks.values())
        return Status.TOO_FEW_COUNTS if scarce else Status.NOT_IDENTIFIED
    return {
        frozenset[str](): Status.CONVERGED,
        frozenset({DISPERSION}): Status.POISSON,
        frozenset({ZERO_INFLATION}): Status.NO_INFLATION,
        frozenset({DISPERSION, ZERO_INFLATION}): Status.POISSON_NO_INFLATION,
    }[frozenset(runs_away)]


def undetermined(
    flat: FloatArray, to_coef: FloatArray, flat_levels: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Tell which coefficients of a part the counts leave open.

    Parameters
    ----------
    flat : ndarray of shape (n_genes, rank, n_directions)
        The part's share of the flat directions.
    to_coef : ndarray of shape (n_columns, rank)
        Coefficients from coordinates.
    flat_levels : ndarray of bool of shape (n_genes, rank), optional
        Coordinates that are flat directions by themselves, in addition.

    Returns
    -------
    ndarray of bool of shape (n_columns, n_genes)
    """
    moved = (np.einsum("pr,grk->gpk", to_coef, flat) ** 2).sum(axis=2)
    if flat_levels is not None:
        moved += flat_levels @ (to_coef.T**2)
    return (moved > COEFFICIENT_SHARE**2 * (to_coef**2).sum(axis=1)).T
