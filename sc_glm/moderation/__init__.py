"""Dispersion shrinkage: each gene's dispersion, drawn towards what genes of its mean have.

Here are the likelihood of a gene's size alone, the trend of dispersions over means, and the
moderated model made of both. New ways to share information between genes belong here.
"""

from sc_glm.moderation.dispersion_trend import DispersionTrend
from sc_glm.moderation.moderation import ModeratedDispersion, moderate_dispersion

__all__ = ["DispersionTrend", "ModeratedDispersion", "moderate_dispersion"]
