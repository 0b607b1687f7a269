"""Special functions that stay accurate where terms of the textbook formulas cancel.

Near the Poisson limit of the negative binomial, the size is huge and differences of ``lgamma`` or
``digamma`` lose all digits. These functions follow the saddle-point form of Loader (2000), "Fast
and accurate computation of binomial probabilities". They work elementwise on tensors of any shape,
device and floating type.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Series of log1p(t) - t = -t s + 2 s^3 (1/3 + s^2/5 + ...) in s = t / (2 + t), for |t| below this
# limit, which means |s| < 0.053.
_ATANH_SERIES = tuple(2.0 / (2 * k + 3) for k in range(6))
_SERIES_LIMIT = 0.1

# Coefficients B_{2k} / (2k (2k - 1)) of Stirling's series in odd powers of 1/z, and of its first
# two derivatives (NIST DLMF 5.11.1, 5.11.2).
_STIRLING = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
)
_STIRLING_1 = tuple(-(2 * k + 1) * c for k, c in enumerate(_STIRLING))
_STIRLING_2 = tuple((2 * k + 1) * (2 * k + 2) * c for k, c in enumerate(_STIRLING))
_STIRLING_COLUMNS = torch.tensor([_STIRLING, _STIRLING_1, _STIRLING_2], dtype=torch.float64).mT

# At x + 8 the series has working precision for any x > 0. From x = 10 on it needs no shift.
_SHIFT = 8
_NO_SHIFT_FROM = 10.0


def _horner(coefficients: Sequence[float] | Sequence[Tensor], x: Tensor) -> Tensor:
    """Evaluate a polynomial by Horner's method."""
    result = x * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        result.add_(c).mul_(x)
    return result.add_(coefficients[0])


def log1p_and_rest(t: Tensor, one_plus_t: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``log(1 + t)`` and ``log(1 + t) - t``, both with full relative accuracy.

    Parameters
    ----------
    t : Tensor
        Argument, greater than -1.
    one_plus_t : Tensor
        ``1 + t``, computed by the caller without cancellation where ``t`` is near -1.

    Returns
    -------
    tuple of Tensor
        ``log1p(t)`` and ``log1p(t) - t``; the second is never positive.

    Examples
    --------
    >>> import torch
    >>> t = torch.tensor([1e-9, 1.0], dtype=torch.float64)
    >>> log1p_and_rest(t, 1 + t)[1]
    tensor([-5.0000e-19, -3.0685e-01], dtype=torch.float64)
    """
    is_small = t.abs() < _SERIES_LIMIT
    s = t / (one_plus_t + 1)
    s2 = s * s
    series = _horner(_ATANH_SERIES, s2).mul_(s2).sub_(t).mul_(s)
    log = torch.where(is_small, series + t, one_plus_t.log())
    return log, torch.where(is_small, series, log - t)


class StirlingError(NamedTuple):
    """Error of Stirling's formula and its first two derivatives."""

    value: Tensor
    first: Tensor
    second: Tensor


def stirling_error(x: Tensor) -> StirlingError:
    r"""Return the error of Stirling's formula for ``lgamma``, with two derivatives.

    .. math:: \delta(x) = \log\Gamma(x) - (x - \tfrac12) \log x + x - \tfrac12 \log 2\pi

    Parameters
    ----------
    x : Tensor
        Positive argument.

    Returns
    -------
    StirlingError
        :math:`\delta, \delta', \delta''`, of the shape of `x`.

    Examples
    --------
    >>> import torch
    >>> stirling_error(torch.tensor([1e12], dtype=torch.float64)).value
    tensor([8.3333e-14], dtype=torch.float64)
    """
    small = x < _NO_SHIFT_FROM
    z = torch.where(small, x + _SHIFT, x)
    w = z.reciprocal()
    w2 = w * w
    # All three at once, as calls on few numbers cost more than the arithmetic.
    columns = _STIRLING_COLUMNS.to(x).view(-1, 3, *[1] * x.ndim)
    series = _horner(columns.unbind(0), w2)
    value, first, second = series[0] * w, series[1] * w2, series[2] * (w2 * w)
    if small.any():
        shift = _shift_down(torch.where(small, x, _NO_SHIFT_FROM))
        value += torch.where(small, shift.value, 0.0)
        first += torch.where(small, shift.first, 0.0)
        second += torch.where(small, shift.second, 0.0)
    return StirlingError(value, first, second)


def _shift_down(x: Tensor) -> StirlingError:
    """Return ``stirling_error(x)`` less Stirling's series at ``x + 8``.

    The product x (x + 1) ... (x + 7) is one of four factors u + c with u = x (x + 7).
    """
    z = x + _SHIFT
    u = x * (x + 7)
    factors = (u, u + 6, u + 10, u + 12)
    inverses = [f.reciprocal() for f in factors]
    r1 = inverses[0] + inverses[1] + inverses[2] + inverses[3]
    r2 = sum((i * i for i in inverses[1:]), inverses[0] * inverses[0])
    slope = 2 * x + 7
    sum_1 = slope * r1  # sum of 1 / (x + j)
    sum_2 = slope * slope * r2 - 2 * r1  # sum of 1 / (x + j)^2
    ratio = z / x
    log_ratio = ratio.log()
    z2 = z * z
    z4 = z2 * z2
    # z^8 / product, near one, so that its logarithm keeps all digits
    quotient = (z2 * inverses[0]) * (z2 * inverses[1]) * (z4 * inverses[2] * inverses[3])
    wx, wz = x.reciprocal(), z.reciprocal()
    value = (x - 0.5) * log_ratio + quotient.log() - _SHIFT
    first = log_ratio + 0.5 * (wx - wz) - sum_1
    second = wz - wx + 0.5 * (wz * wz - wx * wx) + sum_2
    return StirlingError(value, first, second)
