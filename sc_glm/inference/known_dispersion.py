r"""Negative binomial regressions of a few samples at known dispersions, for many genes at once.

A sample is for example the sum of the counts of a donor's cells. With the overdispersion
:math:`\varphi = 1/r` known, the likelihood of the mean's coefficients is that of a generalised
linear model. Fisher scoring maximises it. There is no Python loop over genes, such that a fit of
thousands of genes at each of many dispersions takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import gammaln

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray

_MAX_ITER = 100
_TOL = 1e-8  # predicted gain in log-likelihood
_MAX_STEP = 2.0  # of a predictor
_MAX_PREDICTOR = 30.0
_RIDGE = 1e-6  # keeps infinite estimates finite; in units of counts


@dataclass(frozen=True)
class Samples:
    """Counts of samples with the design of their mean, in an orthonormal basis.

    Attributes
    ----------
    counts : ndarray of shape (n_genes, n_samples)
    design : ndarray of shape (n_samples, n_coef)
        Its columns are orthogonal, with a mean square of one.
    offset : ndarray of shape (n_samples,)
        Added to the predictor of the mean.
    """

    counts: FloatArray
    design: FloatArray
    offset: FloatArray

    @property
    def n_coef(self) -> int:
        """Number of coefficients of a gene."""
        return int(self.design.shape[1])

    @property
    def df(self) -> int:
        """Residual degrees of freedom."""
        return len(self.offset) - self.n_coef

    def of_genes(self, genes: NDArray[np.intp]) -> Samples:
        """Return the samples with some of the genes."""
        return replace(self, counts=self.counts[genes])

    def with_design(self, design: FloatArray, shift: FloatArray) -> Samples:
        """Return the samples with another design, and a shift of their offset."""
        return replace(self, design=design, offset=self.offset + shift)

    def start(self) -> FloatArray:
        """Return coefficients whose means are as equal as the design allows."""
        rate = self.counts.sum(axis=1) / np.exp(self.offset).sum()
        ones = self.design.T @ np.ones(len(self.offset)) / len(self.offset)
        return np.log(rate)[:, None] * ones

    def fit(self, overdispersion: FloatArray, start: FloatArray) -> FloatArray:
        """Maximise the likelihood at known overdispersions.

        An infinite estimate stops where its likelihood no longer rises.

        Parameters
        ----------
        overdispersion : ndarray of shape (n_genes,)
            1 / r, positive.
        start : ndarray of shape (n_genes, n_coef)

        Returns
        -------
        ndarray of shape (n_genes, n_coef)
        """
        coef, active = start.copy(), np.arange(len(start), dtype=np.intp)
        for _ in range(_MAX_ITER):
            at = self.of_genes(active).at(coef[active], overdispersion[active])
            residual = at.weight * (self.counts[active] / at.mean - 1.0)
            gradient = residual @ self.design - _RIDGE * coef[active]
            step = np.linalg.solve(at.information, gradient[..., None])[..., 0]
            longest = np.abs(step @ self.design.T).max(axis=1)
            step *= np.minimum(1.0, _MAX_STEP / np.maximum(longest, _MAX_STEP))[:, None]
            coef[active] += step
            active = active[(step * gradient).sum(axis=1) > _TOL]
            if not len(active):
                break
        return coef

    def at(self, coef: FloatArray, overdispersion: FloatArray) -> Fit:
        """Return means, weights and information at given coefficients."""
        predictor = np.clip(coef @ self.design.T + self.offset, -_MAX_PREDICTOR, _MAX_PREDICTOR)
        mean = np.exp(predictor)
        weight = mean / (1.0 + overdispersion[:, None] * mean)
        products = self.design[:, :, None] * self.design[:, None, :]
        flat = products.reshape(len(self.offset), -1)
        information = (weight @ flat).reshape(-1, self.n_coef, self.n_coef)
        information += _RIDGE * np.eye(self.n_coef)
        return Fit(predictor, mean, weight, information)

    def log_likelihood(self, fit: Fit, overdispersion: FloatArray) -> FloatArray:
        """Return log-likelihoods without terms of the counts alone, (n_genes,)."""
        phi = overdispersion[:, None]
        excess = np.log1p(phi * fit.mean)
        log_ratio = gammaln(self.counts + 1 / phi) - gammaln(1 / phi) + self.counts * np.log(phi)
        terms = log_ratio + self.counts * (fit.predictor - excess) - excess / phi
        return np.asarray(terms.sum(axis=1))


class Fit(NamedTuple):
    """A fit: predictors, means and weights, genes x samples, and the information of a gene."""

    predictor: FloatArray
    mean: FloatArray
    weight: FloatArray
    information: FloatArray

    def log_determinant(self) -> FloatArray:
        """Return the log-determinant of each gene's information."""
        return np.asarray(np.linalg.slogdet(self.information)[1])

    def variance(self, contrast: FloatArray) -> FloatArray:
        """Return the covariance of contrasts of each gene, (n_genes, n_rows, n_rows)."""
        solved = np.linalg.solve(self.information, contrast.T[None])
        return np.asarray(contrast @ solved)


def orthonormal(design: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return a design with orthogonal columns, and the matrix from its coefficients to the others'.

    Columns that depend on others have no column of their own. The coefficients returned for them
    have the smallest norm.

    Parameters
    ----------
    design : ndarray of shape (n_samples, n_columns)

    Returns
    -------
    basis : ndarray of shape (n_samples, rank)
    to_coef : ndarray of shape (n_columns, rank)
    """
    left, size, right = np.linalg.svd(design, full_matrices=False)
    kept = size > 1e-9 * size[0]
    root = np.sqrt(len(design))
    return left[:, kept] * root, right[kept].T / size[kept] * root
