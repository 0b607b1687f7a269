r"""The log-mass of count distributions as a function of linear predictors, with two derivatives.

Every log-mass of the package, its score and its Hessian are written here, once. The predictors are
``eta = log(mu)``, ``rho = log(r)`` with the size ``r`` of the variance ``mu + mu**2 / r`` and, with
zero inflation, ``zeta = logit(pi)``. Zeros and positive counts have separate methods: most entries
of a single-cell matrix are zero, and a zero needs no gamma function.

With ``t = (y - mu) / (r + mu)`` the negative binomial log-mass is

.. math::

    r\,[\log(1+t) - t] + y\,[\log(1+w) - w] + C(y, r), \qquad w = -r t / y,

the saddle-point form of Loader (2000). Here ``C`` is the saturated log-mass, at ``mu = y``. No term
grows where the sum does not, so that the Poisson limit needs no special case.

Sums over cells allow a simpler form, as digits that cancel in an entry are smaller than rounding
errors of the sum. The method ``tile`` computes the terms of a zero for all entries. A positive
count adds terms that are linear in the count, and the log gamma ratio ``A`` of count and size. With
``m = mu / (r + mu)`` and ``L = log(1 + mu / r)`` the log-mass and its derivatives are

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

# Largest predictor of a mean. A double represents all whole numbers up to this mean.
LARGEST_LOG_MEAN = 53 * math.log(2)

# Largest absolute value of a log size. The square of the size neither overflows nor underflows.
LARGEST_LOG_SIZE = 300.0

# Limits from which on another formula is used, as terms of the first one cancel. Below them, it
# loses two digits: (y - mu) / (r + mu), and the probability of a positive count.
_LARGE_DEVIATION = 100.0
_PROBABLY_POSITIVE = 0.99


class Terms(NamedTuple):
    """Log-mass of entries with its derivatives in the linear predictors.

    Attributes
    ----------
    value : Tensor
        Log-mass of each entry.
    score : tuple of Tensor
        First derivative in the predictor of each part.
    hessian : tuple of Tensor
        Second derivative in each pair of predictors, in the order of :func:`pairs`.
    """

    value: Tensor
    score: tuple[Tensor, ...]
    hessian: tuple[Tensor, ...]


def pairs(n_parts: int) -> list[tuple[int, int]]:
    """Return all pairs of parts: the upper triangle of their Hessian, row by row.

    Examples
    --------
    >>> pairs(2)
    [(0, 0), (0, 1), (1, 1)]
    """
    return list(combinations_with_replacement(range(n_parts), 2))


class Counts(NamedTuple):
    """Positive counts, with functions of them that do not depend on parameters."""

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
    """Log gamma ratio of counts: ``A(y, r) - y rho``, and two derivatives of ``A`` in ``rho``."""

    value: Tensor
    first: Tensor
    second: Tensor


class Family(Protocol):
    """A distribution of counts in terms of linear predictors."""

    def __hash__(self) -> int:
        """Return the same hash for equal families."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, in the order of the predictors."""

    def zeros(self, predictors: Sequence[Tensor]) -> Terms:
        """Return the terms of entries with a count of zero."""

    def log_mass_of_zero(self, predictors: Sequence[Tensor]) -> Tensor:
        """Return the value of :meth:`zeros` alone; predictors may have shapes that broadcast."""

    def saturated(self, counts: Counts, rho: Tensor) -> SaturatedLogMass:
        """Return the saturated log-mass of positive counts, a function of count and size."""

    def positives(
        self, counts: Counts, predictors: Sequence[Tensor], saturated: SaturatedLogMass
    ) -> Terms:
        """Return the terms of entries with a positive count, given the saturated log-mass."""

    def tile(self, predictors: Sequence[Tensor], y: Tensor, zeros: Tensor | None = None) -> Terms:
        """Return the terms of a tile of genes x cells, accurate as part of a sum over cells.

        The :func:`gamma_ratio` of the counts is not included.

        Parameters
        ----------
        predictors : sequence of Tensor of shape (n_genes, n_cells)
            Linear predictors. The predictor of the mean is overwritten. Other predictors may have
            one column for all cells.
        y : Tensor of shape (n_genes, n_cells)
            Counts. An entry may stand for several cells; then it is their mean count.
        zeros : Tensor of shape (n_genes, n_cells), optional
            Share of zeros among the cells of an entry. By default, an entry is one cell.
        """


