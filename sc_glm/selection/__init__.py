"""Choose a model for each gene by the log-likelihood of held-out cells.

Comparisons of several models by cross-validation belong here. Tests of nested models on the cells
of their fit belong to ``inference``.
"""

from sc_glm.selection.comparison import compare_models
from sc_glm.selection.one_standard_error import choose_model

__all__ = ["choose_model", "compare_models"]
