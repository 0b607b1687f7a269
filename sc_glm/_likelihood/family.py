r"""The count distributions as functions of their linear predictors, with two derivatives.

Every density of the package, its score and its Hessian are written here, once. The predictors are
``eta = log(mu)``, ``rho = log(r)`` (``r`` the size: variance ``mu + mu**2 / r``) and, with zero
inflation, ``zeta = logit(pi)``. Zeros and positive counts have methods of their own: most entries
of a single-cell matrix are zero, and a zero needs no gamma function.

With ``t = (y - mu) / (r + mu)`` the negative binomial log-mass is

.. math::

    r\,[\log(1+t) - t] + y\,[\log(1+w) - w] + C(y, r), \qquad w = -r t / y,

the saddle-point form of Loader (2000): ``C`` is the log-mass at ``mu = y``, and no term grows
where the sum does not, so the Poisson limit needs no special case.

A sum over cells needs less: what cancels in an entry is lost beside the other entries, too. In
``tile`` all entries are taken for zeros, and a positive count adds what is left, which is linear in
it but for a function of count and size alone. With ``m = mu / (r + mu)`` and
``L = log(1 + mu / r)`` the log-mass and its derivatives are

.. math::

    \ell = -r L + y (\eta - \rho - L) + A(y, r), \qquad
    \ell_\eta = y (1 - m) - r m, \qquad \ell_\rho = -r L - \ell_\eta + A_\rho, \\
    \ell_{\eta\rho} = m \ell_\eta, \qquad \ell_{\eta\eta} = -r m - \ell_{\eta\rho}, \qquad
    \ell_{\rho\rho} = r m - r L - \ell_{\eta\rho} + A_{\rho\rho},

where :math:`A = \log\Gamma(y + r) - \log\Gamma(r) - \log\Gamma(y + 1)`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sc_glm._likelihood.special import log1p_and_rest, stirling_error

MEAN, DISPERSION, ZERO_INFLATION = "mean", "dispersion", "zero_inflation"

# Predictors beyond these mean the same: a mean is at most the largest count that a double tells
# from the next, and the size at most what can be squared.
LARGEST_LOG_MEAN = 53 * math.log(2)
LARGEST_LOG_SIZE = 300.0


# From here on another form replaces one whose terms cancel; up to here, that loses two digits.
_FAR = 100.0  # (y - mu) / (r + mu)
_NEARLY_ONE = 0.99  # probability of a positive count


class Terms(NamedTuple):
    """Log-mass per entry with its derivatives in the linear predictors.

    ``score`` has one tensor per part; ``hessian`` one per pair of parts, in the order of
    :func:`pairs`.
    """

    value: Tensor
    score: tuple[Tensor, ...]
    hessian: tuple[Tensor, ...]


def pairs(n_parts: int) -> list[tuple[int, int]]:
    """Return the upper triangle of part pairs, row by row.

    Examples
    --------
    >>> pairs(2)
    [(0, 0), (0, 1), (1, 1)]
    """
    return list(combinations_with_replacement(range(n_parts), 2))


class Counts(NamedTuple):
    """Positive counts and what depends on them alone."""

    y: Tensor
    log_y: Tensor
    constant: Tensor  # -delta(y) - log(2 pi y) / 2

    def at(self, index: Tensor) -> "Counts":
        """Return some of the counts."""
        return Counts(*(x.index_select(0, index) for x in self))


def positive_counts(y: Tensor) -> Counts:
    """Prepare positive counts for :meth:`Family.positives`."""
    log_y = y.log()
    constant = -stirling_error(y).value - 0.5 * (log_y + math.log(2 * math.pi))
    return Counts(y, log_y, constant)


class SaturatedLogMass(NamedTuple):
    """Log-mass of positive counts at ``mu = y``, a function of the count and the size alone.

    ``first`` is ``r d/dr`` and ``second`` is ``r**2 d2/dr2`` of ``value``.
    """

    value: Tensor
    first: Tensor
    second: Tensor


class GammaRatio(NamedTuple):
    """``A(y, r) - y rho``, and the first and second derivative of ``A`` in ``rho``."""

    value: Tensor
    first: Tensor
    second: Tensor


class Family(Protocol):
    """A distribution of counts in terms of linear predictors."""

    def __hash__(self) -> int:
        """Families are values."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, in the order of the predictors."""

    def zeros(self, predictors: Sequence[Tensor]) -> Terms:
        """Return the terms of entries with a count of zero."""

    def saturated(self, counts: Counts, rho: Tensor) -> SaturatedLogMass:
        """Return what positive counts add to the log-mass through the size alone."""

    def positives(
        self, counts: Counts, predictors: Sequence[Tensor], saturated: SaturatedLogMass
    ) -> Terms:
        """Return the terms of entries with a positive count, given their :meth:`saturated`."""

    def tile(self, predictors: Sequence[Tensor], y: Tensor, zeros: Tensor | None = None) -> Terms:
        """Return the terms of a tile of genes x cells, accurate as part of a sum over cells.

        What counts add through the size alone, their :func:`gamma_ratio`, is left out.

        Parameters
        ----------
        predictors : sequence of Tensor of shape (n_genes, n_cells)
            That of the mean is overwritten. Others may have one column for all cells.
        y : Tensor of shape (n_genes, n_cells)
            Counts. An entry may stand for several cells; then it is their mean.
        zeros : Tensor of shape (n_genes, n_cells), optional
            Share of these cells that have a count of zero. By default, an entry is one cell.
        """