@dataclass(frozen=True)
class NegBinFamily:
    """Negative binomial with log links for the mean and the size."""

    parts: tuple[str, ...] = (MEAN, DISPERSION)

    def zeros(self, predictors: Sequence[Tensor]) -> Terms:
        """Return the terms of entries with a count of zero."""
        eta, rho = predictors
        mu, r = _bounded(eta).exp_(), bounded_size(rho)
        inverse = (mu + r).reciprocal_()
        m = mu * inverse
        q = (r * inverse).clamp_min_(torch.finfo(mu.dtype).tiny)
        log, rest = log1p_and_rest(-m, q)
        s_eta = -(m * r)
        s_rho = rest.mul_(r)
        h_er = s_eta * m
        return Terms(log.mul_(r), (s_eta, s_rho), (s_eta * q, h_er, s_rho - h_er))

    def log_mass_of_zero(self, predictors: Sequence[Tensor]) -> Tensor:
        """Return the value of :meth:`zeros` alone; predictors may have shapes that broadcast."""
        eta, rho = predictors
        r = bounded_size(rho)
        return (_bounded(eta).exp_() * r.reciprocal()).log1p_() * r.neg_()

    def saturated(self, counts: Counts, rho: Tensor) -> SaturatedLogMass:
        """Return the saturated log-mass of positive counts, a function of count and size."""
        y = counts.y
        r = bounded_size(rho)
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
        mu, r = eta.exp(), bounded_size(rho)
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
        if _reaches(t, _LARGE_DEVIATION):  # s_eta**2 / total and the -s_eta in deviance_r cancel
            rest = (r / total).add_(m).mul_(-s_eta).add_(r * log)
            h_rr = torch.where(t >= _LARGE_DEVIATION, rest.add_(saturated.first), h_rr)
        return Terms(
            # Rounding must not lift the value above its maximum at mu = y.
            deviance_y.add_(deviance_r).clamp_max_(0).add_(saturated.value),
            (s_eta, s_rho),
            (-(r * m).mul_(ratio), s_eta * m, h_rr.add_(saturated.second)),
        )

    def tile(
        self,
        predictors: Sequence[Tensor],
        y: Tensor,
        zeros: Tensor | None = None,  # noqa: ARG002 - the terms are linear in the count
    ) -> Terms:
        """Return the terms of a tile of genes x cells, accurate as part of a sum over cells."""
        eta, rho = predictors
        parts = _TileParts.of(eta, rho, y)
        return Terms(parts.of_counts.add_(parts.log_zero), *_derivatives(parts, y))


@dataclass(frozen=True)
class ZINBFamily:
    """Negative binomial with a logit-linked probability of structural zeros."""

    parts: tuple[str, ...] = (MEAN, DISPERSION, ZERO_INFLATION)

    def zeros(self, predictors: Sequence[Tensor]) -> Terms:
        """Return the terms of entries with a count of zero."""
        *count_predictors, zeta = predictors
        nb, (a, b), (h_ee, h_er, h_rr) = NegBinFamily().zeros(count_predictors)
        pi, not_pi = logistic(zeta)
        structural, s = logistic(zeta - nb)  # posterior probabilities; s: of a sampled zero
        value, positive = _inflated_zero(nb, zeta, not_pi)
        s_eta, s_rho = s * a, s * b
        s_zeta = structural * positive  # equals structural - pi
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

    def log_mass_of_zero(self, predictors: Sequence[Tensor]) -> Tensor:
        """Return the value of :meth:`zeros` alone; predictors may have shapes that broadcast."""
        *count_predictors, zeta = predictors
        nb = NegBinFamily().log_mass_of_zero(count_predictors)
        return _inflated_zero(nb, zeta, logistic(zeta)[1])[0]

    def saturated(self, counts: Counts, rho: Tensor) -> SaturatedLogMass:
        """Return the saturated log-mass of positive counts, a function of count and size."""
        return NegBinFamily().saturated(counts, rho)

    def positives(
        self, counts: Counts, predictors: Sequence[Tensor], saturated: SaturatedLogMass
    ) -> Terms:
        """Return the terms of entries with a positive count."""
        *count_predictors, zeta = predictors
        value, (a, b), (h_ee, h_er, h_rr) = NegBinFamily().positives(
            counts, count_predictors, saturated
        )
        pi, not_pi = logistic(zeta)
        none = torch.zeros_like(value)
        return Terms(
            value.add_(torch.maximum(pi, not_pi).log_()).sub_(zeta.clamp_min(0)),
            (a, b, -pi),
            (h_ee, h_er, none, h_rr, none, (pi * not_pi).neg_()),
        )

    def tile(self, predictors: Sequence[Tensor], y: Tensor, zeros: Tensor | None = None) -> Terms:
        """Return the terms of a tile of genes x cells, accurate as part of a sum over cells.

        All entries have the probability ``1 - pi`` of no structural zero as a factor. Otherwise
        only zeros differ from the negative binomial.
        """
        eta, rho, zeta = predictors
        parts = _TileParts.of(eta, rho, y)
        # The probability of a structural zero is exactly zero for a positive count.
        zeta_of_zeros = torch.where(y > 0, -torch.inf, zeta) if zeros is None else zeta
        # c: posterior probability that a zero is a structural one
        not_c, c = logistic(parts.log_zero - zeta_of_zeros)
        # The larger of the two log-masses of a zero, so that nothing cancels
        value = torch.maximum(zeta_of_zeros, parts.log_zero).sub_(torch.maximum(c, not_c).log_())
        minus_v = (c * not_c).neg_()
        if zeros is not None:
            value = torch.lerp(parts.log_zero, value, zeros)
            not_c = torch.lerp(torch.ones_like(c), not_c, zeros)
            c, minus_v = c.mul_(zeros), minus_v.mul_(zeros)
        value = value.add_(parts.of_counts)
        a, b = parts.slope, parts.log_zero - parts.slope  # scores of a sampled zero
        sampled = parts._replace(log_zero=parts.log_zero.mul_(not_c), slope=not_c.mul_(a))
        (s_eta, s_rho), (h_ee, h_er, h_rr) = _derivatives(sampled, y)
        h_ez, h_rz = minus_v * a, minus_v * b
        pi, not_pi = logistic(zeta)
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
    """Return the log gamma ratio from the saturated log-mass, which keeps digits of large sizes."""
    y, r = counts.y, bounded_size(rho)
    saturated = NegBinFamily().saturated(counts, rho)
    log = (y / r).log1p_()
    first = saturated.first + r * log
    return GammaRatio(
        saturated.value - y * counts.log_y + (r + y) * log,
        first,
        (saturated.second + first).sub_(r * y / (r + y)),
    )


