"""Dispersion shrinkage: the dispersion of each gene is drawn towards a trend over the mean.

Here are the profile likelihood of a gene's size, the trend of dispersions over means, and the
moderated model that results from both. New ways to share information between genes belong here.
"""

from sc_glm.moderation.dispersion_trend import DispersionTrend
from sc_glm.moderation.moderation import ModeratedDispersion, moderate_dispersion

__all__ = ["DispersionTrend", "ModeratedDispersion", "moderate_dispersion"]