@dataclass(frozen=True)
class NegBinFamily:
    """Negative binomial with log links for the mean and the size."""

    parts: tuple[str, ...] = (MEAN, DISPERSION)

    def zeros(self, predictors: Sequence[Tensor]) -> Terms:
        """Return the terms of entries with a count of zero."""
        eta, rho = predictors
        mu, r = _bounded(eta).exp_(), size_of(rho)
        inverse = (mu + r).reciprocal_()
        m = mu * inverse
        q = (r * inverse).clamp_min_(torch.finfo(mu.dtype).tiny)
        log, rest = log1p_and_rest(-m, q)
        s_eta = -(m * r)
        s_rho = rest.mul_(r)
        h_er = s_eta * m
        return Terms(log.mul_(r), (s_eta, s_rho), (s_eta * q, h_er, s_rho - h_er))

    def saturated(self, counts: Counts, rho: Tensor) -> SaturatedLogMass:
        """Return what positive counts add to the log-mass through the size alone."""
        y = counts.y
        r = size_of(rho)
        total = r + y
        both = stirling_error(torch.cat([total, r]))
        value, first, second = (x[: len(y)] - x[len(y) :] for x in both)
        inverse_r, inverse_total = r.reciprocal(), total.reciprocal()
        difference = y * inverse_r * inverse_total  # 1/r - 1/(r + y)
        value = value - 0.5 * (y * inverse_r).log1p() + counts.constant
        d_r = first + 0.5 * difference
        d_rr = second - 0.5 * difference * (inverse_total + inverse_r)
        return SaturatedLogMass(value, r * d_r, r * r * d_rr)

    def positives(
        self, counts: Counts, predictors: Sequence[Tensor], saturated: SaturatedLogMass
    ) -> Terms:
        """Return the terms of entries with a positive count."""
        eta, rho = _bounded(predictors[0]), predictors[1]
        y = counts.y
        mu, r = eta.exp(), size_of(rho)
        inverse = (mu + r).reciprocal_()
        total = r + y
        m = mu * inverse
        t = (y - mu).mul_(inverse)
        ratio = total * inverse
        s_eta = r * t
        log, rest = log1p_and_rest(t, ratio)
        # y log(M / y) - (M - y) for M = mu ratio, with log(mu) as given: mu itself may underflow
        deviance_y = (eta - counts.log_y).add_(log).mul_(y).add_(s_eta)
        deviance_r = rest.mul_(r)
        s_rho = deviance_r + saturated.first
        h_rr = (s_eta * s_eta).div_(total).add_(s_rho)
        if _reaches(t, _FAR):  # s_eta**2 / total and the -s_eta in deviance_r cancel
            rest = (r / total).add_(m).mul_(-s_eta).add_(r * log)
            h_rr = torch.where(t >= _FAR, rest.add_(saturated.first), h_rr)
        return Terms(
            # Not above its maximum, which is at mu = y, by rounding
            deviance_y.add_(deviance_r).clamp_max_(0).add_(saturated.value),
            (s_eta, s_rho),
            (-(r * m).mul_(ratio), s_eta * m, h_rr.add_(saturated.second)),
        )

    def tile(
        self,
        predictors: Sequence[Tensor],
        y: Tensor,
        zeros: Tensor | None = None,  # noqa: ARG002 - they have the terms of any count
    ) -> Terms:
        """Return the terms of a tile of genes x cells, accurate as part of a sum over cells."""
        eta, rho = predictors
        raw = _Raw.of(eta, rho, y)
        return Terms(raw.of_counts.add_(raw.log_zero), *_derivatives(raw, y))