def _inflated_zero(nb: Tensor, zeta: Tensor, not_pi: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-mass of a zero of an inflated count, and the mass of positive counts.

    Parameters
    ----------
    nb : Tensor
        Log-mass of a zero without inflation.
    zeta, not_pi : Tensor
        Predictor of the inflation, and the probability of none.
    """
    positive = nb.expm1().neg_() * not_pi
    value = (-positive).log1p_()
    if _reaches(positive, _PROBABLY_POSITIVE):  # 1 - positive cancels, the sum of masses not
        structural, sampled = logistic(zeta - nb)
        log_sum = (not_pi / torch.maximum(sampled, structural)).log_() + torch.maximum(nb, zeta)
        value = torch.where(positive >= _PROBABLY_POSITIVE, log_sum, value)
    return value, positive


class _TileParts(NamedTuple):
    """Functions of the predictors from which the terms of a tile are computed."""

    log_zero: Tensor  # log-mass of a zero, -r L
    slope: Tensor  # derivative of log_zero in the mean's predictor, -r m
    m: Tensor
    of_counts: Tensor  # y (eta - rho - L)

    @classmethod
    def of(cls, eta: Tensor, rho: Tensor, y: Tensor) -> "_TileParts":
        """Compute the functions for a tile; `eta` is overwritten."""
        r = bounded_size(rho)
        mu = eta.exp()
        log = (mu * r.reciprocal()).log1p_()
        of_counts = eta.sub_(log).mul_(y)
        m = (mu + r).reciprocal_().mul_(mu)
        minus_r = r.neg_()
        return cls(log.mul_(minus_r), m * minus_r, m, of_counts)


def _derivatives(
    parts: _TileParts, y: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return the negative binomial score and Hessian of a tile; the slope is overwritten."""
    log_zero, slope, m, _ = parts
    s_eta = (slope + y).addcmul_(y, m, value=-1)
    h_er = s_eta * m
    s_rho = log_zero - s_eta
    h_rr = (log_zero - slope).sub_(h_er)
    return (s_eta, s_rho), (slope.sub_(h_er), h_er, h_rr)


def _bounded(eta: Tensor) -> Tensor:
    """Return a copy of `eta`, bounded by the largest log mean."""
    return eta.clamp_max(LARGEST_LOG_MEAN)


def bounded_size(rho: Tensor) -> Tensor:
    """Return ``exp(rho)`` within bounds whose squares neither overflow nor underflow.

    At these bounds, the likelihood has reached its limits: Poisson, or a point mass at zero.
    """
    bound = min(LARGEST_LOG_SIZE, 0.45 * math.log(torch.finfo(rho.dtype).max))
    return rho.clamp(-bound, bound).exp_()


def logistic(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logistic function at ``x`` and ``-x``, both to full accuracy.

    Unlike in ``torch.sigmoid``, rounding does not depend on an element's position in the tensor.
    """
    # Finite, as the product of infinity and a reciprocal of zero is not a number
    odds = x.neg().exp_().clamp_max_(1 / torch.finfo(x.dtype).tiny)
    value = (odds + 1).reciprocal_()
    return value, odds.mul_(value)


def _reaches(x: Tensor, bound: float) -> bool:
    """Return whether an element reaches a bound or is NaN; much faster than `any` of a mask."""
    return x.numel() > 0 and not bool(x.amax() < bound)
