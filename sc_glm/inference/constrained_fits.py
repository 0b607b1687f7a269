"""Maxima of the likelihood under linear constraints on the coefficients of one part."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sc_glm._likelihood.family import DISPERSION, MEAN
from sc_glm._solver.fitting import fit_genes
from sc_glm._solver.gene_block import Settings
from sc_glm.inference.observed_information import SETTINGS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sc_glm._counts.count_matrix import CountMatrix
    from sc_glm._design.design import FloatArray
    from sc_glm._solver.gene_block import Designs, GeneFits
    from sc_glm.inference.fitted_model import FittedData


class FittedCells(NamedTuple):
    """A fitted model with the counts and designs of its cells of positive weight.

    Attributes
    ----------
    fitted : FittedData
    counts : CountMatrix
    designs : Designs
    """

    fitted: FittedData
    counts: CountMatrix
    designs: Designs

    @classmethod
    def of(cls, fitted: FittedData, sample_weight: ArrayLike | None) -> FittedCells:
        """Return the cells of a fit with its weights."""
        return cls(fitted, *fitted.counts_and_designs(fitted.weights(sample_weight)))

    def of_genes(self, genes: NDArray[np.intp]) -> FittedCells:
        """Return some of the genes."""
        counts = self.counts.of_genes(genes)
        return FittedCells(self.fitted.of_genes(genes), counts, self.designs)

    @property
    def has_known_sizes(self) -> bool:
        """Whether sizes are taken as known, as given and moderated ones are."""
        return DISPERSION in self.fitted.fixed_parts

    def known_params(self) -> NDArray[np.intp]:
        """Return the positions of the coordinates that are taken as known."""
        if not self.has_known_sizes:
            return np.empty(0, dtype=np.intp)
        mean, size, *_ = (part.rank for part in self.designs.parts.values())
        return np.arange(mean, mean + size)

    def coordinates(self) -> FloatArray:
        """Return the fitted coordinates in the bases of the designs, genes x parameters."""
        return self.fitted.coordinates(self.designs)

    def _known_log_sizes(self) -> FloatArray | None:
        if not self.has_known_sizes:
            return None
        coef = self.fitted.params[DISPERSION].to_numpy()[0]
        return coef * self.fitted.designs[DISPERSION][0, 0]

    def fit(self, designs: Designs, start: dict[str, FloatArray] | None = None) -> GeneFits:
        """Fit the genes again, with other designs or from given coefficients."""
        regressor = self.fitted.regressor
        settings = Settings(regressor.max_iter, regressor.tol, SETTINGS.device, SETTINGS.dtype)
        return fit_genes(
            self.fitted.family,
            self.counts,
            designs,
            settings,
            batch_size="auto",
            n_jobs=regressor.n_jobs,
            start=start,
            log_size=self._known_log_sizes(),
            progress=False,
        )


class ConstrainedMaxima(NamedTuple):
    """Maxima under constraints.

    Attributes
    ----------
    log_likelihood : ndarray of shape (n_genes,)
    coordinates : ndarray of shape (n_genes, n_params)
        In the bases of the designs without constraints.
    converged : ndarray of bool of shape (n_genes,)
    """

    log_likelihood: FloatArray
    coordinates: FloatArray
    converged: NDArray[np.bool_]


def constrained_maxima(
    cells: FittedCells, part: str, rows: FloatArray, values: FloatArray
) -> ConstrainedMaxima:
    """Maximise the likelihood of each gene with combinations of coefficients fixed.

    The coordinates that leave the combinations unchanged are a design of their own, which the
    solver fits like any other.

    Parameters
    ----------
    cells : FittedCells
    part : str
        The part that has the constraints.
    rows : ndarray of shape (n_constraints, rank)
        Multiply the coordinates of the part.
    values : ndarray of shape (n_constraints,)
        Values of the combinations.

    Raises
    ------
    ValueError
        If a value is not zero, and the part is not the mean.
    """
    designs = cells.designs
    design = designs.parts[part]
    complete, triangle = np.linalg.qr(rows.T, mode="complete")
    n_constraints = len(values)
    free = complete[:, n_constraints:]
    fixed = complete[:, :n_constraints] @ np.linalg.solve(triangle[:n_constraints].T, values)
    offset = designs.offset
    if values.any():
        if part != MEAN:
            raise ValueError(
                f"A combination of the {part} can be held at zero only, not at {values.tolist()}."
            )
        offset = offset + design.basis() @ fixed
    constrained = replace(
        design,
        U=design.basis() @ free,
        to_coef=free,
        from_coef=free.T,
        penalty=np.zeros((free.shape[1],) * 2),
        levels=None,
    )
    parts = designs.parts | {part: constrained}
    fits = cells.fit(replace(designs, parts=parts, offset=offset))
    stops = np.cumsum([0, *(other.rank for other in designs.parts.values())])
    coordinates = np.empty((cells.counts.n_genes, stops[-1]))
    for (name, other), start in zip(designs.parts.items(), stops, strict=False):
        coef = fits.coef[name]
        coordinates[:, start : start + other.rank] = (
            (coef + fixed[:, None]).T if name == part else coef.T @ other.from_coef.T
        )
    converged = np.array([status.reached_maximum for status in fits.status])
    return ConstrainedMaxima(fits.log_likelihood, coordinates, converged)


def maxima_from(cells: FittedCells, coordinates: FloatArray) -> FloatArray:
    """Return the log-likelihoods of maximisations without constraints from given points."""
    parts = cells.designs.parts
    stops = np.cumsum([part.rank for part in parts.values()])
    pieces = np.split(coordinates, stops[:-1], axis=1)
    start = {
        name: part.to_coef @ piece.T
        for (name, part), piece in zip(parts.items(), pieces, strict=True)
    }
    return cells.fit(cells.designs, start).log_likelihood