@dataclass(frozen=True)
class ZINBFamily:
    """Negative binomial with a logit-linked probability of structural zeros."""

    parts: tuple[str, ...] = (MEAN, DISPERSION, ZERO_INFLATION)

    def zeros(self, predictors: Sequence[Tensor]) -> Terms:
        """Return the terms of entries with a count of zero."""
        *count_predictors, zeta = predictors
        nb, (a, b), (h_ee, h_er, h_rr) = NegBinFamily().zeros(count_predictors)
        pi, not_pi = _logistic(zeta)
        structural, s = _logistic(zeta - nb)  # s: that the zero is a sampled one
        more = nb.expm1().neg_().mul_(not_pi)  # probability of more than zero
        value = (-more).log1p_()
        if _reaches(more, _NEARLY_ONE):  # 1 - more cancels, and the sum of two masses does not
            log_sum = (not_pi / torch.maximum(s, structural)).log_().add_(torch.maximum(nb, zeta))
            value = torch.where(more >= _NEARLY_ONE, log_sum, value)
        s_eta, s_rho = s * a, s * b
        s_zeta = structural * more  # structural - pi
        va, vb = s_eta * structural, s_rho * structural
        return Terms(
            value,
            (s_eta, s_rho, s_zeta),
            (
                h_ee.mul_(s).add_(va * a),
                h_er.mul_(s).add_(va * b),
                va.neg_(),
                h_rr.mul_(s).add_(vb * b),
                vb.neg_(),
                s.sub_(pi).mul_(s_zeta),
            ),
        )

    def saturated(self, counts: Counts, rho: Tensor) -> SaturatedLogMass:
        """Return what positive counts add to the log-mass through the size alone."""
        return NegBinFamily().saturated(counts, rho)

    def positives(
        self, counts: Counts, predictors: Sequence[Tensor], saturated: SaturatedLogMass
    ) -> Terms:
        """Return the terms of entries with a positive count."""
        *count_predictors, zeta = predictors
        value, (a, b), (h_ee, h_er, h_rr) = NegBinFamily().positives(
            counts, count_predictors, saturated
        )
        pi, not_pi = _logistic(zeta)
        none = torch.zeros_like(value)
        return Terms(
            value.add_(torch.maximum(pi, not_pi).log_()).sub_(zeta.clamp_min(0)),
            (a, b, -pi),
            (h_ee, h_er, none, h_rr, none, (pi * not_pi).neg_()),
        )

    def tile(self, predictors: Sequence[Tensor], y: Tensor, zeros: Tensor | None = None) -> Terms:
        """Return the terms of a tile of genes x cells, accurate as part of a sum over cells.

        An entry is the negative binomial one with a change that zeros alone have, but for the
        probability ``1 - pi`` of no structural zero.
        """
        eta, rho, zeta = predictors
        raw = _Raw.of(eta, rho, y)
        # A positive count is no structural zero, not even to the last digit.
        of_zeros = torch.where(y > 0, -torch.inf, zeta) if zeros is None else zeta
        not_c, c = _logistic(raw.log_zero - of_zeros)  # c: that a zero is a structural one
        # Of the two reasons for a zero the likelier one: what is not taken cannot cancel
        value = torch.maximum(of_zeros, raw.log_zero).sub_(torch.maximum(c, not_c).log_())
        minus_v = (c * not_c).neg_()
        if zeros is not None:
            value = torch.lerp(raw.log_zero, value, zeros)
            not_c = torch.lerp(torch.ones_like(c), not_c, zeros)
            c, minus_v = c.mul_(zeros), minus_v.mul_(zeros)
        value = value.add_(raw.of_counts)
        a, b = raw.slope, raw.log_zero - raw.slope  # a zero's scores
        sampled = raw._replace(log_zero=raw.log_zero.mul_(not_c), slope=not_c.mul_(a))
        (s_eta, s_rho), (h_ee, h_er, h_rr) = _derivatives(sampled, y)
        h_ez, h_rz = minus_v * a, minus_v * b
        pi, not_pi = _logistic(zeta)
        log_not_pi = torch.maximum(pi, not_pi).log_().sub_(zeta.clamp_min(0))
        return Terms(
            value.add_(log_not_pi),
            (s_eta, s_rho, c.sub_(pi)),
            (
                h_ee.addcmul_(h_ez, a, value=-1),
                h_er.addcmul_(h_ez, b, value=-1),
                h_ez,
                h_rr.addcmul_(h_rz, b, value=-1),
                h_rz,
                minus_v.add_(pi.mul_(not_pi)).neg_(),
            ),
        )


