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
it but for a function of count and size alone. With ``m = mu / (r + mu)``, ``q = 1 - m``,
``L = log(1 + mu / r)`` and ``T = (r + y) m``, the log-mass and its derivatives are

.. math::

    \ell = -(r + y) L + y (\eta - \rho) + A(y, r), \qquad
    \ell_\eta = y - T, \qquad \ell_\rho = T - r L - y + A_\rho, \\
    \ell_{\eta\eta} = -T q, \qquad \ell_{\eta\rho} = T q - r m, \qquad
    \ell_{\rho\rho} = 2 r m - r L - T q + A_{\rho\rho},

where :math:`A = \log\Gamma(y + r) - \log\Gamma(r) - \log\Gamma(y + 1)`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sc_glm.special import log1p_and_rest, stirling_error

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


def positive_counts(y: Tensor) -> Counts:
    """Prepare positive counts for :meth:`Family.positives`."""
    log_y = y.log()
    constant = -stirling_error(y).value - 0.5 * (log_y + math.log(2 * math.pi))
    return Counts(y, log_y, constant)


class Shape(NamedTuple):
    """Log-mass of positive counts at ``mu = y``, a function of the count and the size alone.

    ``first`` is ``r d/dr`` and ``second`` is ``r**2 d2/dr2`` of ``value``.
    """

    value: Tensor
    first: Tensor
    second: Tensor


class Rise(NamedTuple):
    """``A(y, r)`` with its first and second derivative in ``rho``."""

    value: Tensor
    first: Tensor
    second: Tensor


class Positives(NamedTuple):
    """Positive counts of a tile, and where they stand in it.

    ``rise`` is None where it is summed elsewhere, ``- y`` in the score of the size included. An
    entry may stand for several cells; ``zeros`` is the share of them that have a count of zero, by
    default none where there is a positive count, and ``y`` and ``rise`` are multiplied by theirs.
    """

    flat: Tensor
    y: Tensor
    rise: Rise | None
    zeros: Tensor | None = None

    def shared(self, shares: Tensor, zeros: Tensor) -> "Positives":
        """Return the same where entries stand for several cells, of which counts have shares."""
        rise = self.rise and Rise(*(x * shares for x in self.rise))
        return Positives(self.flat, self.y * shares, rise, zeros)

    def keep_zeros_(self, at_zeros: Tensor) -> None:
        """Put to zero, in place, what is of cells with a positive count."""
        if self.zeros is None:
            at_zeros.view(-1).index_fill_(0, self.flat, 0.0)
        else:
            at_zeros.mul_(self.zeros)


