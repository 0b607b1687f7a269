"""Plots of fitted models: ``Display`` classes as scikit-learn has them.

``Display.from_estimator(model, X, y)`` computes what is shown and draws it; the object keeps both,
the numbers under the names of its parameters, and ``ax_`` and ``figure_``. ``plot`` draws once
more. They need matplotlib, which the extra ``sc_glm[plots]`` installs; this module imports without.
"""

from sc_glm.plots_covariate import CovariateDisplay
from sc_glm.plots_moments import MeanVarianceDisplay
from sc_glm.plots_quantiles import QuantileQuantileDisplay
from sc_glm.plots_rootogram import RootogramDisplay
from sc_glm.plots_summaries import SimulatedSummariesDisplay
from sc_glm.plots_volcano import VolcanoDisplay

__all__ = [
    "CovariateDisplay",
    "MeanVarianceDisplay",
    "QuantileQuantileDisplay",
    "RootogramDisplay",
    "SimulatedSummariesDisplay",
    "VolcanoDisplay",
]
