"""Which zeros are structural: their probability, given the count and the fitted model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from sc_glm._contract.docstrings import documented
from sc_glm._likelihood.family import ZERO_INFLATION, NegBinFamily
from sc_glm.distributions.expected_information import Zeros
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.fitted_model import FittedData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["zero_probability"]


@documented(ENTRIES)
def zero_probability(
    model: Any, X: Any, y: Any = None, *, genes: str | Sequence[str] | None = None
) -> NDArray[np.float64]:
    r"""Return the probability that a count is a structural zero, given the count.

    A zero is structural with probability :math:`\pi`, or comes from the negative binomial
    distribution, whose probability of a zero is :math:`f(0)`. By Bayes' rule,

    .. math:: P(\text{structural} \mid y = 0) = \frac{\pi}{\pi + (1 - \pi) f(0)}.

    It is zero for a positive count. A zero where the mean is large has a probability near one.

    Parameters
    ----------
    {model}
    {X}
    {y}
    {genes}

    Returns
    -------
    ndarray of shape (n_cells, n_genes) or (n_cells,)
        It has one dimension if the counts of the fit had one.

    Raises
    ------
    {raises_not_a_regressor}
    {raises_invalid_data}
    ValueError
        If the model has no zero inflation.

    See Also
    --------
    zero_test : Whether a gene has more zeros than the model expects.

    Notes
    -----
    The mean of the probabilities over the cells of a fit is the mean of :math:`\pi`, if the zero
    inflation has an intercept. This holds at the maximum of the likelihood.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_glm import ZINBRegressor
    >>> from sc_glm.diagnostics import zero_probability
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(2000, 1))
    >>> y = rng.poisson(np.exp(1 + X[:, 0])) * (rng.uniform(size=2000) > 0.3)
    >>> model = ZINBRegressor(size=np.inf).fit(X, y)
    >>> cells = [[-2.0], [0.0], [2.0], [2.0]]
    >>> zero_probability(model, cells, [0, 0, 0, 12]).round(2)
    array([0.38, 0.87, 1.  , 0.  ])
    """
    data = FittedData.of(model, X, y, genes=genes)
    if ZERO_INFLATION not in data.params:
        raise ValueError(
            f"The model has no zero inflation: a {type(data.regressor).__name__} has no structural "
            "zeros. Fit a ZINBRegressor."
        )
    result = np.empty(data.counts.shape)
    for block in data.blocks():
        *count_predictors, log_odds = block.predictors.values()
        log_zero = Zeros.of(NegBinFamily(), count_predictors).log_mass
        result[:, block.genes] = np.where(block.counts > 0, 0.0, expit(log_odds - log_zero))
    return data.in_shape_of_counts(result)
