r"""How uncertain linear combinations of estimated coefficients are, and why some are unknown.

With the observed information :math:`I` and its inverse :math:`B`, the covariance is

- ``observed``: :math:`B`;
- ``robust``: :math:`B \sum_i w_i^2 s_i s_i^\top B` with the scores :math:`s_i` of the cells, the
  sandwich HC0 (White 1982);
- ``cluster``: :math:`B \sum_g \tilde s_g \tilde s_g^\top B` with the scores of groups of cells,
  each enlarged by what the fit takes off it, :math:`\tilde s_g = (1 - I_g B)^{-1/2} s_g`. It is the
  bias-reduced estimate CR2 (Bell and McCaffrey 2002, Survey Methodology 28: 169), here in terms of
  a group's information :math:`I_g`. The plain sum of products is too small if groups are few.

Few groups, or cells, estimate a variance badly, too. Tests and intervals refer to an F or t
distribution whose degrees of freedom are those that the estimated covariance of the tested
combinations has if the model is right (Satterthwaite's for one, and for several together those of
Pustejovsky and Tipton 2018, Journal of Business & Economic Statistics 36: 672, "AHZ"). For single
cells that is the number that share the information, if each had as much.

Combinations along which a gene's likelihood is flat have no variance. The others have the one that
they have whatever these are, which is that of a fit without them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.linalg import block_diag

from sc_glm._contract.validation import group_codes
from sc_glm._solver.fitting import map_blocks
from sc_glm._solver.status import COEFFICIENT_SHARE, FLAT_INFORMATION, flat_directions
from sc_glm.inference.effective_sample_size import effective_sample_size, inverse_root
from sc_glm.inference.observed_information import (
    Clusters,
    Curvature,
    by_cluster,
    curvature,
    products_of_scores,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._counts.count_matrix import CountMatrix
    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm._solver.gene_block import Designs
    from sc_glm.inference.fitted_model import FittedData

_KINDS = ("observed", "robust", "cluster")

_FURTHER = 20.0  # units of a predictor, in which a mean of next to nothing falls to nothing
_ROUNDING = 1e-14  # of the largest curvature
_ONE_GROUP = 0.99  # of a variance that groups tell when each is enlarged; less, if one tells alone
_ALONE = 1e-6  # share of a direction's information outside of one group, below which that is alone
_SAME_FIT = {"float64": 1e-6, "float32": 1e-3}  # of a log-likelihood, as it may differ by rounding
_LEAST_CELLS = 2.0  # that tell of a combination
_CLUSTER_ENTRIES = 20_000_000  # of groups' informations at a time


@dataclass(frozen=True)
class LinearCombinations:
    """Linear combinations of a model's coefficients, some tested together.

    Attributes
    ----------
    of_coef : ndarray of shape (n_tests, n_together, n_coef)
        Of the coefficients of all parts, one part after the other.
    of_theta : ndarray of shape (n_tests, n_together, n_params)
        The same of the coordinates.
    estimable : ndarray of bool of shape (n_tests,)
        Whether they follow from the predictors of the fit's cells, whatever aliased coefficients
        are.
    """

    of_coef: FloatArray
    of_theta: FloatArray
    estimable: NDArray[np.bool_]

    @classmethod
    def of(cls, of_coef: FloatArray, designs: Designs) -> LinearCombinations:
        """Translate combinations of coefficients."""
        to_coef = block_diag(*[part.to_coef for part in designs.parts.values()])
        nulls = [part.null for part in designs.parts.values()]
        stops = np.cumsum([len(null.scale) for null in nulls])[:-1]
        flat = of_coef.reshape(-1, of_coef.shape[2])
        pieces = zip(nulls, np.split(flat, stops, axis=1), strict=True)
        is_open = np.any([null.not_estimable(piece) for null, piece in pieces], axis=0)
        estimable = ~is_open.reshape(of_coef.shape[:2]).any(axis=1)
        return cls(of_coef, of_coef @ to_coef, estimable)


@dataclass(frozen=True)
class Uncertainty:
    """What is known of genes' estimates, and of combinations of them.

    Attributes
    ----------
    log_likelihood : ndarray of shape (n_genes,)
        Without a penalty.
    covariance : ndarray of shape (n_genes, n_params, n_params)
        Of the coordinates.
    at_maximum : ndarray of bool of shape (n_genes,)
        Whether no direction leads up.
    flat : ndarray of bool of shape (n_genes, n_tests)
        Whether the likelihood of a combination is flat.
    told : ndarray of bool of shape (n_genes, n_tests)
        Whether more than one group, or cell, tells of a combination.
    df : ndarray of shape (n_genes, n_tests)
        Degrees of freedom with which the covariance of a combination is estimated.
    """

    log_likelihood: FloatArray
    covariance: FloatArray
    at_maximum: NDArray[np.bool_]
    flat: NDArray[np.bool_]
    told: NDArray[np.bool_]
    df: FloatArray

    @classmethod
    def join(cls, blocks: Sequence[Uncertainty]) -> Uncertainty:
        """Put blocks of genes one after the other."""
        return cls(
            *(
                np.concatenate([getattr(block, field.name) for block in blocks])
                for field in fields(cls)
            )
        )


@dataclass(frozen=True)
class CovarianceMethod:
    """How a covariance is estimated, from which designs, and from which groups of cells.

    Attributes
    ----------
    kind : {"observed", "robust", "cluster"}
    designs : Designs
    clusters : Clusters or None
        Given for ``"cluster"`` alone.
    held : ndarray of bool of shape (n_params,)
        Coordinates that are taken as known.
    """

    kind: str
    designs: Designs
    clusters: Clusters | None
    held: NDArray[np.bool_]


def covariance_method(
    kind: str, fitted: FittedData, groups: ArrayLike | None, sample_weight: ArrayLike | None
) -> tuple[CovarianceMethod, CountMatrix]:
    """Check how a covariance is wanted; also return the counts of the cells that have a weight.

    Raises
    ------
    ValueError
        If the kind is none of these, or groups are missing, too few, or of no use.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {list(_KINDS)}, not {kind!r}.")
    if (groups is None) == (kind == "cluster"):
        what = (
            "needs groups, a label for each cell, such as groups=obs['donor']"
            if groups is None
            else "takes no groups: these go with kind='cluster'"
        )
        raise ValueError(f"kind={kind!r} {what}.")
    weights = fitted.weights(sample_weight)
    counts, designs = fitted.weighted(weights)
    held = _held(fitted, designs)
    if groups is None:
        return CovarianceMethod(kind, designs, None, held), counts
    _, codes = np.unique(
        group_codes(groups, fitted.X, len(weights))[weights > 0], return_inverse=True
    )
    if codes.max() < 1:
        raise ValueError("groups are all the same: at least two are needed.")
    return CovarianceMethod(kind, designs, Clusters.of(codes, designs), held), counts


