"""The fitted count distributions, with the method names of SciPy.

Here are :class:`NB` and :class:`ZINB` with their tail probabilities, expected information and exact
random counts, dense or sparse. A new family's distribution belongs in ``count_distributions``.
Parameters are arrays of numbers; designs and coefficients belong elsewhere.
"""

from sc_glm.distributions.count_distributions import NB, ZINB

__all__ = ["NB", "ZINB"]
