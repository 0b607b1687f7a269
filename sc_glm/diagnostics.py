"""How well a fitted model describes counts, cell by cell and gene by gene.

The functions take ``(model, X, y)`` as those of :mod:`sklearn.inspection` do: the model may be a
regressor, a pipeline that ends in one, a search over these, or an
:class:`~sc_glm.adata.AnnDataRegressor`, whose `X` holds the counts, so that `y` stays None. They
work on blocks of genes, so that sparse counts are never made dense as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from scipy import special, stats

from sc_glm.design import PartDesign
from sc_glm.fitted import FittedData
from sc_glm.information import Zeros, expected_information
from sc_glm.sampling import drawn_seed, stream
from sc_glm.status import Status, flat_directions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from sc_glm.distributions import CountDistribution
    from sc_glm.fitted import Block
    from sc_glm.variates import RandomSource

    FloatArray: TypeAlias = NDArray[np.float64]
    Kind: TypeAlias = Literal["quantile", "pearson", "deviance"]
    Genes: TypeAlias = str | Sequence[str] | None
    Seed: TypeAlias = int | RandomSource | None

__all__ = [
    "deviance_residuals",
    "goodness_of_fit",
    "pearson_residuals",
    "quantile_residuals",
    "residual_blocks",
    "zero_test",
]

_LEAST_UNIFORM = 2.0**-54  # in place of a zero, which has no logarithm
_OUTLIER = 0.01  # probability that any cell of a gene is one, under the model


def quantile_residuals(
    model: Any, X: Any, y: Any = None, *, genes: Genes = None, random_state: Seed = None
) -> FloatArray:
    return _residuals(FittedData.of(model, X, y, genes=genes), "quantile", random_state)


def pearson_residuals(model: Any, X: Any, y: Any = None, *, genes: Genes = None) -> FloatArray:
    return _residuals(FittedData.of(model, X, y, genes=genes), "pearson")


def deviance_residuals(model: Any, X: Any, y: Any = None, *, genes: Genes = None) -> FloatArray:
    return _residuals(FittedData.of(model, X, y, genes=genes), "deviance")


def residual_blocks(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    kind: Kind = "quantile",
    genes: Genes = None,
    random_state: Seed = None,
) -> Iterator[tuple[slice, FloatArray]]:
    return _blocks(FittedData.of(model, X, y, genes=genes), kind, random_state)


def zero_test(model: Any, X: Any, y: Any = None) -> pd.DataFrame:
    data = FittedData.of(model, X, y)
    bases = [PartDesign.of(D).U for D in data.designs.values()]
    zeros = _Zeros.join([_zeros(data, bases, block) for block in data.blocks()])
    p_values = zeros.p_values
    return pd.DataFrame(
        {
            "observed": zeros.observed,
            "expected": zeros.expected,
            "ratio": 0,
            "statistic": zeros.statistic,
            "p_value": p_values,
            "p_adjusted": _adjusted(p_values),
            "reason": zeros.reason,
            "V": zeros.variance, "B": zeros.binomial,
        },
        index=pd.Index(data.names),
    )


# Residuals


def _blocks(
    data: FittedData, kind: Kind, random_state: Seed = None
) -> Iterator[tuple[slice, FloatArray]]:
    """Check the kind and draw the seed at once, and compute residuals as they are asked for."""
    compute: Callable[[Block], FloatArray]
    if kind == "quantile":
        compute = _Quantile(data, random_state)
    elif kind in _OF_BLOCK:
        compute = _OF_BLOCK[kind]
    else:
        raise ValueError(f"kind must be one of {['quantile', *_OF_BLOCK]}, got {kind!r}.")
    return ((block.genes, compute(block)) for block in data.blocks())


def _residuals(data: FittedData, kind: Kind, random_state: Seed = None) -> FloatArray:
    residuals = np.empty(data.counts.shape)
    for genes, block in _blocks(data, kind, random_state):
        residuals[:, genes] = block
    return data.shaped(residuals)


def _pearson(block: Block) -> FloatArray:
    error, scale = block.counts - block.dist.mean(), block.dist.std()
    # Where the model is certain of a zero, a zero is as it should be.
    with np.errstate(divide="ignore"):
        return np.divide(error, scale, out=np.zeros_like(error), where=(error != 0) | (scale > 0))


def _deviance(block: Block) -> FloatArray:
    sign = np.sign(block.counts - block.dist.mean())
    return sign * np.sqrt(block.dist.unit_deviance(block.counts))


_OF_BLOCK = {"pearson": _pearson, "deviance": _deviance}


class _Quantile:
    """Quantile residuals of blocks of genes, each gene with random numbers of its own."""

    def __init__(self, data: FittedData, random_state: Seed) -> None:
        self._genes = data.genes
        self._seed = drawn_seed(random_state)

    def __call__(self, block: Block) -> FloatArray:
        uniform = np.empty_like(block.counts, order="F")
        for column, gene in zip(uniform.T, self._genes[block.genes], strict=True):
            stream(self._seed, int(gene)).random(out=column)
        return _normal_quantile(block.counts, block.dist, np.maximum(uniform, _LEAST_UNIFORM))


def _normal_quantile(
    counts: FloatArray, dist: CountDistribution, uniform: FloatArray
) -> FloatArray:
    """Return the normal quantile of ``P(< count) + uniform P(count)``."""
    y = np.rint(counts)
    log_mass = dist.logpmf(y)
    log_lower = np.log(uniform) + log_mass
    positive = y > 0
    below = dist[positive].logcdf(y[positive] - 1)
    log_lower[positive] = np.minimum(np.logaddexp(below, log_lower[positive]), 0.0)
    residuals = special.ndtri_exp(log_lower)
    # Near one, a probability is known by its complement only.
    upper = positive & (log_lower > np.log(0.5))
    above = dist[upper].logsf(y[upper])
    log_upper = np.logaddexp(above, np.log1p(-uniform[upper]) + log_mass[upper])
    residuals[upper] = -special.ndtri_exp(log_upper)
    return residuals


# Zeros


class _Zeros(NamedTuple):
    observed: Any
    expected: Any
    binomial: Any
    variance: Any
    reason: Any
    n_estimated: Any

    @classmethod
    def join(cls, blocks):
        return cls(*(np.concatenate(x) for x in zip(*blocks, strict=True)))

    @property
    def statistic(self):
        return (self.observed - self.expected) / np.sqrt(self.variance)

    @property
    def p_values(self):
        return 2 * stats.norm.sf(np.abs(self.statistic))


def _zeros(data: FittedData, bases, block: Block) -> _Zeros:
    predictors = list(block.predictors.values())
    zeros = Zeros.of(data.family, predictors)
    p = np.exp(zeros.log_mass)
    gradient = np.vstack([U.T @ (p * own) for U, own in zip(bases, zeros.score, strict=True)]).T
    information = _contracted(expected_information(zeros, predictors), bases)
    flat = flat_directions(information, np.zeros(gradient.shape))
    firm = np.eye(information.shape[1]) - flat @ flat.mT
    v = np.einsum("gij,gj->gi", firm, gradient)
    A = firm @ information @ firm + flat @ flat.mT
    explained = (v * np.linalg.solve(A, v[..., None])[..., 0]).sum(1)
    binomial = -(p * np.expm1(zeros.log_mass)).sum(0)
    return _Zeros((block.counts == 0).sum(0), p.sum(0), binomial, binomial - explained,
        np.full(len(v), ""), information.shape[1] - flat.any(axis=1).sum(axis=1))


def _contracted(information, bases):
    stops = np.cumsum([0, *(U.shape[1] for U in bases)])
    n_genes = information[0, 0].shape[1]
    result = np.empty((n_genes, stops[-1], stops[-1]))
    for (a, b), entries in information.items():
        for i, column in enumerate(bases[a].T, stops[a]):
            row = entries.T @ (column[:, None] * bases[b])
            result[:, i, stops[b]:stops[b+1]] = row
            result[:, stops[b]:stops[b+1], i] = row
    return result


def _adjusted(p_values: FloatArray) -> FloatArray:
    """Return p-values adjusted by Benjamini and Hochberg, of the genes that have one."""
    adjusted = np.full_like(p_values, np.nan)
    known = ~np.isnan(p_values)
    adjusted[known] = stats.false_discovery_control(p_values[known])
    return adjusted