def uncertainty(
    fitted: FittedData, counts: CountMatrix, how: CovarianceMethod, combinations: LinearCombinations
) -> Uncertainty:
    """Find how uncertain combinations of all genes' coefficients are.

    Raises
    ------
    ValueError
        If the counts, covariates or weights are not those of the fit.
    """
    theta = fitted.coordinates(how.designs)
    most_genes = math.inf
    if how.clusters is not None:
        most_genes = max(1, _CLUSTER_ENTRIES // (len(how.clusters.designs) * theta.shape[1] ** 2))
    found = map_blocks(
        _of_block,
        counts,
        how.designs,
        [theta],
        fitted.family,
        how,
        combinations.of_theta,
        n_jobs=fitted.regressor.n_jobs,
        most_genes=most_genes,
    )
    result = Uncertainty.join(found)
    _check_same_fit(fitted, result.log_likelihood)
    return result


def log_likelihoods(fitted: FittedData, counts: CountMatrix, designs: Designs) -> FloatArray:
    """Return each gene's log-likelihood, without a penalty, from the data of the fit.

    Raises
    ------
    ValueError
        If they are others.
    """
    how = CovarianceMethod("observed", designs, None, _held(fitted, designs))
    nothing = LinearCombinations.of(np.empty((0, 1, fitted.n_coef)), designs)
    return uncertainty(fitted, counts, how, nothing).log_likelihood


def _held(fitted: FittedData, designs: Designs) -> NDArray[np.bool_]:
    """Tell which coordinates are those of held parts."""
    ranks = [part.to_coef.shape[1] for part in designs.parts.values()]
    return np.repeat([part in fitted.held for part in designs.parts], ranks)


def is_of_fit(
    fitted: FittedData, log_likelihood: FloatArray, genes: slice = slice(None)
) -> NDArray[np.bool_]:
    """Tell for which genes a log-likelihood, of some data, is that of the fit but for rounding."""
    expected = fitted.log_likelihood[genes]
    slack = _SAME_FIT[fitted.regressor.dtype] * (1 + np.abs(expected))
    return np.asarray(~(np.abs(log_likelihood - expected) > slack))


def _check_same_fit(fitted: FittedData, value: FloatArray) -> None:
    expected = fitted.log_likelihood
    differs = ~is_of_fit(fitted, value)
    if differs.any():
        gene = int(np.argmax(differs))
        raise ValueError(
            "X, y and sample_weight must be those of the fit: the log-likelihood of gene "
            f"{fitted.names[gene]!r} is {value[gene]:.10g} here, and was {expected[gene]:.10g} "
            f"there ({int(differs.sum())} gene(s) differ)."
        )


class _Groups(NamedTuple):
    """Groups of cells in coordinates in which the whole information of a gene is one.

    Attributes
    ----------
    scores : ndarray of shape (n_genes, n_groups, n_params)
        Enlarged by what the fit takes off them.
    enlarging : ndarray of shape (n_genes, n_groups, n_params, n_params)
        The matrices by which they are.
    information : ndarray of shape (n_genes, n_groups, n_params, n_params)
        Each group's share of the information.
    """

    scores: FloatArray
    enlarging: FloatArray
    information: FloatArray

    @classmethod
    def of(cls, groups: Sequence[Curvature], root: FloatArray) -> _Groups:
        """Enlarge the groups' scores; ``root @ root.T`` is the inverse of the information."""
        root = root[:, None]
        information = (
            _transposed(root) @ np.stack([group.information for group in groups], 1) @ root
        )
        shares, vectors = np.linalg.eigh(information)
        others = 1 - shares
        # What one group alone tells, it tells exactly: nothing is left of its score.
        factors = np.where(others > _ALONE, 1 / np.sqrt(np.maximum(others, _ALONE)), 0.0)
        enlarging = vectors * factors[..., None, :] @ _transposed(vectors)
        gradients = np.stack([group.gradient for group in groups], 1)[..., None]
        scores = (enlarging @ _transposed(root) @ gradients)[..., 0]
        return cls(scores, enlarging, information)

    def degrees_of_freedom(self, test: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Return those of a covariance of combinations, and whether groups tell all of it.

        Groups' scores ``u`` have the covariance of a right model, ``M_g`` for a group and less
        ``M_g M_h`` for any two, as they add up to zero.

        Parameters
        ----------
        test : ndarray of shape (n_genes, n_together, n_params)
        """
        q = test.shape[1]
        weights = test[:, None] @ self.enlarging
        R = weights @ self.information
        D = R @ _transposed(weights)
        expected = (D - R @ _transposed(R)).sum(1)
        own, whole = (np.einsum("gqq->gq", x) for x in (expected, test @ _transposed(test)))
        told = own > _ONE_GROUP * whole
        white, firm = inverse_root(expected)
        told, white = told.all(axis=1) & firm, white[:, None]
        R, D = white @ R, white @ D @ white
        flat = R.reshape(*R.shape[:2], -1)
        T = (_transposed(flat) @ flat).reshape(-1, *2 * R.shape[2:])
        trace, square = np.einsum("gcqq->gc", D), (R**2).sum(axis=(2, 3))
        spread = (
            (trace**2 - 2 * trace * square + (D * _transposed(D)).sum(axis=(2, 3))).sum(1)
            - 2 * np.einsum("gcqr,gcqk,gcrk->g", D, R, R)
            + (T**2).sum(axis=(1, 2, 3, 4))
            + np.einsum("gsktl,gtksl->g", T, T)
        )
        return q * (q + 1) / np.where(told, spread, 1.0), told


def _further(
    at: Curvature, flat: FloatArray, theta: FloatArray, evaluate: Callable[..., Curvature]
) -> tuple[FloatArray, FloatArray]:
    """Return points further on the way of what runs to infinity, and the information there.

    A fit stops where no more is to be gained, and there the other coefficients still feel a little
    of what is not yet infinite. A point that turns out to be lower is no such way, and not taken.
    """
    theta, information = theta.copy(), at.information.copy()
    slopes = np.einsum("gkf,gk->gf", flat, at.gradient)
    further = theta + _FURTHER * np.einsum("gkf,gf->gk", flat, np.sign(slopes))
    genes = np.flatnonzero(flat.any(axis=(1, 2)))
    if len(genes):
        there = evaluate(genes, further[genes])
        kept = there.value >= at.value[genes]
        theta[genes[kept]] = further[genes[kept]]
        information[genes[kept]] = there.information[kept]
    return theta, information


def _transposed(matrices: FloatArray) -> FloatArray:
    return np.swapaxes(matrices, -1, -2)


def _of_block(
    counts: Any, theta: FloatArray, family: Family, how: CovarianceMethod, tests: FloatArray
) -> Uncertainty:
    designs, clusters = how.designs, how.clusters
    known = np.asarray(np.isfinite(theta).all(axis=1))
    theta = np.where(known[:, None], theta, 0.0)

    def evaluate(genes: Any, point: FloatArray) -> Curvature:
        return curvature(family, counts[genes], designs, point).holding(how.held)

    at = evaluate(slice(None), theta)
    flat = flat_directions(at.information, theta)
    theta, information = _further(at, flat, theta, evaluate)
    values, vectors = np.linalg.eigh(information)
    firm = values > _ROUNDING * values[:, -1:]
    # A root of the inverse
    root = vectors * np.where(firm, 1 / np.sqrt(np.where(firm, values, 1.0)), 0.0)[:, None]
    inverse = root @ _transposed(root)
    shape = len(theta), len(tests)
    told, df = np.ones(shape, dtype=bool), np.full(shape, np.inf)
    covariance = inverse
    if how.kind == "robust":
        products = products_of_scores(family, counts, designs, theta)
        covariance = inverse @ products @ inverse
        df = effective_sample_size(family, designs, theta, tests)
        told = df >= _LEAST_CELLS
    if clusters is not None:
        by_group = by_cluster(family, counts, clusters, theta)
        groups = _Groups.of([group.holding(how.held) for group in by_group], root)
        combined = np.einsum("gkl,gcl->gck", root, groups.scores)
        covariance = _transposed(combined) @ combined
        for number, test in enumerate(tests):
            df[:, number], told[:, number] = groups.degrees_of_freedom(test @ root)
    along = np.linalg.norm(np.einsum("tqk,gkf->gtqf", tests, flat), axis=3)
    size = np.linalg.norm(tests, axis=2)
    return Uncertainty(
        np.where(known, at.value, np.nan),
        covariance,
        known & np.asarray((values > -FLAT_INFORMATION).all(axis=1)),
        (along > COEFFICIENT_SHARE * size).any(axis=2),
        told,
        df,
    )
