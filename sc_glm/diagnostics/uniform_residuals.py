"""Randomised quantile residuals on the scale of probabilities, by tiles of genes x cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from sc_glm.diagnostics.residuals import uniform_numbers
from sc_glm.distributions.log_mass import SaturatedTable, log_mass_ratio_of_positives
from sc_glm.distributions.sampling import draw_seed, replicate_cells
from sc_glm.distributions.tail_probabilities import lower_tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_glm.diagnostics.evaluated_cells import EvaluatedCells
    from sc_glm.inference.fitted_model import FittedData, Seed
    from sc_glm.inference.gene_tiles import GeneTile

    FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class UniformResiduals:
    """Residuals that are uniform if the model is true: quantile residuals before the quantile.

    Unlike :func:`~sc_glm.diagnostics.quantile_residuals`, they have the precision of one and not
    of small complements. The random numbers are the same.

    Attributes
    ----------
    data : FittedData
    seed : int
    copies : ndarray of int of shape (n_copies,)
        Cell of each residual; a cell of weight three has three.
    weights : ndarray of shape (n_copies,)
        Weight of each residual.
    """

    data: FittedData
    seed: int
    copies: NDArray[np.intp]
    weights: FloatArray

    @classmethod
    def of(cls, cells: EvaluatedCells, random_state: Seed) -> UniformResiduals:
        """Draw a seed, and copy the cells by their weights."""
        copies, weights = replicate_cells(cells.weights)
        return cls(cells.data, draw_seed(random_state), copies, weights)

    def of_tile(self, tile: GeneTile, p: FloatArray) -> FloatArray:
        """Return the residuals of a tile, genes x copies, given probabilities ``p`` of a zero."""
        uniform = uniform_numbers(self.seed, self.data.genes[tile.genes], len(self.copies))
        flat, below, mass = self._steps(tile)
        if len(self.copies) == p.shape[1]:
            at_counts = below + uniform.reshape(-1)[flat] * mass
            uniform *= p
            uniform.reshape(-1)[flat] = np.minimum(at_counts, 1.0)
            return uniform
        masses, all_below = p.copy(), np.zeros_like(p)
        masses.reshape(-1)[flat], all_below.reshape(-1)[flat] = mass, below
        uniform *= masses[:, self.copies]
        uniform += all_below[:, self.copies]
        return np.minimum(uniform, 1.0, out=uniform)

    def _steps(self, tile: GeneTile) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
        """Return where counts are positive, their probabilities and those of smaller counts.

        The distribution function has steps at integers, to which counts are rounded.
        """
        y, predictors, flat = np.rint(tile.y), tile.at_counts, tile.flat
        log_mass = tile.log_ratio + tile.saturated
        family = self.data.family
        if (y != tile.y).any():
            positive = y > 0
            y, flat = y[positive], flat[positive]
            predictors = [predictor[positive] for predictor in predictors]
            saturated = SaturatedTable(family).at(y, predictors[1], flat)
            log_mass = log_mass_ratio_of_positives(family, y, predictors) + saturated
        dist = self.data.distribution_of(dict(zip(family.parts, predictors, strict=True)))
        below = lower_tail(y - 1, dist.mu, dist.r)
        if len(predictors) > 2:
            pi = expit(predictors[2])
            below = pi + (1 - pi) * below
        return flat, below, np.exp(log_mass)
