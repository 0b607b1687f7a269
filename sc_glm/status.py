"""How a gene's fit ended, in words that are decided from the fitted point."""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from sc_glm.family import DISPERSION, MEAN, ZERO_INFLATION

# Information on a predictor (per unit, squared) under which the counts say nothing about it: its
# standard error is over 100, and a Newton step along it promises next to no likelihood.
_FLAT = 1e-4
_SHARE = 0.3  # of a flat direction, to lay it to a part
_POISSON_GAP = 3.0  # log size less log mean at which a flat size is taken for an infinite one
_NO_INFLATION = -4.0  # log odds of a structural zero under which a flat one is taken for none


class Status(StrEnum):
    """Outcome of one gene's fit; its value is the word shown to users."""

    CONVERGED = "converged"
    POISSON = "Poisson boundary"
    NO_INFLATION = "no zero inflation"
    POISSON_NO_INFLATION = "Poisson boundary, no zero inflation"
    SEPARATED = "separated"
    ALL_ZERO = "all zero"
    NOT_IDENTIFIED = "not identified"
    ITERATION_LIMIT = "iteration limit"

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
            Status.NOT_IDENTIFIED,
            Status.ITERATION_LIMIT,
        }


def judge(
    information: NDArray[np.float64],
    converged: NDArray[np.bool_],
    highest: dict[str, NDArray[np.float64]],
    ranks: Sequence[int],
) -> list[Status]:
    """Decide each gene's status.

    Parameters
    ----------
    information : ndarray of shape (n_genes, n_params, n_params)
        Observed information in coordinates whose unit is a unit of a predictor.
    converged : ndarray of shape (n_genes,)
        Whether the solver met its tolerance.
    highest : dict of str to ndarray of shape (n_genes,)
        Each part's largest predictor over the cells.
    ranks : sequence of int
        Number of coordinates of each part, in the order of ``highest``.

    Returns
    -------
    list of Status
    """
    # Without a finite start there is no information, and no convergence either.
    curvature, directions = np.linalg.eigh(np.nan_to_num(information, posinf=0.0, neginf=0.0))
    rounding = np.finfo(float).eps * np.abs(curvature).max(axis=1, initial=0.0)
    flat = curvature < np.maximum(_FLAT, 100 * rounding)[:, None]
    weight = np.where(flat[:, None, :], directions**2, 0.0).sum(axis=2)
    stops = np.cumsum([0, *ranks])
    runs_away = {
        part: weight[:, start:stop].sum(axis=1) > _SHARE
        for part, start, stop in zip(highest, stops, stops[1:], strict=False)
    }
    return [
        _one(
            bool(converged[g]),
            {part for part, runs in runs_away.items() if runs[g]},
            {part: float(top[g]) for part, top in highest.items()},
        )
        for g in range(len(converged))
    ]


def _one(converged: bool, runs_away: set[str], highest: dict[str, float]) -> Status:
    if not converged:
        return Status.ITERATION_LIMIT
    poisson = highest[DISPERSION] > highest[MEAN] + _POISSON_GAP
    no_inflation = highest.get(ZERO_INFLATION, 0.0) < _NO_INFLATION
    if MEAN in runs_away or (ZERO_INFLATION in runs_away and not no_inflation):
        return Status.SEPARATED
    if DISPERSION in runs_away and not poisson:
        return Status.NOT_IDENTIFIED
    return {
        frozenset[str](): Status.CONVERGED,
        frozenset({DISPERSION}): Status.POISSON,
        frozenset({ZERO_INFLATION}): Status.NO_INFLATION,
        frozenset({DISPERSION, ZERO_INFLATION}): Status.POISSON_NO_INFLATION,
    }[frozenset(runs_away)]
