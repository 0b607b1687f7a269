"""Plots of fitted models: ``Display`` classes like scikit-learn's.

``Display.from_estimator(model, X, y)`` computes the numbers and draws them. The object keeps the
numbers under the names of its parameters, and the plot as ``ax_`` and ``figure_``. ``plot`` draws
it again. ``style`` gives other plots their style. Plots need matplotlib, which the extra
``sc_glm[plots]`` installs; this module can be imported without it. A new plot belongs here, in a
module of its own.
"""

from sc_glm.plots.axes import style
from sc_glm.plots.covariate import CovariateDisplay
from sc_glm.plots.curve_heatmap import CurveHeatmapDisplay
from sc_glm.plots.fold_changes import MeanFoldChangeDisplay
from sc_glm.plots.moments import MeanVarianceDisplay
from sc_glm.plots.p_values import PValueDisplay
from sc_glm.plots.quantiles import QuantileQuantileDisplay
from sc_glm.plots.rootogram import RootogramDisplay
from sc_glm.plots.summaries import SimulatedSummariesDisplay
from sc_glm.plots.volcano import VolcanoDisplay

__all__ = [
    "CovariateDisplay",
    "CurveHeatmapDisplay",
    "MeanFoldChangeDisplay",
    "MeanVarianceDisplay",
    "PValueDisplay",
    "QuantileQuantileDisplay",
    "RootogramDisplay",
    "SimulatedSummariesDisplay",
    "VolcanoDisplay",
    "style",
]
