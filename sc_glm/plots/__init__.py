"""Plots of fitted models: ``Display`` classes as scikit-learn has them.

``Display.from_estimator(model, X, y)`` computes what is shown and draws it; the object keeps both,
the numbers under the names of its parameters, and ``ax_`` and ``figure_``. ``plot`` draws once
more. They need matplotlib, which the extra ``sc_glm[plots]`` installs; this module imports without.
A new plot belongs here, in a module of its own.
"""

from sc_glm.plots.covariate import CovariateDisplay
from sc_glm.plots.moments import MeanVarianceDisplay
from sc_glm.plots.quantiles import QuantileQuantileDisplay
from sc_glm.plots.rootogram import RootogramDisplay
from sc_glm.plots.summaries import SimulatedSummariesDisplay
from sc_glm.plots.volcano import VolcanoDisplay

__all__ = [
    "CovariateDisplay",
    "MeanVarianceDisplay",
    "QuantileQuantileDisplay",
    "RootogramDisplay",
    "SimulatedSummariesDisplay",
    "VolcanoDisplay",
]