def gamma_ratio(counts: Counts, rho: Tensor) -> GammaRatio:
    """Return ``A`` from the log-mass at ``mu = y``, which does not cancel for large sizes."""
    y, r = counts.y, size_of(rho)
    saturated = NegBinFamily().saturated(counts, rho)
    log = (y / r).log1p_()
    first = saturated.first + r * log
    return GammaRatio(
        saturated.value - y * counts.log_y + (r + y) * log,
        first,
        (saturated.second + first).sub_(r * y / (r + y)),
    )


class _Raw(NamedTuple):
    """What the terms of a tile are made of."""

    log_zero: Tensor  # log-mass of a zero, -r L
    slope: Tensor  # its derivative in the mean's predictor, -r m
    m: Tensor
    of_counts: Tensor  # y (eta - rho - L)

    @classmethod
    def of(cls, eta: Tensor, rho: Tensor, y: Tensor) -> "_Raw":
        """Prepare a tile; ``eta`` is overwritten."""
        r = size_of(rho)
        mu = eta.exp()
        log = (mu * r.reciprocal()).log1p_()
        of_counts = eta.sub_(log).mul_(y)
        m = (mu + r).reciprocal_().mul_(mu)
        minus_r = r.neg_()
        return cls(log.mul_(minus_r), m * minus_r, m, of_counts)


def _derivatives(
    raw: _Raw, y: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return the negative binomial score and Hessian of a tile; the slope is overwritten."""
    log_zero, slope, m, _ = raw
    s_eta = (slope + y).addcmul_(y, m, value=-1)
    h_er = s_eta * m
    s_rho = log_zero - s_eta
    h_rr = (log_zero - slope).sub_(h_er)
    return (s_eta, s_rho), (slope.sub_(h_er), h_er, h_rr)


def _bounded(eta: Tensor) -> Tensor:
    """Return a copy of ``eta`` that is no larger than the logarithm of any count."""
    return eta.clamp_max(LARGEST_LOG_MEAN)


def size_of(rho: Tensor) -> Tensor:
    """Return ``exp(rho)`` within bounds whose squares neither overflow nor underflow.

    Beyond them the likelihood is that of its limit, Poisson or a point mass at zero.
    """
    bound = min(LARGEST_LOG_SIZE, 0.45 * math.log(torch.finfo(rho.dtype).max))
    return rho.clamp(-bound, bound).exp_()


def _logistic(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logistic function at ``x`` and ``-x``, both to full accuracy.

    Unlike torch's own, it rounds an element alike wherever that stands in a tensor.
    """
    # Not infinite, which has no product with a reciprocal of zero
    odds = x.neg().exp_().clamp_max_(1 / torch.finfo(x.dtype).tiny)
    value = (odds + 1).reciprocal_()
    return value, odds.mul_(value)


def _reaches(x: Tensor, bound: float) -> bool:
    """Return whether an element, or a NaN, reaches a bound; much faster than `any` of a mask."""
    return x.numel() > 0 and not bool(x.amax() < bound)
