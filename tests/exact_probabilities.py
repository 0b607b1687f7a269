"""The negative binomial log-mass and its tail probabilities, computed with mpmath."""

import mpmath


def exact_log_mass(y, mu, r, pi=None):
    y, mu, r = mpmath.mpf(y), mpmath.mpf(mu), mpmath.mpf(r)
    value = mpmath.loggamma(y + r) - mpmath.loggamma(r) - mpmath.loggamma(y + 1)
    value += r * mpmath.log(r / (r + mu)) + y * mpmath.log(mu / (r + mu))
    if pi is None:
        return value
    pi = mpmath.mpf(pi)
    mass = (1 - pi) * mpmath.exp(value)
    return mpmath.log(pi + mass) if y == 0 else mpmath.log(1 - pi) + value


def exact_tails(k, mu, r):
    """Sum the mass from k down and from k + 1 up until terms are negligible."""
    mu, r = mpmath.mpf(mu), mpmath.mpf(r)
    odds = mu / (r + mu)
    term, lower, j = mpmath.exp(exact_log_mass(k, mu, r)), mpmath.mpf(0), k
    while j >= 0 and term > lower * mpmath.mpf(10) ** -25:
        lower += term
        term *= j / (odds * (r + j - 1)) if j else 0
        j -= 1
    if r < 1:  # too long a sum
        return lower, 1 - lower
    term, upper, j = mpmath.exp(exact_log_mass(k + 1, mu, r)), mpmath.mpf(0), k + 1
    while j <= k + 2 or term > upper * mpmath.mpf(10) ** -25:
        upper += term
        term *= odds * (r + j) / (j + 1)
        j += 1
    return lower, upper