class Family(Protocol):
    """A distribution of counts in terms of linear predictors."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, in the order of the predictors."""

    def zeros(self, predictors: Sequence[Tensor]) -> Terms:
        """Return the terms of entries with a count of zero."""

    def shape(self, counts: Counts, rho: Tensor) -> Shape:
        """Return what positive counts add to the log-mass through the size alone."""

    def positives(self, counts: Counts, predictors: Sequence[Tensor], shape: Shape) -> Terms:
        """Return the terms of entries with a positive count, given their :meth:`shape`."""

    def tile(self, predictors: Sequence[Tensor], positives: Positives) -> Terms:
        """Return the terms of a tile of genes x cells, accurate as part of a sum over cells.

        The mean's predictor is overwritten; others may have one column for all cells. If the size
        does, ``- y rho`` is left out of the value.
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

    def shape(self, counts: Counts, rho: Tensor) -> Shape:
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
        return Shape(value, r * d_r, r * r * d_rr)

    def positives(self, counts: Counts, predictors: Sequence[Tensor], shape: Shape) -> Terms:
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
        s_rho = deviance_r + shape.first
        h_rr = (s_eta * s_eta).div_(total).add_(s_rho)
        if _reaches(t, _FAR):  # s_eta**2 / total and the -s_eta in deviance_r cancel
            rest = (r / total).add_(m).mul_(-s_eta).add_(r * log)
            h_rr = torch.where(t >= _FAR, rest.add_(shape.first), h_rr)
        return Terms(
            # Not above its maximum, which is at mu = y, by rounding
            deviance_y.add_(deviance_r).clamp_max_(0).add_(shape.value),
            (s_eta, s_rho),
            (-(r * m).mul_(ratio), s_eta * m, h_rr.add_(shape.second)),
        )

    def tile(self, predictors: Sequence[Tensor], positives: Positives) -> Terms:
        """Return the terms of a tile of genes x cells, accurate as part of a sum over cells."""
        eta, rho = predictors
        return _assemble(_negbin(eta, rho, positives), positives)


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

    def shape(self, counts: Counts, rho: Tensor) -> Shape:
        """Return what positive counts add to the log-mass through the size alone."""
        return NegBinFamily().shape(counts, rho)

    def positives(self, counts: Counts, predictors: Sequence[Tensor], shape: Shape) -> Terms:
        """Return the terms of entries with a positive count."""
        *count_predictors, zeta = predictors
        value, (a, b), (h_ee, h_er, h_rr) = NegBinFamily().positives(
            counts, count_predictors, shape
        )
        pi, not_pi = _logistic(zeta)
        none = torch.zeros_like(value)
        return Terms(
            value.add_(torch.maximum(pi, not_pi).log_()).sub_(zeta.clamp_min(0)),
            (a, b, -pi),
            (h_ee, h_er, none, h_rr, none, (pi * not_pi).neg_()),
        )

    def tile(self, predictors: Sequence[Tensor], positives: Positives) -> Terms:
        """Return the terms of a tile of genes x cells, accurate as part of a sum over cells.

        An entry is the negative binomial one with a change that zeros alone have, but for the
        probability ``1 - pi`` of no structural zero.
        """
        eta, rho, zeta = predictors
        at = _negbin(eta, rho, positives)
        pi, not_pi, softplus = _logistic_and_log(zeta)
        c, not_c, gain = _logistic_and_log(zeta + at.r_log)  # c: that a zero is a structural one
        positives.keep_zeros_(c)
        positives.keep_zeros_(gain)
        v = not_c.mul_(c)
        q, a, b = at.q, at.r_m, at.r_log - at.r_m  # scores of a zero, with the other sign
        va, vb = v * a, v * b
        c_a = c * a
        value, (s_eta, s_rho), (h_ee, h_er, h_rr) = _assemble(at, positives)
        c_aq = q.mul_(c_a)
        c_b = c * b
        return Terms(
            value.add_(gain).sub_(softplus),
            (s_eta.add_(c_a), s_rho.add_(c_b), c - pi),
            (
                h_ee.add_(c_aq).addcmul_(va, a),
                h_er.add_(c_a).sub_(c_aq).addcmul_(va, b),
                va,
                # A zero's second derivative in rho is -b - (T q - r m) = -b + r m m
                h_rr.add_(c_b).sub_(c_a).add_(c_aq).addcmul_(vb, b),
                vb,
                v - pi.mul_(not_pi),
            ),
        )


def rise(counts: Counts, rho: Tensor, shape: Shape) -> Rise:
    """Return ``A`` from the log-mass at ``mu = y``, which does not cancel for large sizes."""
    y, r = counts.y, size_of(rho)
    log = (y / r).log1p_()
    r_log = r * log
    first = shape.first + r_log
    return Rise(
        (counts.log_y - rho).sub_(log).mul_(-y).add_(shape.value).add_(r_log),
        first,
        (shape.second + first).sub_(r * y / (r + y)),
    )


class _NegBin(NamedTuple):
    """What the terms of either family are made of."""

    value: Tensor
    r_log: Tensor
    r_m: Tensor
    q: Tensor
    T: Tensor
    T_q: Tensor


def _negbin(eta: Tensor, rho: Tensor, positives: Positives) -> _NegBin:
    """Prepare a tile; ``eta`` is overwritten."""
    flat, y = positives.flat, positives.y
    r = size_of(rho)
    at_counts = (eta if positives.rise is None else eta - rho).view(-1).index_select(0, flat)
    mu = eta.exp_()
    inverse = (mu + r).reciprocal_()
    m, q = mu * inverse, inverse.mul_(r)
    log = mu.mul_(r.reciprocal()).log1p_()
    r_m = m * r
    T = r_m.clone()
    m_y = m.view(-1).index_select(0, flat).mul_(y)
    T.view(-1).scatter_add_(0, flat, m_y)
    at_counts.sub_(log.view(-1).index_select(0, flat)).mul_(y)
    r_log = log.mul_(r)
    value = r_log.neg()
    if positives.rise is not None:
        at_counts += positives.rise.value
    value.view(-1).scatter_add_(0, flat, at_counts)
    return _NegBin(value, r_log, r_m, q, T, T * q)


def _assemble(at: _NegBin, positives: Positives) -> Terms:
    s_rho = at.T - at.r_log
    h_er = at.T_q - at.r_m
    h_rr = (at.r_m - at.r_log).sub_(h_er)
    s_eta = at.T.neg_()
    s_eta.view(-1).scatter_add_(0, positives.flat, positives.y)
    if positives.rise is not None:
        s_rho.view(-1).scatter_add_(0, positives.flat, positives.rise.first - positives.y)
        h_rr.view(-1).scatter_add_(0, positives.flat, positives.rise.second)
    return Terms(at.value, (s_eta, s_rho), (at.T_q.neg_(), h_er, h_rr))


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


def _logistic_and_log(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logistic function at ``x`` and ``-x``, and the logarithm of ``1 + exp(x)``."""
    e = x.abs().neg_().exp_()
    large = (e + 1).reciprocal_()
    small = e * large
    positive = x >= 0
    return (
        torch.where(positive, large, small),
        torch.where(positive, small, large),
        e.log1p_().add_(x.clamp_min(0)),
    )


def _reaches(x: Tensor, bound: float) -> bool:
    """Return whether an element, or a NaN, reaches a bound; much faster than `any` of a mask."""
    return x.numel() > 0 and not bool(x.amax() < bound)
